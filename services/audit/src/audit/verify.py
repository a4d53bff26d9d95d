"""Checks an export of a Hallmark audit log, offline and without trust in the service that wrote it.

    python verify.py EXPORT --key 'ORIGIN+KEYID+KEY'

One file; needs Python 3.11 and the package `cryptography`, nothing else. The key line must come from somewhere
the log's operator cannot change after the fact. Exit status: 0 verified, 1 refused, 2 could not be read.

An export is one JSON document a line, each in its one right spelling (sorted keys, no spaces, ASCII):
{"checkpoint": signed note, "origin", "root": base64, "size"}, then an entry a line, {"index", "leaf": base64,
"leaf_hash": hex}. The header's `subtrees` over `width` entries each may be absent: they prove nothing, unread here.
Every leaf is hashed again (RFC 6962) and the root compared with the one that the checkpoint (C2SP) signs.
"""

import argparse
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_LINE = 64 * 1024 * 1024
Key = tuple[str, bytes, Ed25519PublicKey]


@dataclass(frozen=True)
class Report:
    """`index` is the first bad entry, where one can be named; `size` and `root` (hex) are what was checked."""

    ok: bool
    problem: str = ""
    index: int | None = None
    origin: str = ""
    size: int = 0
    root: str = ""


class Refused(Exception):
    """The export does not verify: the problem, and the first bad entry where it is known."""


def verify_export(lines: Iterable[bytes], vkey: str, since: str | None = None) -> Report:
    """Checks every line; stops at the first that is wrong, or at the first entry beyond the checkpoint.

    `since` is an older signed checkpoint that somebody kept: the log must begin with the entries it covers.

    Raises:
        ValueError: `vkey` is not a verifier key line.
    """
    key = read_key(vkey)
    try:
        return _verify(iter(lines), key, since)
    except Refused as refusal:
        return Report(False, *refusal.args)


def read_key(vkey: str) -> Key:
    """The name, id and key of a line `NAME+hex id+base64(0x01 || key)`. Raises ValueError."""
    name, given, encoded = [*vkey.strip().split("+", 2), "", ""][:3]
    data = b64decode(encoded, validate=True)
    key_id = sha256(name.encode() + b"\n" + data).digest()[:4]
    if not name or len(data) != 33 or data[0] != 1 or key_id.hex() != given:
        raise ValueError("the key is not a verifier key line (ORIGIN+KEYID+KEY) of an Ed25519 key")
    return name, key_id, Ed25519PublicKey.from_public_bytes(data[1:])


def _verify(lines: Iterator[bytes], key: Key, since: str | None) -> Report:
    top, fields = next(lines, b""), {"checkpoint": str, "origin": str, "root": str, "size": int}
    header = _document(top, fields | ({"subtrees": list, "width": int} if b',"subtrees":' in top else {}))
    origin, size, root = _open_note(header["checkpoint"], key)
    if (header["origin"], header["size"], header["root"]) != (origin, size, b64encode(root).decode()):
        raise Refused("the header says something else than the signed checkpoint")
    signed = [(size, root)]
    if since is not None:
        signed.insert(0, _open_note(since, key)[1:])
    if signed[0][0] > size:
        raise Refused("the export is older than the checkpoint that was kept")
    # The roots of full subtrees, largest first: a binary counter over the leaves.
    tree: list[bytes] = []
    count = 0
    for line in lines:
        _compare(tree, count, signed)
        if count == size:
            raise Refused(f"there is an entry beyond the checkpoint, which covers {size}", count)
        node, full = _entry(line, count), count
        while full & 1:
            node, full = sha256(b"\x01" + tree.pop() + node).digest(), full >> 1
        tree.append(node)
        count += 1
    if count != size:
        raise Refused(f"the export ends early: the checkpoint covers {size} entries, here are {count}", count)
    _compare(tree, count, signed)
    return Report(True, origin=origin, size=size, root=root.hex())


def _compare(tree: list[bytes], count: int, signed: list[tuple[int, bytes]]) -> None:
    """The root of the tree so far against what was signed for its size."""
    while signed and signed[0][0] == count:
        root = tree[-1] if tree else sha256(b"").digest()
        for node in reversed(tree[:-1]):
            root = sha256(b"\x01" + node + root).digest()
        if root != signed.pop(0)[1]:
            raise Refused(
                f"the first {count} entries do not hash to the root that was signed for them, though each fits "
                "its own hash: an entry was replaced or moved together with its hash"
            )


def _entry(line: bytes, index: int) -> bytes:
    """The leaf hash of the line that must hold entry `index`."""
    entry = _document(line, {"index": int, "leaf": str, "leaf_hash": str}, index)
    if entry["index"] != index:
        raise Refused(f"entry {index} is missing: entry {entry['index']} stands in its place", index)
    hashed = sha256(b"\x00" + _base64(entry["leaf"], index)).digest()
    if hashed.hex() != entry["leaf_hash"]:
        raise Refused("the entry does not fit its hash: one of the two was changed", index)
    return hashed


def _document(line: bytes, fields: dict[str, type], index: int | None = None) -> dict[str, Any]:
    if len(line) > MAX_LINE or not line.endswith(b"\n"):
        raise Refused("the line is cut off or too long" if line else "the export is empty", index)
    try:
        document = json.loads(line)
        spelt = json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    except (ValueError, RecursionError):
        raise Refused("the line is not JSON", index) from None
    if not isinstance(document, dict) or {k: type(v) for k, v in document.items()} != fields:
        raise Refused(f"the line has other fields than {', '.join(fields)}", index)
    if spelt != line:
        raise Refused("the line is not in its one right spelling", index)
    return document


def _open_note(note: str, key: Key) -> tuple[str, int, bytes]:
    """The origin, size and root that the key signs."""
    name, key_id, public = key
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise Refused("the checkpoint has no signature")
    text += "\n"
    for line in signatures[:-1].split("\n"):
        dash, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        if dash != "\u2014" or not signer:
            raise Refused("the checkpoint has a malformed signature line")
        data = _base64(encoded)
        if signer == name and data[:4] == key_id:
            break
    else:
        raise Refused(f"the checkpoint is not signed by this key of {name}")
    try:
        public.verify(data[4:], text.encode())
        origin, size, root = text.split("\n")[:3]
        if origin != name or size != str(int(size)):
            raise ValueError
        return origin, int(size), _base64(root)
    except InvalidSignature:
        raise Refused("the signature of the checkpoint is wrong") from None
    except ValueError:
        raise Refused("the signed note is not a checkpoint of this log") from None


def _base64(text: str, index: int | None = None) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        raise Refused("not base64", index) from None
    if b64encode(data).decode() != text:
        raise Refused("not base64 in its one right spelling", index)
    return data


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="verify", description="Checks an export of a Hallmark audit log, offline.")
    parser.add_argument("file", help="the export, or - for standard input")
    parser.add_argument("--key", required=True, metavar="LINE", help="the log's verifier key line")
    parser.add_argument("--since", metavar="FILE", help="an older checkpoint that was kept")
    given = parser.parse_args(arguments)
    try:
        since = Path(given.since).read_text() if given.since else None
        with sys.stdin.buffer if given.file == "-" else open(given.file, "rb") as file:
            report = verify_export(iter(lambda: file.readline(MAX_LINE + 1), b""), given.key, since)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot verify: {error}\n")
        return 2
    where = "" if report.index is None else f"entry {report.index}: "
    verdict = f"verified: {report.size} entries of {report.origin}, root {report.root}"
    sys.stdout.write(f"{verdict}\n" if report.ok else f"REFUSED: {where}{report.problem}\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
