"""The signed manifest of an export, and its check: files, counts and indexes must all agree."""

import csv
import io
import json
import zipfile
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq

from audit import merkle
from audit.note import NoteError, open_note
from audit.out.dsse import EXPORT, ManifestError, unseal
from audit.out.formats import Csv, Ndjson, Parquet

NAME = "manifest.json"
KIND = "hallmark-export/1"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Part:
    """One file: `count` entries in `bytes` bytes."""

    name: str
    media_type: str
    count: int
    bytes: int
    sha256: str


class IndexSet:
    """The indexes of a file, in order: how many, and the SHA-256 over all of them as 8 bytes each, big-endian."""

    def __init__(self) -> None:
        self.count = 0
        self.first: int | None = None
        self.last: int | None = None
        self._digest = sha256()

    def add(self, index: int) -> None:
        """Raises ManifestError: the indexes do not grow."""
        if not 0 <= index < 2**63 or (self.last is not None and index <= self.last):
            raise ManifestError(f"entry {index} is out of order")
        self.first = index if self.first is None else self.first
        self.last, self.count = index, self.count + 1
        self._digest.update(index.to_bytes(8, "big"))

    def document(self) -> dict[str, Any]:
        return {"count": self.count, "first": self.first, "last": self.last, "sha256": self._digest.hexdigest()}


def manifest_of(
    query: dict[str, Any], indexes: dict[str, Any], checkpoint: dict[str, Any], files: Iterable[Part]
) -> dict[str, Any]:
    """`checkpoint`: origin, size, root (hex), note. `query`: what was asked, with the index range `start`, `end`."""
    return {
        "manifest": KIND,
        "query": query,
        "indexes": indexes,
        "checkpoint": checkpoint,
        "files": [asdict(part) for part in files],
    }


def verify_manifest(export: Path | IO[bytes], vkey: str) -> dict[str, Any]:
    """The manifest of an export (a zip), once everything in it agrees with it.

    Raises:
        ManifestError: not signed by the key; or a file, a count, an entry's hash or the set of entries is another.
    """
    try:
        with zipfile.ZipFile(export) as archive:
            manifest = unseal(_small(archive, NAME), EXPORT, vkey)
            _verify(archive, manifest, vkey)
    except (zipfile.BadZipFile, KeyError, TypeError, OSError, EOFError, NotImplementedError, NoteError) as error:
        raise ManifestError(f"the export is damaged: {error!r}"[:500]) from error
    except ValueError as error:
        raise error if isinstance(error, ManifestError) else ManifestError(f"damaged: {error}"[:500]) from error
    return manifest


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(BLOCK)


def _verify(archive: zipfile.ZipFile, manifest: dict[str, Any], vkey: str) -> None:
    names = [part["name"] for part in manifest["files"]]
    if manifest["manifest"] != KIND or not names or sorted([*names, NAME]) != sorted(archive.namelist()):
        raise ManifestError("the files are not those of the manifest")
    head = manifest["checkpoint"]
    signed = open_note(head["note"], vkey)
    if (signed.origin, signed.size, signed.root.hex()) != (head["origin"], head["size"], head["root"]):
        raise ManifestError("the manifest does not say what the signed checkpoint says")
    query, told = manifest["query"], manifest["indexes"]
    if not query["start"] <= query["end"] <= head["size"]:
        raise ManifestError("the manifest's range is not under its checkpoint")
    if told["count"] and not query["start"] <= told["first"] <= told["last"] < query["end"]:
        raise ManifestError("the manifest's entries are not in its range")
    for part in manifest["files"]:
        _check_bytes(archive, part)
        found = _indexes(archive, part["name"])
        if found.count != part["count"] or found.document() != told:
            raise ManifestError(f"{part['name']} has {found.count} entries that are not the {told['count']} told of")


def _check_bytes(archive: zipfile.ZipFile, part: dict[str, Any]) -> None:
    digest, size = sha256(), 0
    with archive.open(part["name"]) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
            if size > part["bytes"]:
                break
    if (size, digest.hexdigest()) != (part["bytes"], part["sha256"]):
        raise ManifestError(f"{part['name']} was changed")


def _indexes(archive: zipfile.ZipFile, name: str) -> IndexSet:
    found, readers = IndexSet(), {Ndjson.NAME: _of_ndjson, Csv.NAME: _of_csv, Parquet.NAME: _of_parquet}
    for index, leaf, leaf_hash in readers[name](archive):
        if leaf is not None and merkle.leaf_hash(leaf) != leaf_hash:
            raise ManifestError(f"{name}: entry {index} does not fit its hash")
        found.add(index)
    return found


Read = Iterator[tuple[int, bytes | None, bytes | None]]


def _of_ndjson(archive: zipfile.ZipFile) -> Read:
    with archive.open(Ndjson.NAME) as file:
        for line in file:
            entry = json.loads(line)
            yield entry["index"], b64decode(entry["leaf"], validate=True), bytes.fromhex(entry["leaf_hash"])


def _of_csv(archive: zipfile.ZipFile) -> Read:
    with archive.open(Csv.NAME) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")):
            yield int(row["index"]), None, None


def _of_parquet(archive: zipfile.ZipFile) -> Read:
    with archive.open(Parquet.NAME) as file:
        batches = pq.ParquetFile(file).iter_batches(1000, columns=["index", "leaf", "leaf_hash"])
        for batch in batches:
            for entry in batch.to_pylist():
                yield entry["index"], entry["leaf"], entry["leaf_hash"]
