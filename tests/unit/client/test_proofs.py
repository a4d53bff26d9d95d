"""`hallmark audit verify` on evidence bundles and on copies in tiles, offline."""

import io
import json
import os
import zipfile
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.tlog_copy import ED25519, leaf_hash, note_of, root_of, tile_path, vkeys, write_copy

from audit.out.evidence.bundle import VERIFIER
from hallmark import proofs, verify_bundle
from hallmark.proofs import verify_any
from hallmark.verify import VerificationError

LEAVES = [b"entry %d" % n for n in range(300)]
KEYS = "\n".join(vkeys())
ROOT = root_of([leaf_hash(leaf) for leaf in LEAVES])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    write_copy(tmp_path / "log", LEAVES)
    return tmp_path / "log"


def bundle(leaf: bytes = b"only", note: str = "") -> bytes:
    """A bundle of a log of one entry, made by hand."""
    hashed = leaf_hash(b"only")
    note = note or note_of(1, hashed)
    event = {"index": 0, "leaf": b64encode(leaf).decode(), "leaf_hash": leaf_hash(leaf).hex()}
    files = {
        "checkpoint": note.encode(),
        "events.ndjson": json.dumps(event).encode() + b"\n",
        "proofs/000000000000.tlog-proof": f"c2sp.org/tlog-proof@v1\nindex 0\n\n{note}".encode(),
    }
    head = {"origin": note.split("\n")[0], "size": 1, "root": hashed.hex()}
    told = {name: {"size": len(data), "sha256": sha256(data).hexdigest()} for name, data in files.items()}
    payload = json.dumps({"subject": "default/fraud/1", "checkpoint": head, "entries": 1, "files": told}).encode()
    kind = b"application/vnd.hallmark.bundle+json"
    signature = ED25519.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    envelope = {"payload": b64encode(payload).decode(), "signatures": [{"sig": b64encode(signature).decode()}]}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in {**files, "manifest.json": json.dumps(envelope).encode()}.items():
            archive.writestr(name, data)
    return target.getvalue()


def lines(directory: Path, note: str | None = None) -> Path:
    head = {"checkpoint": note or note_of(300, ROOT), "origin": vkeys()[0].split("+")[0], "size": 300}
    head["root"] = b64encode(ROOT).decode()
    documents = [head]
    for n, leaf in enumerate(LEAVES):
        documents.append({"index": n, "leaf": b64encode(leaf).decode(), "leaf_hash": leaf_hash(leaf).hex()})
    text = "".join(json.dumps(one, sort_keys=True, separators=(",", ":")) + "\n" for one in documents)
    (directory / "log.ndjson").write_text(text)
    return directory / "log.ndjson"


def test_the_verifier_is_the_one_that_bundles_bring() -> None:
    """The client imports no service, and a bundle brings one file: it is one text in two places."""
    assert Path(verify_bundle.__file__).read_bytes() == VERIFIER.read_bytes()


def test_a_copy_in_tiles_is_verified_and_a_bent_one_is_not(copy: Path) -> None:
    proved = verify_any(copy, KEYS, old_checkpoint=note_of(7, root_of([leaf_hash(leaf) for leaf in LEAVES[:7]])))
    assert (proved.size, proved.root, proved.unchecked) == (300, ROOT.hex(), [])
    with pytest.raises(VerificationError, match="the first 7 entries"):
        verify_any(copy, KEYS, old_checkpoint=note_of(7, bytes(32)))
    path = tile_path(copy, "entries", 1, 44)
    path.write_bytes(path.read_bytes().replace(b"entry 270", b"entry 279"))
    with pytest.raises(VerificationError) as caught:
        verify_any(copy, KEYS)
    assert caught.value.index == 270


def test_a_bundle_is_verified_and_a_bent_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(bundle())
    proved = verify_any(path, KEYS)
    assert proved.what.startswith("1 entries of default/fraud/1, 3 files, log ")
    path.write_bytes(bundle(b"another"))
    with pytest.raises(VerificationError, match="its proof does not lead to the signed root") as caught:
        verify_any(path, KEYS)
    assert caught.value.index == 0


def test_a_zip_of_another_kind_is_none(tmp_path: Path) -> None:
    for name in ("manifest.json", "another"):
        with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
            archive.writestr(name, "{}")
        with pytest.raises(VerificationError, match="neither an evidence bundle nor an export"):
            verify_any(tmp_path / "export.zip", KEYS)


def test_the_second_signature_of_an_export_is_checked_too(tmp_path: Path) -> None:
    assert verify_any(lines(tmp_path), KEYS).size == 300
    good = note_of(300, ROOT)
    other = note_of(299, ROOT)  # its ML-DSA line is of another tree
    mixed = "\n".join([*good.split("\n")[:-2], other.split("\n")[-2], ""])
    assert verify_any(lines(tmp_path, mixed), vkeys()[0]).size == 300
    with pytest.raises(VerificationError, match="is wrong"):
        verify_any(lines(tmp_path, mixed), KEYS)


def test_without_ml_dsa_in_the_library_the_other_key_is_checked_and_it_is_said(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "_knows_ml_dsa", lambda: False)
    assert verify_any(copy, KEYS).unchecked == [vkeys()[1].split("+")[0]]
    with pytest.raises(VerificationError, match="Ed25519 verifier key is needed"):
        verify_any(copy, vkeys()[1])


@pytest.mark.parametrize("keys", ["", "not-a-key", vkeys()[0][:-4] + "AAAA", vkeys()[1]])
def test_no_good_key_no_verdict(copy: Path, keys: str) -> None:
    with pytest.raises(VerificationError):
        verify_any(copy, keys)


def test_what_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, line = tmp_path / "pipe", tmp_path / "line"
    os.mkfifo(pipe)
    for endless in (pipe, Path("/dev/zero")):
        with pytest.raises(VerificationError, match="neither a file nor a directory"):
            verify_any(endless, KEYS)
    monkeypatch.setattr("hallmark.verify.MAX_LINE", 1_000)
    line.write_bytes(b"{" * 1_001)
    with pytest.raises(VerificationError, match="more than 1000 bytes"):
        verify_any(line, KEYS)
