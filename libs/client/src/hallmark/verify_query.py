"""Verifies offline an export of a query: the zip of `GET /v1/export`, with its signed manifest.

Its files are those that were signed, byte for byte; the leaves of `entries.ndjson` fit their hashes, are those that the
manifest and `proofs.ndjson` tell of, and the proofs lead to the signed root; a whole log adds up to it. What stands
beside a leaf (time, actor, type, ...) is the service's reading of it. Whether the service left out an entry of the
query, only the whole log tells.
"""

import hashlib
import json
import zipfile
from typing import IO, Any

from hallmark.verify import MAX_LINE, Tree
from hallmark.verify_bundle import Head, Key, check, climb, open_checkpoint, sha, unbase64, verified, verify_grown

MANIFEST, ENTRIES, PROOFS = "manifest.json", "entries.ndjson", "proofs.ndjson"
TYPE = b"application/vnd.hallmark.export+json"
MAX_MANIFEST, BLOCK = 1 << 20, 1 << 20


def verify_query(archive: zipfile.ZipFile, keys: list[Key], since: Head | None) -> tuple[str, Head]:
    """What was proved, and the checkpoint.

    Raises:
        Exception: something is not what was signed.
    """
    manifest = _manifest(archive, keys)
    head = open_checkpoint(manifest["checkpoint"]["note"], keys)
    told = [manifest["checkpoint"][name] for name in ("origin", "size", "root")]
    check(told == [head[0], head[1], head[2].hex()], "the manifest does not say what the signed checkpoint says")
    names = [part["name"] for part in manifest["files"]]
    check(sorted([*names, MANIFEST]) == sorted(archive.namelist()), "the files are not those of the manifest")
    for part in manifest["files"]:
        with archive.open(part["name"]) as file:
            check(_digest(file, part["bytes"]) == part["sha256"], f"{part['name']} was changed")
    count = manifest["indexes"]["count"]
    is_whole = count == head[1]
    for name in {ENTRIES, PROOFS} & set(names):
        with archive.open(name) as file:
            found, tree = _entries(file, name, head)
        same = all(manifest["indexes"][key] == value for key, value in found.items())
        check(same, f"{name} has {found['count']} entries that are not the {count} told of")
        check(not is_whole or tree.root() == head[2], f"{name}: the entries do not add up to the signed root")
    if since is not None:
        follows, note = manifest["follows"], manifest["checkpoint"]["note"]
        proof = "\n".join([f"old {follows['size']}", *follows["proof"]]) + f"\n\n{note}" if follows else ""
        verify_grown(proof, since, head, note)
    is_proved = PROOFS in names or (is_whole and ENTRIES in names)
    proved = "" if is_proved else " (not proved to be under the checkpoint: ask with `proofs=true`)"
    return f"{count} entries{proved}, {len(names)} files, log {head[0]} of {head[1]} entries", head


def _manifest(archive: zipfile.ZipFile, keys: list[Key]) -> dict[str, Any]:
    neither = "the zip is neither an evidence bundle nor an export"
    check(MANIFEST in archive.namelist(), neither)
    with archive.open(MANIFEST) as file:
        envelope = json.loads(file.read(MAX_MANIFEST))
    check(isinstance(envelope, dict) and "payload" in envelope, neither)
    payload = unbase64(envelope["payload"])
    signed = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE, len(payload), payload)
    signatures = [unbase64(one["sig"]) for one in envelope["signatures"]]
    ours = [key for key in keys if key[2][0] == 1]
    good = ours and all(any(verified(key, one, signed) for one in signatures) for key in ours)
    check(good, f"{MANIFEST} is not signed")
    manifest: dict[str, Any] = json.loads(payload)
    return manifest


def _digest(file: IO[bytes], size: int) -> str:
    digest, read = hashlib.sha256(), 0
    while read <= size and (block := file.read(BLOCK)):
        digest.update(block)
        read += len(block)
    return digest.hexdigest() if read == size else ""


def _entries(file: IO[bytes], name: str, head: Head) -> tuple[dict[str, Any], Tree]:
    """What a manifest tells of the indexes and leaf hashes of a file, and the tree that they are."""
    last, tree, indexes, leaves = -1, Tree(), hashlib.sha256(), hashlib.sha256()
    while line := file.readline(MAX_LINE):
        entry = json.loads(line)
        index, node = entry["index"], bytes.fromhex(entry["leaf_hash"])
        check(type(index) is int and last < index < head[1], f"entry {index} is out of order")
        if name == ENTRIES:
            check(sha(b"\0", unbase64(entry["leaf"])) == node, f"entry {index} does not fit its hash")
        else:
            root = climb(entry["proof"], index, head[1] - 1, node, node)[1]
            check(root == head[2], f"entry {index}: its proof does not lead to the signed root")
        indexes.update(index.to_bytes(8, "big"))
        leaves.update(node)
        tree.push(node)
        last = index
    return {"count": tree.size, "sha256": indexes.hexdigest(), "leaves": leaves.hexdigest()}, tree
