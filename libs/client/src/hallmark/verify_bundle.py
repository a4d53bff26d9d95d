"""Checks an evidence bundle, or a copy of the whole log. Needs Python 3.11 and `cryptography` (50 for ML-DSA), no more.

    python verify_bundle.py BUNDLE.zip --key KEYS [--since OLD]         files, checkpoint, every leaf, every proof
    python verify_bundle.py --log DIRECTORY --key KEYS [--since OLD]    every entry and tile of a C2SP tlog-tiles copy

KEYS: a verifier key line or a file of them, from somewhere that is not the bundle; each must have signed. OLD: a
checkpoint that you kept, which the log must extend. Prints OK and exits with 0 when everything holds, else with 1."""

# fmt: off
import argparse, base64, hashlib, json, re, sys, zipfile  # noqa: E401, I001
from importlib import import_module
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Key = tuple[str, bytes, bytes]  # name, key id, kind byte and public key
Head = tuple[str, int, bytes]  # origin, size, root
MAX_FILE, MLDSA = 1 << 28, "cryptography.hazmat.primitives.asymmetric.mldsa"

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
    kind: Any = Ed25519PublicKey if key[2][0] == 1 else import_module(MLDSA).MLDSA44PublicKey
    try:
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
            ours, message = (signature, f"{text}\n".encode()) if key[2][0] == 1 else (signature[8:], cosigned)
            check(verified(key, ours, message), f"{what}: the signature of {key[0]}, key {key[1].hex()}, is wrong")
    return origin, size, root

def verify_bundle(path: Path, keys: list[Key], since: Head | None) -> str:
    with zipfile.ZipFile(path) as bundle:
        names = sorted(bundle.namelist())
        envelope = json.loads(bundle.open("manifest.json").read(MAX_FILE))
        payload, kind = unbase64(envelope["payload"]), b"application/vnd.hallmark.bundle+json"
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        ours, sigs = [k for k in keys if k[2][0] == 1], [unbase64(one["sig"]) for one in envelope["signatures"]]
        check(ours and all(any(verified(k, one, signed) for one in sigs) for k in ours), "manifest.json is not signed")
        files = (manifest := json.loads(payload))["files"]
        check(sorted([*files, "manifest.json"]) == names, "the files are not those of the manifest")
        content = {name: bundle.open(name).read(told["size"] + 1) for name, told in files.items()}
    for name, data in content.items():
        check((sha(data).hex(), len(data)) == (files[name]["sha256"], files[name]["size"]), f"{name} was changed")
    note, proofs, last = content["checkpoint"].decode(), {name for name in files if name.startswith("proofs/")}, -1
    origin, size, root = head = open_checkpoint(note, keys)
    check(manifest["checkpoint"] == {"origin": origin, "size": size, "root": root.hex()}, "another checkpoint is named")
    verify_grown(content.get("consistency", b"").decode(), since or (origin, 0, b""), head, note)
    for line in (events := content["events.ndjson"].splitlines()):
        event = json.loads(line)
        index, leaf = event["index"], unbase64(event["leaf"])
        check(type(index) is int and last < index < size, f"entry {index} is out of order")
        check(sha(b"\0", leaf).hex() == event["leaf_hash"], f"entry {index}: its bytes do not fit its hash")
        if "body" in event:
            check(sha(unbase64(event["body"])).hex().encode() in leaf, f"entry {index}: its body is another")
        proofs.remove(proof := f"proofs/{index:012d}.tlog-proof")
        begin, last, node = ["c2sp.org/tlog-proof@v1", f"index {index}"], index, sha(b"\0", leaf)
        hashes = path_of(content[proof].decode(), begin, note, f"entry {index}: malformed proof")
        good = climb(hashes, index, size - 1, node, node)[1] == root
        check(good, f"entry {index}: its proof does not lead to the signed root")
    check(manifest["entries"] == len(events) and not proofs, "the events are not as many as the manifest says")
    return f"{len(events)} entries of {manifest['subject']}, {len(files)} files, log {origin} of {size} entries"

def path_of(text: str, begin: list[str], note: str, problem: str) -> list[str]:
    """The hashes of a C2SP tlog-proof, or of a consistency proof as C2SP tlog-witness has it."""
    head, _, own = text.partition("\n\n")
    check(head.split("\n")[: len(begin)] == begin and own == note, problem)
    return head.split("\n")[len(begin) :]

def verify_grown(text: str, old: Head, new: Head, note: str) -> None:
    """That the log begins with the one of an old checkpoint."""
    first, last = old[1] - 1, new[1] - 1
    check(first <= last and old[0] == new[0], "the checkpoint is older than yours, or of another log")
    if first in (-1, last):
        return check(first < 0 or old == new, "the checkpoint is not the one of this size that you kept")
    told = f"there is no proof from your {old[1]} entries: ask for a bundle with `since={old[1]}`"
    path = [base64.b64encode(old[2]).decode()] * (not old[1] & first) + path_of(text, [f"old {old[1]}"], note, told)
    ones, start = (~first & old[1]).bit_length() - 1, unbase64(path[0])
    good = climb(path[1:], first >> ones, last >> ones, start, start) == (old[2], new[2])
    return check(good, f"the first {old[1]} entries are not those that you knew")

def climb(path: list[str], at: int, last: int, old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """What a proof makes of a node in both trees: RFC 9162, sections 2.1.3.2 and 2.1.4.2."""
    for sibling in map(unbase64, path):
        if at & 1 or at == last:
            old, new = sha(b"\1", sibling, old), sha(b"\1", sibling, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = sha(b"\1", new, sibling)
        at, last = at >> 1, last >> 1
    return (old, new) if last == 0 else (b"", b"")

def root_of(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        pairs = range(0, len(hashes) - 1, 2)
        hashes = [sha(b"\1", *hashes[n : n + 2]) for n in pairs] + hashes[2 * len(pairs) :]
    return hashes[0] if hashes else sha(b"")

def tiles(directory: Path, level: str, number: int, width: int, seen: set[Path]) -> list[tuple[str, int, bytes]]:
    """What lies there of a tile: itself, and narrower ones from when it was not full."""
    parts = re.findall("...", f"{number:0{-(-len(str(number)) // 3) * 3}d}")
    path = Path(directory, "tile", level, *(f"x{part}" for part in parts[:-1]), parts[-1])
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
    check(good[1], f"the first {old[1]} entries are not those that you knew")
    check(good[0], f"the entries from {old[1]} on do not add up to the signed root")
    strange = next((file for file in (directory / "tile").rglob("*") if file not in seen and not file.is_dir()), None)
    check(strange is None, f"{strange} is not under the checkpoint")
    return f"log {origin} of {size} entries"

if __name__ == "__main__":
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
    sys.exit(not done.startswith("OK: "))
