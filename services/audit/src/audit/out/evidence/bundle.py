"""The bundle itself: names and bytes in a zip that is the same whenever it is made of the same log."""

import asyncio
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from audit import out
from audit.note import Checkpoint
from audit.out.dsse import BUNDLE, IN_TOTO, BytesSigner, seal
from audit.out.evidence.card import model_card
from audit.out.evidence.documents import checksums, consistency, ml_bom, statement, tlog_proof
from audit.out.evidence.dossier import Decided, Dossier
from audit.out.evidence.page import page
from audit.out.export import zip_entry
from audit.out.formats import ndjson_line

KIND = "hallmark-evidence/1"
VERIFIER = Path(out.__file__).with_name("verify_bundle.py")
GUIDE = Path(__file__).with_name("VERIFY.md")
# A file as its pieces, made anew whenever they are asked for: all of a bundle's at once would be too much.
Content = Callable[[], Iterable[bytes]]


async def write_bundle(
    target: IO[bytes],
    of: Dossier,
    *,
    head: Checkpoint,
    note: str,
    proofs: Mapping[int, Sequence[bytes]],
    vkeys: Sequence[str],
    jwks: Mapping[str, Any],
    signer: BytesSigner,
    timestamp: bytes | None = None,
    grown: tuple[int, Sequence[bytes]] | None = None,
    policy: str | None = None,
) -> None:
    """Writes the zip. `proofs`: the audit path of each row of `of` under `head`; `timestamp`: an RFC 3161 token of it.
    `grown`: the size of an older tree, and the proof that this one begins with it. `policy`: a C2SP tlog-policy.

    Raises:
        KeyError: a proof is missing.
    """
    checkpoint = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    small: dict[str, bytes] = {
        "VERIFY.md": GUIDE.read_bytes(),
        "verify_bundle.py": VERIFIER.read_bytes(),
        "checkpoint": note.encode(),
        "keys.txt": "".join(f"{vkey}\n" for vkey in vkeys).encode(),
        "keys/decisions.jwks.json": _json(jwks),
    }
    for decided in of.decisions:
        small |= _decision(decided)
    if of.registered is not None:
        small["artifact/SHA256SUMS"] = _text(checksums(of.registered.content.artifact))
        small["statement.dsse.json"] = await seal(IN_TOTO, statement(of) or {}, signer)
        small["bom.cdx.json"] = ml_bom(of) or b""
    if timestamp is not None:
        small["timestamp.tsr"] = timestamp
    if grown is not None:
        small["consistency"] = consistency(*grown, note).encode()
    if policy is not None:
        small["tlog-policy"] = policy.encode()
    files: dict[str, Content] = {
        **{name: partial(_whole, data) for name, data in small.items()},
        "events.ndjson": lambda: map(ndjson_line, of.rows),
        "index.html": lambda: [_text(page(of, checkpoint))],
        "model-card.md": lambda: [_text(model_card(of))],
    }
    for row in of.rows:
        index = row.stored.index
        files[f"proofs/{index:012d}.tlog-proof"] = partial(_proof, index, proofs[index], note)
    manifest = {
        "bundle": KIND,
        "subject": of.name,
        "checkpoint": checkpoint,
        "entries": len(of.rows),
        "copies": of.copies,
        "files": await asyncio.to_thread(_measured, files),
    }
    files["manifest.json"] = partial(_whole, await seal(BUNDLE, manifest, signer))
    await asyncio.to_thread(_write, target, files)


def _whole(data: bytes) -> Iterable[bytes]:
    return [data]


def _proof(index: int, path: Sequence[bytes], note: str) -> Iterable[bytes]:
    return [tlog_proof(index, path, note).encode()]


def _measured(files: Mapping[str, Content]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, content in files.items():
        digest, size = sha256(), 0
        for piece in content():
            digest.update(piece)
            size += len(piece)
        found[name] = {"size": size, "sha256": digest.hexdigest()}
    return found


def _write(target: IO[bytes], files: Mapping[str, Content]) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            with archive.open(zip_entry(name), "w") as file:
                for piece in files[name]():
                    file.write(piece)


def _decision(decided: Decided) -> dict[str, bytes]:
    """Named by their entry: an id of a stranger's making is no name for a file."""
    name, judgement = f"decisions/{decided.index:012d}", decided.judgement
    checks = [{"name": check.name, "result": check.result, "text": check.text} for check in judgement.checks]
    return {
        f"{name}.json": _json(decided.record),
        f"{name}.jws": decided.jws.encode(),
        f"{name}.verification.json": _json({"verified": judgement.ok, "checks": checks}),
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _text(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which no file can hold, is shown as what it is."""
    return text.encode(errors="backslashreplace")
