"""The offline verifier against the published test vectors of RFC 6962, and against every way to cheat we know."""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hallmark.verify import Tree, VerificationError, VerifierKey, verify_export

ORIGIN = "hallmark.test/log"
# Certificate Transparency's own test data (google/certificate-transparency, merkle tree tests).
VECTORS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@dataclass
class Log:
    """A log made by hand, signed with a key of its own."""

    key: Ed25519PrivateKey
    leaves: list[bytes]

    @property
    def material(self) -> bytes:
        return b"\x01" + self.key.public_key().public_bytes_raw()

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(ORIGIN.encode() + b"\n" + self.material).digest()[:4]

    @property
    def key_line(self) -> str:
        return f"{ORIGIN}+{self.key_id.hex()}+{base64.b64encode(self.material).decode()}"

    def checkpoint(self, size: int | None = None) -> str:
        leaves = self.leaves[: len(self.leaves) if size is None else size]
        text = f"{ORIGIN}\n{len(leaves)}\n{base64.b64encode(naive_root(leaves)).decode()}\n"
        signature = self.key_id + self.key.sign(text.encode())
        return f"{text}\n\N{EM DASH} {ORIGIN} {base64.b64encode(signature).decode()}\n"

    def lines(self) -> list[bytes]:
        head = {
            "checkpoint": self.checkpoint(),
            "origin": ORIGIN,
            "root": base64.b64encode(naive_root(self.leaves)).decode(),
            "size": len(self.leaves),
        }
        return [line(head)] + [
            line({"index": n, "leaf": base64.b64encode(leaf).decode(), "leaf_hash": hash_leaf(leaf).hex()})
            for n, leaf in enumerate(self.leaves)
        ]

    def export(self, path: Path) -> Path:
        path.write_bytes(b"".join(self.lines()))
        return path


def line(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def hash_leaf(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hash_leaf(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


@pytest.fixture
def log() -> Log:
    return Log(Ed25519PrivateKey.generate(), [f'{{"type":"event.{n}"}}'.encode() for n in range(11)])


def test_roots_are_those_of_the_published_vectors() -> None:
    tree = Tree()
    for leaf, root in zip(VECTORS, ROOTS, strict=True):
        tree.add(bytes.fromhex(leaf))
        assert tree.root().hex() == root


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 11])
def test_what_was_signed_verifies(log: Log, tmp_path: Path, size: int) -> None:
    log.leaves = log.leaves[:size]
    proved = verify_export(log.export(tmp_path / "log"), log.key_line)
    assert (proved.origin, proved.size) == (ORIGIN, size)


def test_every_changed_byte_is_found(log: Log, tmp_path: Path) -> None:
    log.leaves = log.leaves[:3]
    whole = log.export(tmp_path / "log").read_bytes()
    copy = tmp_path / "copy"
    for place in range(len(whole)):
        copy.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(VerificationError):
            verify_export(copy, log.key_line)


def test_the_first_bad_entry_is_named(log: Log, tmp_path: Path) -> None:
    lines = log.lines()
    lines[1 + 5] = lines[1 + 5].replace(b'"leaf":"ey', b'"leaf":"ez')
    (tmp_path / "log").write_bytes(b"".join(lines))
    with pytest.raises(VerificationError, match="entry 5") as caught:
        verify_export(tmp_path / "log", log.key_line)
    assert caught.value.index == 5


def test_an_entry_changed_together_with_its_hash_is_found_by_the_root(log: Log, tmp_path: Path) -> None:
    forged = Log(log.key, [*log.leaves[:5], b"forged", *log.leaves[6:]])
    (tmp_path / "log").write_bytes(b"".join([log.lines()[0], *forged.lines()[1:]]))
    with pytest.raises(VerificationError, match="signed root"):
        verify_export(tmp_path / "log", log.key_line)


def test_entries_left_out_swapped_added_or_cut_off_are_found(log: Log, tmp_path: Path) -> None:
    head, *entries = log.lines()
    extra = line({"index": 11, "leaf": "", "leaf_hash": hash_leaf(b"").hex()})
    for changed, index in (
        ([*entries[:4], *entries[5:]], 4),
        ([entries[0], entries[2], entries[1], *entries[3:]], 1),
        (entries[:-1], 10),
        ([*entries, extra], 11),
    ):
        (tmp_path / "log").write_bytes(b"".join([head, *changed]))
        with pytest.raises(VerificationError) as caught:
            verify_export(tmp_path / "log", log.key_line)
        assert caught.value.index == index


def test_a_log_signed_by_somebody_else_is_refused(log: Log, tmp_path: Path) -> None:
    other = Log(Ed25519PrivateKey.generate(), log.leaves)
    with pytest.raises(VerificationError, match="no signature"):
        verify_export(other.export(tmp_path / "log"), log.key_line)


def test_an_old_checkpoint_proves_that_history_was_kept(log: Log, tmp_path: Path) -> None:
    old = log.checkpoint(6)
    verify_export(log.export(tmp_path / "log"), log.key_line, old_checkpoint=old)
    rewritten = Log(log.key, [b"another past", *log.leaves[1:]])
    with pytest.raises(VerificationError, match="rewritten"):
        verify_export(rewritten.export(tmp_path / "log"), log.key_line, old_checkpoint=old)
    shorter = Log(log.key, log.leaves[:4])
    with pytest.raises(VerificationError, match="cut"):
        verify_export(shorter.export(tmp_path / "log"), log.key_line, old_checkpoint=old)


@pytest.mark.parametrize("bad", ["", "nonsense", "a+b+c", "name+00000000+AQ=="])
def test_a_key_line_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(VerificationError):
        VerifierKey.parse(bad)


def test_a_mistyped_key_line_is_noticed(log: Log) -> None:
    name, _, rest = log.key_line.partition("+")
    with pytest.raises(VerificationError, match="hash"):
        VerifierKey.parse(f"{name}x+{rest}")
