"""The request that adds a checkpoint to what a witness, or our signer, has seen: C2SP tlog-witness `add-checkpoint`.

`old N`, the hashes of the RFC 6962 consistency proof from size N in base64, an empty line, the checkpoint; one a line.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from audit.note import NoteError

SIZE_TYPE = "text/x.tlog.size"  # of an answer that holds the size that was seen last
MAX_PROOF = 63
MAX_BYTES = 1 << 20
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Addition:
    """`proof` shows that the tree of the checkpoint begins with that of its first `old` entries."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: str


def write(old: int, proof: Sequence[bytes], checkpoint: str) -> bytes:
    lines = [f"old {old}", *(b64encode(node).decode() for node in proof), "", checkpoint]
    return "\n".join(lines).encode()


def read(body: bytes) -> Addition:
    """Raises NoteError when it is malformed; the checkpoint itself is not looked at."""
    try:
        head, separator, checkpoint = body.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise NoteError("the request is not UTF-8") from error
    first, *hashes = head.split("\n")
    if not separator or not first.startswith("old ") or (old := read_size(first[4:])) is None:
        raise NoteError("the request must begin with `old` and a size, and have an empty line before the checkpoint")
    if len(hashes) > MAX_PROOF:
        raise NoteError(f"the proof has more than {MAX_PROOF} hashes")
    return Addition(old, tuple(_hash(line) for line in hashes), checkpoint)


def read_size(text: str) -> int | None:
    """None when it is not a size in its one right spelling."""
    return int(text) if _SIZE.fullmatch(text) else None


def conflict(status: int, kind: str, body: bytes) -> int | None:
    """The size that was seen last, from an answer that refuses since the proof begins elsewhere. `kind`: its media
    type."""
    if status != 409 or kind != SIZE_TYPE:
        return None
    return read_size(body.decode(errors="replace").removesuffix("\n"))


def _hash(line: str) -> bytes:
    try:
        node = b64decode(line, validate=True)
    except ValueError as error:
        raise NoteError("a line of the proof is not base64") from error
    if len(node) != 32 or b64encode(node).decode() != line:
        raise NoteError("a line of the proof is no SHA-256 hash in base64")
    return node
