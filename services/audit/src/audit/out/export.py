"""An export: one zip, streamed a batch at a time, so that millions of entries need the memory of some hundreds.

The signed manifest comes last, for only then the counts are known. A stream that breaks off has no end of a zip and no
manifest: nobody takes it for whole.
"""

import asyncio
import io
import json
import zipfile
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any

from audit.cursor import Cursor
from audit.note import Checkpoint
from audit.out import manifest
from audit.out.dsse import EXPORT, BytesSigner, ManifestError, seal
from audit.out.formats import WRITERS, Ndjson, Writer
from audit.out.manifest import IndexSet, Part, manifest_of
from audit.out.query import Query, Source
from audit.out.rows import Row
from audit.tlog.paths import Proven

# Every zip of ours has the first instant that a zip can tell: same content, same bytes.
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
Prove = Callable[[Sequence[int]], Awaitable[Sequence[Proven]]]


def zip_entry(name: str) -> zipfile.ZipInfo:
    """The directory entry of a file: fixed time, readable by everybody, made by Unix."""
    info = zipfile.ZipInfo(name, FIXED_TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info


class Pipe(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data, self._held = b"".join(self._held), []
        return data


class Measured:
    """Counts and digests what goes through."""

    def __init__(self, file: Any) -> None:
        self._file, self._digest, self.bytes = file, sha256(), 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


async def export(
    source: Source,
    query: Query,
    head: Checkpoint,
    note: str,
    formats: Iterable[str],
    signer: BytesSigner,
    taken_by: str,
    *,
    paths: Prove | None = None,
    follows: tuple[int, Sequence[bytes]] | None = None,
) -> AsyncIterator[bytes]:
    """The pieces of the zip. Entries are those of `query` under `head`.

    `paths` gives the audit paths of entries under `head`: a file of them goes along. `follows`: the size of the tree of
    the export before, and the consistency proof from there.

    Raises:
        ManifestError: two files would tell of different entries.
    """
    pipe = Pipe()
    parts: list[Part] = []
    told: dict[str, Any] = IndexSet().document()
    pruned_until = await source.pruned_until()  # of then: what is pruned meanwhile, the source refuses or finds
    with zipfile.ZipFile(pipe, "w") as archive:
        for name in sorted(set(formats)):
            kind, indexes = WRITERS[name], IndexSet()
            with archive.open(zip_entry(kind.NAME), "w", force_zip64=True) as file:
                measured = Measured(file)
                writer: Writer = kind(measured)
                async for rows in source.batches(query):
                    await asyncio.to_thread(_write, writer, indexes, rows)
                    if data := pipe.take():
                        yield data
                await asyncio.to_thread(writer.close)
            parts.append(Part(kind.NAME, kind.MEDIA_TYPE, indexes.count, measured.bytes, measured.hexdigest()))
            if len(parts) > 1 and indexes.document() != told:
                raise ManifestError("the log did not answer the same twice")
            told = indexes.document()
            yield pipe.take()
        if paths is not None:
            count = 0
            with archive.open(zip_entry(manifest.PROOFS), "w", force_zip64=True) as file:
                measured = Measured(file)
                async for rows in source.batches(query):
                    proven = await paths([row.stored.index for row in rows])
                    count += len(proven)
                    await asyncio.to_thread(_write_proofs, measured, proven)
                    if data := pipe.take():
                        yield data
            parts.append(Part(manifest.PROOFS, Ndjson.MEDIA_TYPE, count, measured.bytes, measured.hexdigest()))
        signed = {"origin": head.origin, "size": head.size, "root": head.root.hex(), "note": note}
        following = Cursor(head.size, (query.end,)).encode()
        before = None if follows is None else {"size": follows[0], "proof": [_text(node) for node in follows[1]]}
        document = manifest_of(query.document(), told, signed, parts, following, before, pruned_until, taken_by)
        archive.writestr(zip_entry(manifest.NAME), await seal(EXPORT, document, signer))
    yield pipe.take()


def _write(writer: Writer, indexes: IndexSet, rows: Sequence[Row]) -> None:
    writer.write(rows)
    for row in rows:
        indexes.add(row.stored.index, row.stored.leaf_hash, is_copy=row.fields["copy_of"] is not None)


def _write_proofs(file: Measured, proven: Sequence[Proven]) -> None:
    for one in proven:
        line = {"index": one.index, "leaf_hash": one.leaf_hash.hex(), "proof": [_text(node) for node in one.path]}
        file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def _text(data: bytes) -> str:
    return b64encode(data).decode()
