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
from audit.forgetting import FORGOTTEN
from audit.note import open_note
from audit.out.dsse import EXPORT, ManifestError, unseal
from audit.out.formats import Csv, Ndjson, Parquet

NAME = "manifest.json"
KIND = "hallmark-export/1"
PROOFS = "proofs.ndjson"
BLOCK = 1 << 20
MAX_CELL = 64 << 20


@dataclass(frozen=True)
class Part:
    """One file: `count` entries in `bytes` bytes."""

    name: str
    media_type: str
    count: int
    bytes: int
    sha256: str


class IndexSet:
    """The indexes of a file, in order: how many, and the SHA-256 over all of them as 8 bytes each, big-endian.

    `copies` of them only repeat another entry; `leaves` is the SHA-256 over the leaf hashes.
    """

    def __init__(self) -> None:
        self.count = self.copies = 0
        self.first: int | None = None
        self.last: int | None = None
        self._digest, self._leaves = sha256(), sha256()

    def add(self, index: int, leaf_hash: bytes = b"", *, is_copy: bool = False) -> None:
        """Raises ManifestError: the indexes do not grow."""
        if not 0 <= index < 2**63 or (self.last is not None and index <= self.last):
            raise ManifestError(f"entry {index} is out of order")
        self.first = index if self.first is None else self.first
        self.last, self.count = index, self.count + 1
        self.copies += is_copy
        self._digest.update(index.to_bytes(8, "big"))
        self._leaves.update(leaf_hash)

    def document(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "copies": self.copies,
            "first": self.first,
            "last": self.last,
            "sha256": self._digest.hexdigest(),
            "leaves": self._leaves.hexdigest(),
        }


def manifest_of(
    query: dict[str, Any],
    indexes: dict[str, Any],
    checkpoint: dict[str, Any],
    files: Iterable[Part],
    following: str,
    follows: dict[str, Any] | None,
    pruned_until: int,
    taken_by: str,
) -> dict[str, Any]:
    """`checkpoint`: origin, size, root (hex), note. `query`: what was asked, with the index range `start`, `end`.

    `following`: the cursor of the next export. `follows`: the `size` of the tree of the export before, and the `proof`
    (base64) that this tree begins with that one. `pruned_until`: below this index the database may have entries no
    more. They are in the export; one narrowed by actor, subject or correlationid does not begin below it. `taken_by`:
    a copy that turns up somewhere tells whose it is.
    """
    return {
        "manifest": KIND,
        "query": query,
        "indexes": indexes,
        "checkpoint": checkpoint,
        "files": [asdict(part) for part in files],
        "next": following,
        "follows": follows,
        "pruned_until": pruned_until,
        "taken_by": taken_by,
    }


def verify_manifest(
    export: Path | IO[bytes], vkey: str, *, since: str | None = None, proved: bool = False
) -> dict[str, Any]:
    """The manifest of an export (a zip), once everything in it agrees with it.

    `since`: the signed checkpoint of the export before, which this one must follow; or its `manifest.json`, and then
    this one must begin where that one ended. `proved`: every entry must be shown to be under the checkpoint, by a proof
    of its own or because the whole log is there.

    Raises:
        ManifestError: not signed by the key; or a file, a count, an entry's hash, a proof or the set of entries is
            another.
    """
    try:
        with zipfile.ZipFile(export) as archive:
            manifest = unseal(_small(archive, NAME), EXPORT, vkey)
            _Verification(archive, manifest, vkey).run(since, proved=proved)
    except ManifestError:
        raise
    except Exception as error:  # whatever it is, nothing is verified
        raise ManifestError(f"the export is damaged: {error!r}"[:500]) from error
    return manifest


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(BLOCK)


# Index, the leaf where the file has it, the leaf hash, and whether it is a copy (None: the file does not say).
Read = Iterator[tuple[int, bytes | None, bytes, bool | None]]


class _Verification:
    def __init__(self, archive: zipfile.ZipFile, manifest: dict[str, Any], vkey: str) -> None:
        self._archive, self._manifest, self._vkey = archive, manifest, vkey
        head = manifest["checkpoint"]
        self._head = open_note(head["note"], vkey)
        if (self._head.origin, self._head.size, self._head.root.hex()) != (head["origin"], head["size"], head["root"]):
            raise ManifestError("the manifest does not say what the signed checkpoint says")

    def run(self, since: str | None, *, proved: bool) -> None:
        manifest = self._manifest
        names = [part["name"] for part in manifest["files"]]
        if manifest["manifest"] != KIND or not names or sorted([*names, NAME]) != sorted(self._archive.namelist()):
            raise ManifestError("the files are not those of the manifest")
        query, told = manifest["query"], manifest["indexes"]
        if not query["start"] <= query["end"] <= self._head.size:
            raise ManifestError("the manifest's range is not under its checkpoint")
        if told["count"] and not query["start"] <= told["first"] <= told["last"] < query["end"]:
            raise ManifestError("the manifest's entries are not in its range")
        narrowed = [name for name in FORGOTTEN if name in query]
        if narrowed and query["start"] < manifest.get("pruned_until", 0):
            detail = f"below {manifest['pruned_until']}, where nobody finds all that fit"
            raise ManifestError(f"the export is narrowed by {' and '.join(narrowed)}, and begins {detail}")
        for part in manifest["files"]:
            _check_bytes(self._archive, part)
            self._entries(part, told)
        if proved and PROOFS not in names and told["count"] != self._head.size:
            raise ManifestError("the entries are not proved to be under the checkpoint: there are no proofs")
        if since is not None:
            self._follows(since)

    def _entries(self, part: dict[str, Any], told: dict[str, Any]) -> None:
        name, found, tree = part["name"], IndexSet(), merkle.Frontier()
        for index, leaf, leaf_hash, is_copy in self._read(name):
            if leaf is not None and merkle.leaf_hash(leaf) != leaf_hash:
                raise ManifestError(f"{name}: entry {index} does not fit its hash")
            found.add(index, leaf_hash, is_copy=bool(is_copy))
            if told["count"] == self._head.size:
                tree.extend([leaf_hash])
        said = found.document() | ({"copies": told["copies"]} if name == PROOFS else {})
        if found.count != part["count"] or said != told:
            raise ManifestError(f"{name} has {found.count} entries that are not the {told['count']} told of")
        if told["count"] == self._head.size and tree.root() != self._head.root:
            raise ManifestError(f"{name}: the entries do not add up to the signed root")

    def _read(self, name: str) -> Read:
        readers = {Ndjson.NAME: _of_ndjson, Csv.NAME: _of_csv, Parquet.NAME: _of_parquet, PROOFS: self._of_proofs}
        return readers[name](self._archive)

    def _of_proofs(self, archive: zipfile.ZipFile) -> Read:
        with archive.open(PROOFS) as file:
            for line in file:
                entry = json.loads(line)
                index, leaf_hash = entry["index"], bytes.fromhex(entry["leaf_hash"])
                path = [b64decode(node, validate=True) for node in entry["proof"]]
                if not merkle.verify_inclusion(leaf_hash, index, self._head.size, path, self._head.root):
                    raise ManifestError(f"{PROOFS}: the proof of entry {index} does not lead to the signed root")
                yield index, None, leaf_hash, None

    def _follows(self, since: str) -> None:
        follows, start = self._manifest["follows"], self._manifest["query"]["start"]
        if since.lstrip().startswith("{"):
            before = unseal(since.encode(), EXPORT, self._vkey)
            since, end = before["checkpoint"]["note"], before["query"]["end"]
            if start != end:
                raise ManifestError(f"the export begins with entry {start}, the one before ended with {end}")
        old = open_note(since, self._vkey)
        if follows is None or follows["size"] != old.size:
            raise ManifestError(f"the export does not follow one of {old.size} entries")
        proof = [b64decode(node, validate=True) for node in follows["proof"]]
        if not merkle.verify_consistency(old.size, self._head.size, old.root, self._head.root, proof):
            raise ManifestError("the log does not begin with the one of your checkpoint")


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


def _of_ndjson(archive: zipfile.ZipFile) -> Read:
    with archive.open(Ndjson.NAME) as file:
        for line in file:
            entry = json.loads(line)
            leaf, leaf_hash = b64decode(entry["leaf"], validate=True), bytes.fromhex(entry["leaf_hash"])
            yield entry["index"], leaf, leaf_hash, entry["copy_of"] is not None


def _of_csv(archive: zipfile.ZipFile) -> Read:
    csv.field_size_limit(MAX_CELL)
    with archive.open(Csv.NAME) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")):
            yield int(row["index"]), None, bytes.fromhex(row["leaf_hash"]), row["copy_of"] != ""


def _of_parquet(archive: zipfile.ZipFile) -> Read:
    with archive.open(Parquet.NAME) as file:
        batches = pq.ParquetFile(file).iter_batches(1000, columns=["index", "leaf", "leaf_hash", "copy_of"])
        for batch in batches:
            for entry in batch.to_pylist():
                yield entry["index"], entry["leaf"], entry["leaf_hash"], entry["copy_of"] is not None
