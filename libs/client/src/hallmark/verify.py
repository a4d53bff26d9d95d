"""Checks an export of the audit log offline: nothing of the service is trusted, only the key you kept.

The export is one JSON object a line, each in its one spelling (sorted keys, no spaces, ASCII). First line:
{"checkpoint" (text), "origin", "root" (base64), "size"}. Then one line per entry: {"index", "leaf" (base64 of the
bytes), "leaf_hash" (hex)}. The first line may also have the `subtrees` of the tree (roots in base64) over `width`
entries each: they add up to the signed root, and show where an entry was replaced together with its hash.
Formats: RFC 6962 section 2.1 (Merkle tree), C2SP tlog-checkpoint and signed-note.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519 = 1
HEADER = {"checkpoint": str, "origin": str, "root": str, "size": int}
SUBTREES = {"subtrees": list, "width": int}
ENTRY = {"index": int, "leaf": str, "leaf_hash": str}
MAX_LINE = 64 << 20  # bytes; a record of Kafka has a tenth of that at the most


class VerificationError(Exception):
    """The log is not what was signed. `index` is the first bad entry, or None when it is not about one entry."""

    def __init__(self, detail: str, index: int | None = None) -> None:
        super().__init__(detail)
        self.index = index


@dataclass(frozen=True)
class VerifierKey:
    """A signed-note verifier key: `<name>+<hash>+<base64 of the algorithm byte and the public key>`."""

    name: str
    key_id: bytes
    public: bytes

    @classmethod
    def parse(cls, line: str) -> "VerifierKey":
        """Raises VerificationError when the line is malformed or not an Ed25519 key."""
        try:
            name, key_hash, encoded = line.strip().split("+", 2)
            key_id, material = bytes.fromhex(key_hash), _base64(encoded)
        except ValueError as error:
            raise VerificationError("the key line is not of the form name+hash+key") from error
        if material[:1] != bytes([ED25519]) or len(material) != 33:
            raise VerificationError("the key is not an Ed25519 verifier key")
        if key_id != hashlib.sha256(f"{name}\n".encode() + material).digest()[:4]:
            raise VerificationError("the key line's hash does not fit its key: mistyped?")
        return cls(name, key_id, material[1:])


@dataclass(frozen=True)
class Checkpoint:
    origin: str
    size: int
    root: bytes


@dataclass(frozen=True)
class Verified:
    """What was proved."""

    origin: str
    size: int
    root: str
    checkpoint: str


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """The checkpoint, once its signature is proved.

    Raises:
        VerificationError: malformed, or not signed by this key.
    """
    text, separator, signatures = note.rpartition("\n\n")
    if not separator:
        raise VerificationError("the checkpoint is not a signed note")
    signed = (text + "\n").encode()
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\N{EM DASH}" or name != key.name:
            continue
        try:
            raw = _base64(encoded)
            if raw[:4] != key.key_id:
                continue
            Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], signed)
        except (ValueError, InvalidSignature) as error:
            raise VerificationError("the checkpoint's signature is wrong: it is not what the log signed") from error
        return _parse_checkpoint(text)
    raise VerificationError(f"the checkpoint carries no signature of {key.name}")


def verify_export(path: Path, key_line: str, *, old_checkpoint: str | None = None) -> Verified:
    """Proves that the file holds exactly the log that the key's owner signed.

    With `old_checkpoint`, one that you kept from before, also proves that nothing from before was changed.

    Raises:
        VerificationError: with the first bad entry where there is one.
        OSError: the file cannot be read.
    """
    key = VerifierKey.parse(key_line)
    old = open_checkpoint(old_checkpoint, key) if old_checkpoint else None
    with path.open("rb") as file:
        line = _line(file)
        header = _object(line, HEADER | SUBTREES if b',"subtrees":' in line else HEADER, None)
        checkpoint = open_checkpoint(header["checkpoint"], key)
        told = (header["origin"], header["size"], header["root"])
        if told != (checkpoint.origin, checkpoint.size, base64.b64encode(checkpoint.root).decode()):
            raise VerificationError("the header does not say what the signed checkpoint says")
        width, subtrees = _subtrees(header)
        known = subtrees if _joined(subtrees) == checkpoint.root else []
        tree, part = Tree(), Tree()
        for leaf in _entries(iter(lambda: _line(file), b"")):
            if tree.size == checkpoint.size:
                raise VerificationError(f"entry {tree.size} is beyond what was signed", tree.size)
            if old and tree.size == old.size and tree.root() != old.root:
                raise VerificationError("the log does not extend your old checkpoint: history was rewritten")
            tree.add(leaf)
            part.add(leaf)
            if known and (part.size == width or tree.size == checkpoint.size):
                _compare(part, tree.size, known[(tree.size - 1) // width])
                part = Tree()
    if old and (old.size > tree.size or (old.size == tree.size and tree.root() != old.root)):
        raise VerificationError("the log does not extend your old checkpoint: history was cut or rewritten")
    if tree.size != checkpoint.size:
        raise VerificationError(f"entry {tree.size} is missing: {checkpoint.size} entries were signed", tree.size)
    if tree.root() != checkpoint.root:
        raise VerificationError("the entries do not add up to the signed root")
    if subtrees != known:
        raise VerificationError("the header was changed: its subtrees do not add up to the signed root")
    root = base64.b64encode(checkpoint.root).decode()
    return Verified(checkpoint.origin, checkpoint.size, root, header["checkpoint"])


class Tree:
    """The RFC 6962 root in logarithmic memory: one hash per complete subtree, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        self.push(leaf_hash(leaf))

    def push(self, node: bytes) -> None:
        full = self.size
        while full & 1:
            node = _node_hash(self._peaks.pop(), node)
            full >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = _node_hash(peak, node)
        return node


def _subtrees(header: dict[str, Any]) -> tuple[int, list[bytes]]:
    """How many entries each is over, and the roots; those of full ones are as many entries wide, a power of two."""
    width, size = header.get("width", 1), header["size"]
    try:
        found = [_base64(one) for one in header.get("subtrees", [])]
    except (ValueError, TypeError) as error:
        raise VerificationError("the header was changed: its subtrees are not base64") from error
    if width < 1 or width & (width - 1) or (found and len(found) != -(-size // width)):
        raise VerificationError("the header was changed: its subtrees are not those of a tree of this size")
    return width, found


def _joined(subtrees: list[bytes]) -> bytes:
    tree = Tree()
    for subtree in subtrees:
        tree.push(subtree)
    return tree.root()


def _compare(part: Tree, end: int, root: bytes) -> None:
    if part.root() != root:
        first, last = end - part.size, end - 1
        where = f"entry {first} was" if first == last else f"one of the entries {first} to {last} was"
        raise VerificationError(
            f"{where} replaced or moved together with its hash: this is not what was signed",
            first if first == last else None,
        )


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _line(file: BinaryIO) -> bytes:
    line = file.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise VerificationError(f"a line has more than {MAX_LINE} bytes: this is no export")
    return line


def _entries(lines: Iterable[bytes]) -> Iterator[bytes]:
    for index, line in enumerate(lines):
        entry = _object(line, ENTRY, index)
        if entry["index"] != index:
            raise VerificationError(f"entry {index} is missing or out of place", index)
        try:
            leaf = _base64(entry["leaf"])
        except ValueError as error:
            raise VerificationError(f"entry {index} was changed: its bytes are not base64", index) from error
        if leaf_hash(leaf).hex() != entry["leaf_hash"]:
            raise VerificationError(f"entry {index} was changed: its bytes do not fit its hash", index)
        yield leaf


def _parse_checkpoint(text: str) -> Checkpoint:
    try:
        origin, size, root = text.split("\n")[:3]
        checkpoint = Checkpoint(origin, int(size), _base64(root))
    except ValueError as error:
        raise VerificationError("the checkpoint is malformed") from error
    if str(checkpoint.size) != size or len(checkpoint.root) != 32:
        raise VerificationError("the checkpoint is malformed")
    return checkpoint


def _object(line: bytes, fields: dict[str, type], index: int | None) -> dict[str, Any]:
    where = "the header" if index is None else f"entry {index}"
    try:
        found = json.loads(line)
        spelt = json.dumps(found, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{where} was changed: it is not JSON", index) from error
    if spelt != line or not isinstance(found, dict) or {k: type(v) for k, v in found.items()} != fields:
        raise VerificationError(f"{where} was changed: it is not as an export is written", index)
    return found


def _base64(text: str) -> bytes:
    """Raises ValueError unless `text` is the one base64 spelling of some bytes."""
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if base64.b64encode(found).decode() != text:
        raise ValueError("not the canonical base64 of anything")
    return found
