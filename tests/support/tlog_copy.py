"""A log of its own making: leaves, keys that sign its checkpoints, and its copy in the C2SP tlog-tiles layout.

Written from the specification, apart from the service's code, so that neither can hide a mistake of the other.
"""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

ORIGIN = "hallmark.example/log/test"
ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MLDSA = MLDSA44PrivateKey.from_seed_bytes(bytes(range(32)))


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf).digest()


def root_of(hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"").digest()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01" + root_of(hashes[:split]) + root_of(hashes[split:])).digest()


def _key_id(kind: int, public: bytes, name: str = ORIGIN) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def vkeys(ed25519: Ed25519PrivateKey = ED25519, mldsa: MLDSA44PrivateKey = MLDSA) -> list[str]:
    pairs = [(1, ed25519.public_key().public_bytes_raw()), (6, mldsa.public_key().public_bytes_raw())]
    return [f"{ORIGIN}+{_key_id(k, p).hex()}+{b64encode(bytes([k]) + p).decode()}" for k, p in pairs]


def note_of(
    size: int, root: bytes, *, ed25519: Ed25519PrivateKey = ED25519, mldsa: MLDSA44PrivateKey = MLDSA, at: int = 1
) -> str:
    """A checkpoint with a line of each key."""
    text = f"{ORIGIN}\n{size}\n{b64encode(root).decode()}\n"
    name = ORIGIN.encode()
    stamp = at.to_bytes(8, "big")
    message = b"subtree/v1\n\0" + bytes([len(name)]) + name + stamp + bytes([len(name)]) + name
    message += bytes(8) + size.to_bytes(8, "big") + root
    signatures = [
        _key_id(1, ed25519.public_key().public_bytes_raw()) + ed25519.sign(text.encode()),
        _key_id(6, mldsa.public_key().public_bytes_raw()) + stamp + mldsa.sign(message),
    ]
    return text + "\n" + "".join(f"— {ORIGIN} {b64encode(one).decode()}\n" for one in signatures)


def tile_path(directory: Path, level: str, number: int, width: int) -> Path:
    elements = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        elements.insert(0, f"x{number % 1000:03d}")
    path = directory / "tile" / level / "/".join(elements)
    return path if width == 256 else path.with_name(path.name + ".p") / str(width)


def write_copy(directory: Path, leaves: list[bytes]) -> None:
    """The checkpoint and every tile and bundle of a log of these leaves."""
    for number in range(0, len(leaves), 256):
        part = leaves[number : number + 256]
        data = b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in part)
        _put(tile_path(directory, "entries", number // 256, len(part)), data)
    hashes = [leaf_hash(leaf) for leaf in leaves]
    (directory / "checkpoint").write_text(note_of(len(leaves), root_of(hashes)), encoding="utf-8")
    level = 0
    while hashes:
        for number in range(0, len(hashes), 256):
            part = hashes[number : number + 256]
            _put(tile_path(directory, str(level), number // 256, len(part)), b"".join(part))
        full = range(0, len(hashes) - 255, 256)
        hashes, level = [root_of(hashes[n : n + 256]) for n in full], level + 1


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
