"""Checks an evidence bundle, or a copy of the whole log. Needs Python 3.11 and `cryptography` 50 or newer, no more.

    python verify_bundle.py BUNDLE.zip --key KEYS [--since OLD]         files, checkpoint, every leaf, every proof
    python verify_bundle.py --log DIRECTORY --key KEYS [--since OLD]    every entry and tile of a C2SP tlog-tiles copy

KEYS: a verifier key line or a file of them, from somewhere that is not the bundle; each must have signed. OLD: a
checkpoint that you kept. Prints OK and exits with 0 when everything holds, else with 1 and the first that does not.
"""

# fmt: off
import argparse
import base64
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

Key = tuple[str, bytes, bytes]  # name, key id, kind byte and public key
Head = tuple[str, int, bytes]  # origin, size, root
MAX_FILE = 1 << 28

def check(good: object, problem: str) -> None:
    if not good:
        raise ValueError(problem)

def sha(*data: bytes) -> bytes:
    return hashlib.sha256(b"".join(data)).digest()

def unbase64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    check(base64.b64encode(data).decode() == text, "base64 in another than its one spelling")
    return data

def read(path: Path) -> bytes:
    check(path.is_file() and path.stat().st_size <= MAX_FILE, f"{path}: missing, or no file that a log has")
    return path.read_bytes()

def parse_key(line: str) -> Key:
    name, key_id, rest = line.strip().split("+", 2)
    data = unbase64(rest)
    check(len(data) == {1: 33, 6: 1313}.get(data[0]), f"key {name}: neither Ed25519 nor ML-DSA-44")
    check(sha(name.encode() + b"\n" + data)[:4].hex() == key_id, f"key {name}: its id does not fit it")
    return name, bytes.fromhex(key_id), data

def verified(key: Key, signature: bytes, text: bytes) -> bool:
    try:
        kind = Ed25519PublicKey if key[2][0] == 1 else MLDSA44PublicKey
        kind.from_public_bytes(key[2][1:]).verify(signature, text)
        return True
    except Exception:
        return False

def open_checkpoint(note: str, keys: list[Key], what: str = "the checkpoint") -> Head:
    """C2SP signed-note, tlog-checkpoint and, for ML-DSA-44, tlog-cosignature."""
    text, gap, tail = note.rpartition("\n\n")
    lines, signatures = text.split("\n"), [line.split(" ") for line in tail[:-1].split("\n")]
    good = gap and tail.endswith("\n") and all(len(one) == 3 and one[0] == "\u2014" for one in signatures)
    check(good and len(lines) >= 3 and re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]), f"{what} is malformed")
    origin, size, root = lines[0], int(lines[1]), unbase64(lines[2])
    check(len(root) == 32 and any(key[0] == origin for key in keys), f"{what} is of another log: {origin!r}")
    for key in keys:
        name = key[0].encode()
        mine = [unbase64(one[2])[4:] for one in signatures if one[1] == key[0] and unbase64(one[2])[:4] == key[1]]
        check(mine, f"{what} is not signed by {key[0]}, key {key[1].hex()}")
        for signature in mine:
            cosigned = b"subtree/v1\n\0" + bytes([len(name)]) + name + signature[:8] + bytes([len(origin.encode())])
            cosigned += origin.encode() + bytes(8) + size.to_bytes(8, "big") + root
            ed25519 = verified(key, signature, (text + "\n").encode())
            good = ed25519 if key[2][0] == 1 else verified(key, signature[8:], cosigned)
            check(good, f"{what}: the signature of {key[0]}, key {key[1].hex()}, is wrong")
    return origin, size, root

def verify_bundle(path: Path, keys: list[Key], since: Head | None) -> str:
    with zipfile.ZipFile(path) as bundle:
        names = sorted(bundle.namelist())
        envelope = json.loads(bundle.open("manifest.json").read(MAX_FILE))
        payload, kind = unbase64(envelope["payload"]), b"application/vnd.hallmark.bundle+json"
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        for key in keys:
            signatures = [unbase64(one["sig"]) for one in envelope["signatures"]]
            good = key[2][0] != 1 or any(verified(key, one, signed) for one in signatures)
            check(good and any(one[2][0] == 1 for one in keys), f"manifest.json is not signed by {key[0]}")
        files = (manifest := json.loads(payload))["files"]
        check(sorted([*files, "manifest.json"]) == names, "the files are not those of the manifest")
        content: dict[str, bytes] = {}
        for name, told in files.items():
            data = bundle.open(name).read(told["size"] + 1)
            check(sha(data).hex() == told["sha256"] and len(data) == told["size"], f"{name} was changed")
            content |= {name: data} if name in ("checkpoint", "events.ndjson") or name.startswith("proofs/") else {}
    note, proofs, last = content.pop("checkpoint").decode(), {name for name in content if name != "events.ndjson"}, -1
    origin, size, root = open_checkpoint(note, keys)
    check(manifest["checkpoint"] == {"origin": origin, "size": size, "root": root.hex()}, "another checkpoint is named")
    check(not since or since[1] < size or since[1:] == (size, root), "the checkpoint is older than yours, or another")
    for line in content["events.ndjson"].splitlines():
        event = json.loads(line)
        index, leaf = event["index"], unbase64(event["leaf"])
        check(type(index) is int and last < index < size, f"entry {index} is out of order")
        check(sha(b"\0", leaf).hex() == event["leaf_hash"], f"entry {index}: its bytes do not fit its hash")
        if "body" in event:
            check(sha(unbase64(event["body"])).hex().encode() in leaf, f"entry {index}: its body is another")
        proof, last = f"proofs/{index:012d}.tlog-proof", index
        proofs.remove(proof)
        verify_proof(content[proof].decode(), index, sha(b"\0", leaf), note, size, root)
    check(manifest["entries"] == len(content) - 1 and not proofs, "the events are not as many as the manifest says")
    return f"{len(content) - 1} entries of {manifest['subject']}, {len(files)} files, log {origin} of {size} entries"

def verify_proof(text: str, index: int, leaf: bytes, note: str, size: int, root: bytes) -> None:
    """C2SP tlog-proof, by RFC 9162 section 2.1.3.2."""
    head, _, own = text.partition("\n\n")
    lines = head.split("\n")
    check(lines[:2] == ["c2sp.org/tlog-proof@v1", f"index {index}"] and own == note, f"entry {index}: malformed proof")
    at, last = index, size - 1
    for sibling in map(unbase64, lines[2:]):
        check(last > 0 and len(sibling) == 32, f"entry {index}: its proof is too long")
        if at & 1 or at == last:
            leaf = sha(b"\1", sibling, leaf)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            leaf = sha(b"\1", leaf, sibling)
        at, last = at >> 1, last >> 1
    check(last == 0 and leaf == root, f"entry {index}: its proof does not lead to the signed root")

def root_of(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        pairs = range(0, len(hashes) - 1, 2)
        hashes = [sha(b"\1", *hashes[n : n + 2]) for n in pairs] + hashes[2 * len(pairs) :]
    return hashes[0] if hashes else sha(b"")

def tiles(directory: Path, level: str, number: int, width: int, seen: set[Path]) -> list[tuple[str, int, bytes]]:
    """What lies there of a tile: itself, and narrower ones from when it was not full."""
    digits = f"{number:0{-(-len(str(number)) // 3) * 3}d}"
    parts = [f"x{digits[n : n + 3]}" for n in range(0, len(digits), 3)]
    path = Path(directory, "tile", level, *parts[:-1], parts[-1][1:])
    partial = path.with_name(path.name + ".p")
    wide = [n for n in range(255, 0, -1) if (partial / str(n)).exists()] if partial.is_dir() else []
    found = [(path, 256)] * path.exists() + [(partial / str(n), n) for n in wide]
    check(found and found[0][1] == width, f"tile {path}, {width} wide, is missing or has more")
    seen.update(file for file, _ in found)
    return [(str(file), wide, read(file)) for file, wide in found]

def entries(directory: Path, number: int, width: int, seen: set[Path]) -> list[bytes]:
    """The hashes of a bundle's leaves; none where one is cut or too long."""
    kept: list[bytes] = []
    for file, wide, data in tiles(directory, "entries", number, width, seen):
        found, at = list[bytes](), 0
        while at < len(data) and len(found) < wide:
            at, start = at + 2 + int.from_bytes(data[at : at + 2], "big"), at + 2
            found.append(sha(b"\0", data[start:at]) if at <= len(data) else b"")
        found = found[: wide - (at < len(data))] + [b""] * max(at < len(data), wide - len(found))
        kept = kept or found
        bad = next((n for n in range(wide) if found[n] != kept[n]), wide)
        check(bad == wide, f"entry {number * 256 + bad}: {file} says otherwise")
    return kept

def verify_log(directory: Path, keys: list[Key], since: Head | None) -> str:
    origin, size, root = open_checkpoint(read(directory / "checkpoint").decode(), keys)
    seen, level, hashes, old = set[Path](), 0, list[bytes](), since or (origin, 0, sha(b""))
    check(old[1] <= size, f"entry {size} is missing: your checkpoint has {old[1]} entries")
    for number in range((size + 255) // 256):
        hashes += entries(directory, number, min(256, size - number * 256), seen)
    good = root_of(hashes) == root, root_of(hashes[: old[1]]) == old[2]
    while hashes:
        for n in range(0, len(hashes), 256):
            for file, wide, data in tiles(directory, str(level), n // 256, len(hashes[n : n + 256]), seen):
                bad = next((k for k in range(wide) if data[32 * k : 32 * k + 32] != hashes[n + k]), wide)
                where = f"entry {(n + bad) << 8 * level}"
                check(bad == wide and len(data) == 32 * wide, f"{where}: what is there does not fit {file}")
        hashes, level = [root_of(hashes[n : n + 256]) for n in range(0, len(hashes) - 255, 256)], level + 1
    check(good[0], "the entries do not add up to the signed root")
    check(good[1], f"the first {old[1]} entries are not those that you knew")
    strange = next((file for file in (directory / "tile").rglob("*") if file not in seen and not file.is_dir()), None)
    check(strange is None, f"{strange} is not under the checkpoint")
    return f"log {origin} of {size} entries"

def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (what := parser.add_mutually_exclusive_group(required=True)).add_argument("bundle", nargs="?", type=Path)
    what.add_argument("--log", type=Path)
    parser.add_argument("--key", required=True)
    parser.add_argument("--since", type=Path)
    given = parser.parse_args()
    try:
        lines = Path(given.key).read_text() if len(given.key) < 200 and Path(given.key).is_file() else given.key
        keys = [parse_key(line) for line in lines.split("\n") if line.strip()]
        old = open_checkpoint(read(given.since).decode(), keys, "your checkpoint") if given.since else None
        done = "OK: " + (verify_log(given.log, keys, old) if given.log else verify_bundle(given.bundle, keys, old))
    except Exception as error:  # whatever it is, nothing is verified
        done = f"NOT VERIFIED: {error if type(error) is ValueError else repr(error)}"[:2_000]
    print(done)
    return int(not done.startswith("OK: "))

if __name__ == "__main__":
    sys.exit(main())
