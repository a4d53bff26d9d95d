"""The bundle itself: names and bytes in a zip that is the same whenever it is made of the same log."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from audit import out
from audit.note import Checkpoint
from audit.out.dsse import BUNDLE, IN_TOTO, BytesSigner, seal
from audit.out.evidence.card import model_card
from audit.out.evidence.documents import checksums, ml_bom, statement, tlog_proof
from audit.out.evidence.dossier import Decided, Dossier
from audit.out.evidence.page import page
from audit.out.export import zip_entry
from audit.out.formats import ndjson_line

KIND = "hallmark-evidence/1"
VERIFIER = Path(out.__file__).with_name("verify_bundle.py")
GUIDE = Path(__file__).with_name("VERIFY.md")


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
) -> None:
    """Writes the zip. `proofs`: the audit path of each row of `of` under `head`; `timestamp`: an RFC 3161 token of it.

    Raises:
        KeyError: a proof is missing.
    """
    checkpoint = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    files: dict[str, bytes] = {
        "VERIFY.md": GUIDE.read_bytes(),
        "verify_bundle.py": VERIFIER.read_bytes(),
        "checkpoint": note.encode(),
        "keys.txt": "".join(f"{vkey}\n" for vkey in vkeys).encode(),
        "keys/decisions.jwks.json": _json(jwks),
        "events.ndjson": b"".join(map(ndjson_line, of.rows)),
        "index.html": _text(page(of, checkpoint)),
        "model-card.md": _text(model_card(of)),
    }
    for row in of.rows:
        index = row.stored.index
        files[f"proofs/{index:012d}.tlog-proof"] = tlog_proof(index, proofs[index], note).encode()
    for decided in of.decisions:
        files |= _decision(decided)
    if of.registered is not None:
        files["artifact/SHA256SUMS"] = _text(checksums(of.registered.content.artifact))
        files["statement.dsse.json"] = await seal(IN_TOTO, statement(of) or {}, signer)
        files["bom.cdx.json"] = ml_bom(of) or b""
    if timestamp is not None:
        files["timestamp.tsr"] = timestamp
    manifest = {
        "bundle": KIND,
        "subject": of.name,
        "checkpoint": checkpoint,
        "entries": len(of.rows),
        "files": {name: {"size": len(data), "sha256": sha256(data).hexdigest()} for name, data in files.items()},
    }
    files["manifest.json"] = await seal(BUNDLE, manifest, signer)
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            archive.writestr(zip_entry(name), files[name])


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
