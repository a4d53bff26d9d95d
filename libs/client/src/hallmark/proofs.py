"""Verifies offline whatever of the audit log lies in a file or directory: the whole log as lines (`verify.py`), the
evidence of a version, a copy in tiles (both by `verify_bundle.py`, the file that bundles bring), or the answer to a
query (`verify_query.py`)."""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hallmark import verify_bundle
from hallmark.verify import VerificationError, verify_export
from hallmark.verify_bundle import Head, Key
from hallmark.verify_query import verify_query

ML_DSA = 6
MAX_NOTE = 1 << 20


@dataclass(frozen=True)
class Proved:
    """What was proved: the log's checkpoint with its `root` in hex, and `what` in words.

    `unchecked`: the names of keys whose signatures were not checked, because the library here knows no ML-DSA.
    """

    what: str
    origin: str
    size: int
    root: str
    unchecked: list[str]


def verify_any(path: Path, keys: str, *, old_checkpoint: str | None = None) -> Proved:
    """Proves that `path` is of the log that the owner of all these keys signed.

    `keys` has a verifier key line or more, one a line, an Ed25519 one among them. With `old_checkpoint`, one that was
    kept, also that the log extends it.

    Raises:
        VerificationError: with the first bad entry where there is one.
        OSError: something cannot be read.
    """
    try:
        parsed = {line: verify_bundle.parse_key(line) for line in keys.splitlines() if line.strip()}
        known = {line: key for line, key in parsed.items() if key[2][0] != ML_DSA or _knows_ml_dsa()}
        if not any(key[2][0] != ML_DSA for key in known.values()):
            raise VerificationError("an Ed25519 verifier key is needed")
        unchecked = [key[0] for line, key in parsed.items() if line not in known]
        what, head = _verified(path, known, old_checkpoint)
    except (VerificationError, OSError):
        raise
    except Exception as error:  # whatever it is, nothing is verified
        text = str(error) if type(error) is ValueError else repr(error)
        found = re.match(r"entry (\d+)\b", text)
        raise VerificationError(text[:2_000], int(found[1]) if found else None) from error
    return Proved(what, head[0], head[1], head[2].hex(), unchecked)


def _knows_ml_dsa() -> bool:
    return find_spec(verify_bundle.MLDSA) is not None


def _verified(path: Path, keys: dict[str, Key], old_checkpoint: str | None) -> tuple[str, Head]:
    parsed = list(keys.values())
    old = verify_bundle.open_checkpoint(old_checkpoint, parsed, "your checkpoint") if old_checkpoint else None
    if path.is_dir():
        what = verify_bundle.verify_log(path, parsed, old)
        return what, verify_bundle.open_checkpoint((path / "checkpoint").read_text("utf-8"), parsed)
    if path.exists() and not path.is_file():
        raise VerificationError("neither a file nor a directory: save it first")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as bundle:
            if "events.ndjson" not in bundle.namelist():
                return verify_query(bundle, parsed, old)
            what = verify_bundle.verify_bundle(path, parsed, old)
            with bundle.open("checkpoint") as file:
                return what, verify_bundle.open_checkpoint(file.read(MAX_NOTE).decode(), parsed)
    return _lines(path, keys, old_checkpoint)


def _lines(path: Path, keys: dict[str, Key], old_checkpoint: str | None) -> tuple[str, Head]:
    ed25519: Sequence[str] = [line for line, key in keys.items() if key[2][0] != ML_DSA]
    for line in ed25519:
        proved = verify_export(path, line, old_checkpoint=old_checkpoint)
    head = verify_bundle.open_checkpoint(proved.checkpoint, list(keys.values()))
    return f"{proved.size} entries of {proved.origin}", head
