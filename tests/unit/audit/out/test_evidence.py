"""The evidence bundle: same bytes each time, checked by its own verifier, read by tools of others, and harmless."""

import asyncio
import io
import json
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from markdown_it import MarkdownIt
from tests.support.audit_rows import (
    NOON,
    SIGNER,
    Listed,
    files,
    head_of,
    model_registered,
    proofs_of,
    registration,
    row,
)
from tests.support.tlog_copy import note_of, root_of, vkeys
from tests.unit.policy.records import good, keys

from audit.merkle import consistency_proof
from audit.note import Checkpoint
from audit.out.dsse import BUNDLE, IN_TOTO, seal, unseal
from audit.out.evidence.bundle import VERIFIER, write_bundle
from audit.out.evidence.dossier import Dossier, dossier_of
from audit.out.evidence.gather import Bundles
from audit.out.export import zip_entry
from audit.out.query import Query
from audit.out.rows import Row, Stored, row_of
from audit.tlog.archive import Damage
from contracts.approval import Evidence, EvidenceAttached, RequestDecided
from contracts.lifecycle import TransitionKind
from contracts.model import Dataset, Lineage, external_artifact
from contracts.payload import Message
from contracts.registry import StageChanged, VersionNoted
from kit.problems import Problem

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&![x](https://evil.example)|`$(id)`"
NAME = "<b>=cmd|' ![a](b) ..\\..\u00e9"
VKEY = vkeys()[0]


def change(record: dict[str, Any], **more: Any) -> StageChanged:
    said = record["decision"]
    fields = ("transition_id", "kind", "workspace", "model", "version", "digest", "artifact_digest")
    given = {name: said[name] for name in (*fields, "from_stage", "to_stage", "requested_by", "decision_id")}
    given["kind"] = TransitionKind(given["kind"])
    return StageChanged(**{**given, "reason": "it is better", "decision": record["jws"], **more})


def log_of(*messages: Message) -> list[Row]:
    return [row(message, n) for n, message in enumerate(messages)]


@pytest.fixture
def record() -> dict[str, Any]:
    return good()


@pytest.fixture
def log(record: dict[str, Any]) -> list[Row]:
    """A version, its registration, a decision that is good, and the change that it allowed."""
    decided = RequestDecided.model_validate_json(json.dumps(record))
    note = VersionNoted(workspace="default", model="fraud", version=2, text="seen")
    return log_of(model_registered(description="finds fraud"), registration(), note, decided, change(record))


NOTES: dict[Any, tuple[Checkpoint, str]] = {}


async def made(log: list[Row], of: Dossier | None = None, **more: Any) -> bytes:
    head, note = NOTES.setdefault(log[-1].stored.leaf_hash, head_of(log))
    target = io.BytesIO()
    of = of or dossier_of("default", "fraud", 2, log, keys())
    given: dict[str, Any] = {"head": head, "note": note, "proofs": proofs_of(log), "vkeys": vkeys(), "jwks": keys()}
    await write_bundle(target, of, signer=SIGNER, **{**given, **more})
    return target.getvalue()


def parts(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in content.items():
            archive.writestr(zip_entry(name), data)
    return target.getvalue()


def verify(data: bytes, directory: Path, *more: str, key: str = "\n".join(vkeys())) -> tuple[int, str]:
    """With the verifier out of the bundle, alone in a directory. An endless run is a failure."""
    shutil.copy(VERIFIER, directory / "verify_bundle.py")
    (directory / "bundle.zip").write_bytes(data)
    (directory / "keys").write_text(key)
    command = [sys.executable, "-I", "verify_bundle.py", "bundle.zip", "--key", "keys", *more]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


async def test_a_bundle_is_verified_by_the_verifier_that_it_brings(log: list[Row], tmp_path: Path) -> None:
    data = await made(log)
    assert parts(data)["verify_bundle.py"] == VERIFIER.read_bytes()
    code, said = verify(data, tmp_path)
    assert (code, said) == (
        0,
        f"OK: 5 entries of default/fraud/2, {len(parts(data)) - 1} files, log hallmark.example/log/test of 5 entries\n",
    )


async def test_a_bundle_has_the_same_bytes_each_time(log: list[Row]) -> None:
    data = await made(log)
    assert await made(log) == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


async def test_a_token_of_the_time_goes_with_it(log: list[Row], tmp_path: Path) -> None:
    data = await made(log, timestamp=b"token")
    assert parts(data)["timestamp.tsr"] == b"token"
    assert verify(data, tmp_path)[0] == 0


# -- tampering ---------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, bytes]], object]


def flipped(name: str, at: int = -10) -> Change:
    def edit(content: dict[str, bytes]) -> None:
        data = content[name]
        at_ = at % len(data)
        content[name] = data[:at_] + bytes([data[at_] ^ 1]) + data[at_ + 1 :]

    return edit


CHANGES: dict[str, Change] = {
    **{
        f"a byte of {name}": flipped(name)
        for name in (
            "checkpoint", "events.ndjson", "proofs/000000000001.tlog-proof", "decisions/000000000003.jws", "index.html",
            "manifest.json", "model-card.md", "bom.cdx.json", "statement.dsse.json", "VERIFY.md", "verify_bundle.py",
            "keys.txt", "artifact/SHA256SUMS",
        )
    },
    "a file less": lambda content: content.pop("model-card.md"),
    "a file more": lambda content: content.update({"more": b""}),
    "no manifest": lambda content: content.pop("manifest.json"),
    "no checkpoint": lambda content: content.pop("checkpoint"),
    "another zip path": lambda content: content.update({"../evil": b""}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
async def test_every_change_of_a_file_is_found(what: str, log: list[Row], tmp_path: Path) -> None:
    content = parts(await made(log))
    CHANGES[what](content)
    code, said = verify(zipped(content), tmp_path)
    assert code == 1
    assert said.startswith("NOT VERIFIED: ")


def events(content: dict[str, bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content["events.ndjson"].splitlines()]


def _edit_events(edit: Callable[[list[dict[str, Any]]], object]) -> Change:
    def change_(content: dict[str, bytes]) -> None:
        found = events(content)
        edit(found)
        content["events.ndjson"] = b"".join(json.dumps(event).encode() + b"\n" for event in found)

    return change_


def _swap(found: list[dict[str, Any]]) -> None:
    for name in ("leaf", "leaf_hash"):
        found[1][name], found[2][name] = found[2][name], found[1][name]


def _proof(edit: Callable[[str], str]) -> Change:
    name = "proofs/000000000002.tlog-proof"
    return lambda content: content.update({name: edit(content[name].decode()).encode()})


def _no_proof(content: dict[str, bytes]) -> None:
    del content["proofs/000000000002.tlog-proof"]


def _renumbered(content: dict[str, bytes]) -> None:
    name = "proofs/000000000002.tlog-proof"
    content["proofs/000000000009.tlog-proof"] = content.pop(name)


def _note(size: int, root: bytes) -> Change:
    def edit(content: dict[str, bytes]) -> None:
        content["checkpoint"] = note_of(size, root).encode()

    return edit


OTHERS: dict[str, tuple[Change, str]] = {
    "a leaf": (_edit_events(lambda e: e[2].update(leaf="AAAA")), "entry 2: its bytes do not fit its hash"),
    "a leaf and its hash": (
        _edit_events(
            lambda e: e[2].update(leaf="", leaf_hash="6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")
        ),
        "entry 2: its proof does not lead",
    ),
    "swapped entries": (_edit_events(_swap), "entry 1: its proof does not lead"),
    "another order": (_edit_events(lambda e: e.reverse()), "entry 3 is out of order"),
    "an entry twice": (_edit_events(lambda e: e.append(e[-1])), "out of order"),
    "an entry less": (_edit_events(lambda e: e.pop()), "not as many"),
    "an entry out of range": (_edit_events(lambda e: e[-1].update(index=99)), "entry 99 is out of order"),
    "an index of another type": (_edit_events(lambda e: e[0].update(index=False)), "out of order"),
    "a body of another": (_edit_events(lambda e: e[0].update(body="AAAA")), "entry 0: its body is another"),
    "no proof": (_no_proof, "000000000002"),
    "a proof of another": (_renumbered, "000000000002"),
    "a hash less": (_proof(lambda text: text.replace(text.split("\n")[2] + "\n", "")), "entry 2"),
    "a hash more": (_proof(lambda text: text.replace("\n\n", f"\n{text.split(chr(10))[2]}\n\n", 1)), "entry 2"),
    "another index in it": (_proof(lambda text: text.replace("index 2", "index 3")), "entry 2: malformed"),
    "another checkpoint in it": (_proof(lambda text: text + "\n"), "entry 2: malformed"),
    "another root": (_note(5, bytes(32)), "another checkpoint"),
    "another size": (_note(6, bytes(32)), "another checkpoint"),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_what_does_not_prove_is_refused_though_its_manifest_is_signed(
    what: str, log: list[Row], tmp_path: Path
) -> None:
    """Whoever holds the key may sign any manifest: the entries must be under the checkpoint all the same."""
    content = parts(await made(log))
    edit, told = OTHERS[what]
    edit(content)
    manifest = unseal(content.pop("manifest.json"), BUNDLE, VKEY)
    manifest["files"] = {n: {"size": len(d), "sha256": sha256(d).hexdigest()} for n, d in content.items()}
    content["manifest.json"] = await seal(BUNDLE, manifest, SIGNER)
    code, said = verify(zipped(content), tmp_path)
    assert code == 1
    assert told in said


@pytest.mark.parametrize("first", [1, 2, 3, 4])
async def test_a_log_that_extends_the_checkpoint_that_was_kept_is_proved_to(
    first: int, log: list[Row], tmp_path: Path
) -> None:
    hashes = [one.stored.leaf_hash for one in log]
    proof = consistency_proof(hashes, first)
    data = await made(log, grown=(first, proof))

    def since(size: int, root: bytes, of: bytes = data) -> tuple[int, str]:
        (tmp_path / "old").write_text(note_of(size, root), encoding="utf-8")
        return verify(of, tmp_path, "--since", "old")

    assert since(first, root_of(hashes[:first]))[0] == 0
    code, said = since(first, root_of([*hashes[: first - 1], bytes(32)]))
    assert (code, f"the first {first} entries are not those that you knew" in said) == (1, True), said
    assert f"ask for a bundle with `since={first}`" in since(first, root_of(hashes[:first]), await made(log))[1]
    for wrong in (proof[:-1], [*proof, bytes(32)], proof[::-1] if len(proof) > 1 else []):
        assert since(first, root_of(hashes[:first]), await made(log, grown=(first, wrong)))[0] == 1


async def test_the_checkpoint_that_was_kept_may_be_this_one_but_no_newer_one(log: list[Row], tmp_path: Path) -> None:
    data = await made(log)
    note = parts(data)["checkpoint"].decode()
    for old, code in ((note, 0), (note_of(5, bytes(32)), 1), (note_of(6, bytes(32)), 1)):
        (tmp_path / "old").write_text(old, encoding="utf-8")
        assert verify(data, tmp_path, "--since", "old")[0] == code


@pytest.mark.parametrize("key", ["", "no key", vkeys()[1], VKEY.replace("test", "other")])
async def test_no_key_no_verdict(key: str, log: list[Row], tmp_path: Path) -> None:
    assert verify(await made(log), tmp_path, key=key)[0] == 1


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle_is_refused(data: bytes, tmp_path: Path) -> None:
    assert verify(data, tmp_path)[0] == 1


# -- what is in it -----------------------------------------------------------------------------------------------------


async def test_the_decision_is_judged_again(log: list[Row], record: dict[str, Any]) -> None:
    content = parts(await made(log))
    assert json.loads(content["decisions/000000000003.json"]) == record
    assert content["decisions/000000000003.jws"].decode() == record["jws"]
    said = json.loads(content["decisions/000000000003.verification.json"])
    assert said["verified"] is True
    assert {"signature", "verdict", "gates"} <= {check["name"] for check in said["checks"]}
    assert sum(name.startswith("decisions/") for name in content) == 3


async def test_a_bent_decision_is_said_not_to_verify(record: dict[str, Any]) -> None:
    record["decision"]["reason"] = "another"
    decided = RequestDecided.model_validate_json(json.dumps(record))
    content = parts(await made(log_of(registration(), decided)))
    assert json.loads(content["decisions/000000000001.verification.json"])["verified"] is False
    assert b"NOT VERIFIED" in content["index.html"]


async def test_a_decision_that_only_the_change_carries_is_there_too(record: dict[str, Any]) -> None:
    content = parts(await made(log_of(registration(), change(record))))
    assert content["decisions/000000000001.jws"].decode() == record["jws"]
    assert json.loads(content["decisions/000000000001.json"])["decision"] == record["decision"]


async def test_the_page_shows_who_when_and_what_it_meant(log: list[Row], record: dict[str, Any]) -> None:
    page = parts(await made(log))["index.html"].decode()
    (vote,) = record["decision"]["votes"]
    for shown in (vote["voter"], vote["meaning"], vote["auth_method"], "Printed name", "21 CFR 11.50"):
        assert f"{shown}" in page
    assert vote["at"][:10] in page


async def test_the_bill_of_materials_is_valid(log: list[Row]) -> None:
    text = parts(await made(log))["bom.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    model = json.loads(text)["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "fraud", "2")
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [{"type": "accuracy", "value": "0.95"}]


async def test_the_statement_is_read_by_in_toto(log: list[Row]) -> None:
    document = unseal(parts(await made(log))["statement.dsse.json"], IN_TOTO, VKEY)
    parsed = json_format.ParseDict(document, StatementMessage())
    Statement.copy_from_pb(parsed).validate()
    assert [subject.name for subject in parsed.subject] == ["model.onnx"]


async def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    content = parts(await made(log_of(registration(artifact=files("b/c d.bin", "a.bin")))))
    lines = content["artifact/SHA256SUMS"].decode().splitlines()
    assert lines == [f"{'1' * 64}  a.bin", f"{'1' * 64}  b/c d.bin"]


# -- limits ----------------------------------------------------------------------------------------------------------


def bundles(source: Any = None, **more: Any) -> Bundles:
    return Bundles(source, *[None] * 4, **more)  # type: ignore[arg-type]


async def test_so_many_bundles_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.out.evidence.gather.TURN_SECONDS", 0.01)
    with pytest.raises(Problem, match="try again") as refused:
        await bundles(turns=asyncio.Semaphore(0)).of("default", "fraud", 2)
    assert refused.value.status == 503


async def test_a_turn_is_given_back_when_a_bundle_fails() -> None:
    turns = asyncio.Semaphore(1)
    for _ in range(2):
        with pytest.raises(AttributeError):
            await bundles(turns=turns).of("default", "fraud", 2)


async def test_what_is_lost_is_no_evidence(log: list[Row]) -> None:
    log[2] = row_of(Stored(2, b"", log[2].stored.leaf_hash), "leaf-lost: it is not in the object store")
    with pytest.raises(Damage, match="entry 2 cannot be shown: leaf-lost"):
        await bundles(Listed(log))._rows(Query(0, len(log)))


async def test_proofs_are_not_all_in_memory(log: list[Row], tmp_path: Path) -> None:
    """Each carries the checkpoint with its signatures: many of them are some 100 MB."""
    count = 800
    rows = [replace(log[2], stored=replace(log[2].stored, index=n)) for n in range(count)]
    head, note = head_of(log)
    of = dossier_of("default", "fraud", 2, rows, {})
    given: dict[str, Any] = {
        "head": head,
        "note": note,
        "proofs": dict.fromkeys(range(count), [bytes(32)] * 20),
        "vkeys": vkeys(),
    }
    with (tmp_path / "bundle.zip").open("wb") as target:
        tracemalloc.start()
        try:
            await write_bundle(target, of, jwks={}, signer=SIGNER, **given)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        proofs = sum(info.file_size for info in archive.infolist() if info.filename.startswith("proofs/"))
    assert peak < proofs * 0.8, (peak, proofs)


# -- strangers ---------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def evil_log() -> list[Row]:
    evidence = Evidence(
        evidence_id="e1", type="model-card", title=EVIL, url="https://ci.example/1", detail=EVIL, posted_by=EVIL,
        service=True, at=NOON,
    )  # fmt: skip
    attached = EvidenceAttached(
        workspace="default", model=NAME, version=2, digest=f"sha256:{'1' * 64}", evidence=evidence
    )
    content = {
        "owner": EVIL,
        "notes": EVIL + "\n# heading\n\n<hr>",
        "tags": {EVIL: EVIL + "\n=1"},
        "parameters": {EVIL: EVIL},
        "lineage": Lineage(command=EVIL, datasets=(Dataset(name=EVIL, uri="javascript:alert(1)"),)),
    }
    registered = registration(NAME, artifact=files("..x/<b>.bin", "=cmd"), **content)
    described = model_registered(NAME, description=EVIL, owner=EVIL, tags={EVIL: EVIL})
    return log_of(described, registered, attached, VersionNoted(workspace="default", model=NAME, version=2, text=EVIL))


async def evil() -> dict[str, bytes]:
    log = evil_log()
    return parts(await made(log, dossier_of("default", NAME, 2, log, {"keys": []})))


async def test_the_page_is_harmless() -> None:
    text = (await evil())["index.html"].decode()
    tags = Tags()
    tags.feed(text)
    assert tags.tags <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "table", "thead", "tr", "th", "td",
        "bdi", "code",
    }  # fmt: skip
    assert tags.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert "default-src 'none'" in text


async def test_the_model_card_is_harmless() -> None:
    text = (await evil())["model-card.md"].decode()
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    tags = Tags()
    tags.feed(html)
    assert tags.tags <= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert sum(line.startswith("# ") for line in text.splitlines()) == 1
    assert EVIL.split("|", maxsplit=1)[0] in _said(html)


def _said(html: str) -> str:
    text: list[str] = []
    parser = HTMLParser()
    parser.handle_data = text.append  # type: ignore[assignment]
    parser.feed(html)
    return "".join(text)


async def test_no_file_is_named_by_a_stranger() -> None:
    for name in await evil():
        assert not name.startswith(("/", "."))
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")
        assert ".." not in name


async def test_a_stranger_s_names_leave_the_documents_valid(tmp_path: Path) -> None:
    content = await evil()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content["bom.cdx.json"].decode()) is None
    assert len(content["artifact/SHA256SUMS"].splitlines()) == 2
    assert b64decode(events(content)[0]["leaf"]) == evil_log()[0].stored.leaf
    assert verify(zipped(content), tmp_path)[0] == 0


async def test_a_version_that_nobody_registered_has_a_bundle_all_the_same(tmp_path: Path) -> None:
    data = await made(log_of(VersionNoted(workspace="default", model="fraud", version=2, text="?")))
    assert "bom.cdx.json" not in parts(data)
    assert verify(data, tmp_path)[0] == 0


async def test_an_address_is_not_taken_for_bytes(tmp_path: Path) -> None:
    """The registry has not seen them: no document says a SHA-256 of the model, and all are valid."""
    data = await made(log_of(registration(artifact=external_artifact("runs:/1/model"))))
    content = parts(data)
    assert content["artifact/SHA256SUMS"] == b""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content["bom.cdx.json"].decode()) is None
    assert "hashes" not in json.loads(content["bom.cdx.json"])["metadata"]["component"]
    document = unseal(content["statement.dsse.json"], IN_TOTO, VKEY)
    parsed = json_format.ParseDict(document, StatementMessage())
    Statement.copy_from_pb(parsed).validate()
    assert [(one.name, list(one.digest)) for one in parsed.subject] == [("runs:/1/model", ["hallmark.address"])]
    assert verify(data, tmp_path)[0] == 0
