"""Exports: three files that tell of the same entries, a manifest that refuses any other, cells that compute nothing."""

import argparse
import csv
import io
import json
import zipfile
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.support.audit_rows import SIGNER, Listed, head_of, proofs_of, registration, row, rows
from tests.support.tlog_copy import leaf_hash, note_of, vkeys

from audit.cursor import Cursor, decode
from audit.merkle import consistency_proof
from audit.note import Checkpoint
from audit.out.command import COMMAND, check
from audit.out.dsse import EXPORT, IN_TOTO, ManifestError, pae, seal, unseal
from audit.out.export import Prove, export, zip_entry
from audit.out.formats import SCHEMA
from audit.out.manifest import IndexSet, verify_manifest
from audit.out.query import Query
from audit.out.rows import FIELDS, Row, Stored, guarded, row_of
from audit.tlog.paths import Proven
from contracts.registry import ModelDeleted, VersionNoted
from hallmark.proofs import verify_any
from hallmark.verify import VerificationError
from kit.settings import ProcessSettings

VKEY = vkeys()[0]
NOTES: dict[Any, tuple[Checkpoint, str]] = {}
NASTY = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\u00a0=1", "'=1", '"=1"',
    "good;=1", "good\n=1", "a\r\n\t@x", "\uff1d1", "\u200b=1", "x;  -1", "<script>alert(1)</script>",
    'quote " and , comma',
]  # fmt: skip


def deleted(reason: str) -> ModelDeleted:
    return ModelDeleted(workspace="default", model="fraud", reason=reason)


@pytest.fixture
def log() -> list[Row]:
    return rows(registration(), *map(deleted, NASTY), registration())


async def made(log: list[Row], *formats: str, start: int = 0, end: int | None = None, **more: Any) -> bytes:
    key = log[-1].stored.leaf_hash, len(log)
    head, note = NOTES.setdefault(key, head_of(log))  # a signature of ML-DSA is another each time
    query = Query(start, len(log) if end is None else end)
    wanted = formats or ("ndjson", "csv", "parquet")
    return b"".join([piece async for piece in export(Listed(log), query, head, note, wanted, SIGNER, "aud", **more)])


def prover(log: list[Row]) -> Prove:
    proofs = proofs_of(log)

    async def prove(indexes: Sequence[int]) -> list[Proven]:
        return [Proven(n, log[n].stored.leaf_hash, proofs[n]) for n in indexes]

    return prove


def parts(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: dict[str, bytes]) -> io.BytesIO:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(zip_entry(name), data)
    target.seek(0)
    return target


async def test_all_three_formats_tell_the_same(log: list[Row]) -> None:
    files = parts(await made(log))
    lines = [json.loads(line) for line in files["entries.ndjson"].splitlines()]
    cells = list(csv.DictReader(io.StringIO(files["entries.csv"].decode(), newline="")))
    table = pq.read_table(io.BytesIO(files["entries.parquet"]))
    assert table.schema.equals(SCHEMA)
    columns = table.to_pylist()
    assert len(lines) == len(cells) == len(columns) == len(log)
    for one, line, cell, column in zip(log, lines, cells, columns, strict=True):
        assert b64decode(line["leaf"]) == column["leaf"] == one.stored.leaf
        assert line["leaf_hash"] == cell["leaf_hash"] == column["leaf_hash"].hex() == leaf_hash(column["leaf"]).hex()
        assert line["reason"] == column["reason"] == one.fields["reason"]
        assert column["at"] == one.fields["at"]
        assert (str(line["index"]), line["type"]) == (cell["index"], cell["type"])
        assert set(line) == {*FIELDS, "leaf"}


async def test_an_export_is_the_same_each_time(log: list[Row]) -> None:
    assert await made(log) == await made(log)


async def test_the_manifest_reconciles(log: list[Row]) -> None:
    for wanted in (("ndjson",), ("csv",), ("parquet",), ("csv", "parquet"), ()):
        manifest = verify_manifest(io.BytesIO(await made(log, *wanted)), VKEY)
        assert {part["count"] for part in manifest["files"]} == {manifest["indexes"]["count"]} == {len(log)}
        assert (manifest["indexes"]["first"], manifest["indexes"]["last"]) == (0, len(log) - 1)
        assert manifest["checkpoint"]["size"] == len(log)


async def test_an_export_of_nothing_is_good(log: list[Row]) -> None:
    assert verify_manifest(io.BytesIO(await made(log, end=0)), VKEY)["indexes"]["count"] == 0


def _without_a_line(files: dict[str, bytes]) -> None:
    files["entries.ndjson"] = b"".join(files["entries.ndjson"].splitlines(keepends=True)[:-1])


def _flipped(files: dict[str, bytes]) -> None:
    files["entries.parquet"] = files["entries.parquet"][:100] + b"X" + files["entries.parquet"][101:]


def _cell(files: dict[str, bytes]) -> None:
    files["entries.csv"] = files["entries.csv"].replace(b"trainer", b"Trainer")


def _gone(files: dict[str, bytes]) -> None:
    del files["entries.csv"]


def _more(files: dict[str, bytes]) -> None:
    files["extra"] = b""


def _unsigned(files: dict[str, bytes]) -> None:
    files["manifest.json"] = files["manifest.json"].replace(b'"sig": "', b'"sig": "A')


@pytest.mark.parametrize("change", [_without_a_line, _flipped, _cell, _gone, _more, _unsigned])
async def test_a_changed_file_is_refused(log: list[Row], change: Callable[[dict[str, bytes]], None]) -> None:
    files = parts(await made(log))
    change(files)
    with pytest.raises(ManifestError):
        verify_manifest(zipped(files), VKEY)


def _less(manifest: dict[str, Any]) -> None:
    manifest["files"][0]["count"] -= 1


def _all_less(manifest: dict[str, Any]) -> None:
    for part in manifest["files"]:
        part["count"] -= 1
    manifest["indexes"]["count"] -= 1


def _other_set(manifest: dict[str, Any]) -> None:
    manifest["indexes"]["sha256"] = "0" * 64


def _other_root(manifest: dict[str, Any]) -> None:
    manifest["checkpoint"]["root"] = "0" * 64


def _narrower(manifest: dict[str, Any]) -> None:
    manifest["query"]["end"] -= 1


def _wider(manifest: dict[str, Any]) -> None:
    manifest["query"]["end"] += 1


@pytest.mark.parametrize("change", [_less, _all_less, _other_set, _other_root, _narrower, _wider])
async def test_a_manifest_that_does_not_reconcile_is_refused_though_it_is_signed(
    log: list[Row], change: Callable[[dict[str, Any]], None]
) -> None:
    files = parts(await made(log))
    manifest = unseal(files["manifest.json"], EXPORT, VKEY)
    change(manifest)
    files["manifest.json"] = await seal(EXPORT, manifest, SIGNER)
    with pytest.raises(ManifestError):
        verify_manifest(zipped(files), VKEY)


@pytest.mark.parametrize("narrow", ["actor", "subject", "correlationid"])
async def test_a_narrowed_export_does_not_begin_below_what_was_pruned(log: list[Row], narrow: str) -> None:
    """Entries that fit are missing there, and nothing else shows it."""
    for start, until, more, good in ((4, 4, {narrow: "a"}, True), (4, 9, {}, True), (4, 5, {narrow: "a"}, False)):
        files = parts(await made(log, "ndjson", start=start))
        manifest = unseal(files["manifest.json"], EXPORT, VKEY)
        manifest["query"] |= more
        manifest["pruned_until"] = until
        files["manifest.json"] = await seal(EXPORT, manifest, SIGNER)
        with nullcontext() if good else pytest.raises(ManifestError, match=f"narrowed by {narrow}.* below 5"):
            verify_manifest(zipped(files), VKEY)


async def signed_anew(data: bytes, change: Callable[[dict[str, bytes]], object]) -> io.BytesIO:
    """The export with changed files, whose manifest says what they are now."""
    files = parts(data)
    change(files)
    manifest = unseal(files.pop("manifest.json"), EXPORT, VKEY)
    for part in manifest["files"]:
        content = files[part["name"]]
        part |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    return zipped({**files, "manifest.json": await seal(EXPORT, manifest, SIGNER)})


async def test_copies_are_named_and_counted_apart(log: list[Row]) -> None:
    one, index = log[1], len(log)
    copied = {**one.fields, "index": index, "copy_of": 1}
    log.append(replace(one, stored=replace(one.stored, index=index), fields=copied))
    data = await made(log)
    manifest = verify_manifest(io.BytesIO(data), VKEY)
    assert (manifest["indexes"]["count"], manifest["indexes"]["copies"]) == (len(log), 1)
    lines = [json.loads(line)["copy_of"] for line in parts(data)["entries.ndjson"].splitlines()]
    assert lines == [None] * (len(log) - 1) + [1]

    def hide(files: dict[str, bytes]) -> None:
        files["entries.ndjson"] = files["entries.ndjson"].replace(b'"copy_of":1', b'"copy_of":null')

    uncounted = await signed_anew(await made(log, "ndjson"), hide)
    with pytest.raises(ManifestError, match="not the"):
        verify_manifest(uncounted, VKEY)


# -- under the checkpoint ----------------------------------------------------------------------------------------------


def rehashed(files: dict[str, bytes]) -> None:
    """Another leaf with the hash that fits it."""
    lines = [json.loads(line) for line in files["entries.ndjson"].splitlines()]
    lines[2] |= {"leaf": "AAAA", "leaf_hash": leaf_hash(bytes(3)).hex()}
    files["entries.ndjson"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def told_of(files: dict[str, bytes], name: str) -> dict[str, Any]:
    """What a manifest would have to say of the leaves of a file."""
    found = IndexSet()
    for line in map(json.loads, files[name].splitlines()):
        found.add(line["index"], bytes.fromhex(line["leaf_hash"]))
    return found.document()


async def forged(log: list[Row], end: int | None, *, paths: Prove | None) -> io.BytesIO:
    """Whoever has the key signs what fits in itself; the entries are not those of the log."""
    files = parts(await made(log, "ndjson", end=end, paths=paths))
    rehashed(files)
    manifest = unseal(files.pop("manifest.json"), EXPORT, VKEY)
    manifest["indexes"] = told_of(files, "entries.ndjson")
    for part in manifest["files"]:
        content = files[part["name"]]
        part |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    return zipped({**files, "manifest.json": await seal(EXPORT, manifest, SIGNER)})


async def test_a_whole_log_is_held_against_the_checkpoint(log: list[Row]) -> None:
    assert verify_manifest(io.BytesIO(await made(log)), VKEY, proved=True)
    with pytest.raises(ManifestError, match="do not add up to the signed root"):
        verify_manifest(await forged(log, None, paths=None), VKEY)


async def test_each_entry_of_a_part_can_be_proved(log: list[Row]) -> None:
    data = await made(log, end=5, paths=prover(log))
    manifest = verify_manifest(io.BytesIO(data), VKEY, proved=True)
    assert [part["count"] for part in manifest["files"]] == [5] * 4
    with pytest.raises(ManifestError, match="not the 5 told of"):
        verify_manifest(await forged(log, 5, paths=prover(log)), VKEY)
    with pytest.raises(ManifestError, match="there are no proofs"):
        verify_manifest(io.BytesIO(await made(log, end=5)), VKEY, proved=True)


def _bent(files: dict[str, bytes]) -> None:
    lines = [json.loads(line) for line in files["proofs.ndjson"].splitlines()]
    lines[2]["proof"][0] = lines[3]["proof"][1]
    files["proofs.ndjson"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _one_less(files: dict[str, bytes]) -> None:
    files["proofs.ndjson"] = b"".join(files["proofs.ndjson"].splitlines(keepends=True)[:-1])


@pytest.mark.parametrize(("change", "told"), [(_bent, "does not lead"), (_one_less, "not the 5 told of")])
async def test_a_proof_that_proves_nothing_is_refused(
    log: list[Row], change: Callable[[dict[str, bytes]], None], told: str
) -> None:
    data = await made(log, end=5, paths=prover(log))
    with pytest.raises(ManifestError, match=told):
        verify_manifest(await signed_anew(data, change), VKEY)


async def test_an_export_follows_the_one_before(log: list[Row]) -> None:
    old, hashes = log[:7], [one.stored.leaf_hash for one in log]
    first = parts(await made(old))
    told = unseal(first["manifest.json"], EXPORT, VKEY)
    assert decode(told["next"], (int,)) == Cursor(7, (7,))
    since = told["checkpoint"]["note"]
    data = await made(log, follows=(7, consistency_proof(hashes, 7)))
    assert verify_manifest(io.BytesIO(data), VKEY, since=since)["follows"]["size"] == 7
    for other in (await made(log), await made(log, follows=(6, consistency_proof(hashes, 6)))):
        with pytest.raises(ManifestError, match="does not follow one of 7"):
            verify_manifest(io.BytesIO(other), VKEY, since=since)
    with pytest.raises(ManifestError, match="does not begin with"):
        verify_manifest(io.BytesIO(data), VKEY, since=note_of(7, bytes(32)))
    with pytest.raises(ManifestError, match="begins with entry 0, the one before ended with 7"):
        verify_manifest(io.BytesIO(data), VKEY, since=first["manifest.json"].decode())
    for start, good in ((7, True), (8, False), (6, False)):
        following = await made(log, start=start, follows=(7, consistency_proof(hashes, 7)))
        with nullcontext() if good else pytest.raises(ManifestError, match="the one before ended with 7"):
            verify_manifest(io.BytesIO(following), VKEY, since=first["manifest.json"].decode())
    with pytest.raises(ManifestError):
        verify_manifest(io.BytesIO(following), VKEY, since=first["manifest.json"].decode().replace("payload", "other"))


async def test_an_export_is_checked_by_a_command(
    log: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_, old = tmp_path / "export.zip", tmp_path / "old"
    hashes = [one.stored.leaf_hash for one in log]
    old.write_text(head_of(log[:7])[1], encoding="utf-8")
    export_.write_bytes(await made(log, end=5, paths=prover(log), follows=(7, consistency_proof(hashes, 7))))
    good, told = check(export_, VKEY, old, proved=True)
    following = Cursor(len(log), (5,)).encode()
    assert good, told
    assert told == (
        f"verified: 5 entries, 0 to 4, of them 0 copies; log hallmark.example/log/test of {len(log)} entries\n"
        f"next: {following}\n"
    )
    export_.write_bytes(await made(log, end=5))
    for refused in (check(export_, VKEY, proved=True), check(export_, VKEY, old), check(tmp_path / "none", VKEY)):
        assert (refused[0], refused[1].startswith("REFUSED: ")) == (False, True)
    parser = argparse.ArgumentParser()
    COMMAND.arguments(parser)
    for more, code in (([], 0), (["--proved"], 1), (["--since", str(old)], 1)):
        given = parser.parse_args([str(export_), "--key", VKEY, *more])
        assert await COMMAND.work(ProcessSettings(), given) == code
    assert capsys.readouterr().out.startswith("verified: 5 entries")


# -- damage ------------------------------------------------------------------------------------------------------------


async def test_a_cell_of_any_length_is_read() -> None:
    """More than the 131,072 characters that Python's reader takes by itself."""
    log = rows(registration())
    log[0] = replace(log[0], fields={**log[0].fields, "summary": "s" * 200_000})
    assert verify_manifest(io.BytesIO(await made(log, "csv")), VKEY)["indexes"]["count"] == 1


NO_CSV = [b'index\r\n"a\0', b"\xff", b"", b"index,leaf_hash,copy_of\r\n1", b"index\r\nx", b'"' + b"a" * (1 << 20)]


@pytest.mark.parametrize("content", NO_CSV)
async def test_what_is_no_csv_is_refused(log: list[Row], content: bytes) -> None:
    with pytest.raises(ManifestError):
        verify_manifest(await signed_anew(await made(log, "csv"), lambda f: f.update({"entries.csv": content})), VKEY)


async def test_two_files_of_different_entries_are_refused_though_they_are_signed(log: list[Row]) -> None:
    """Each file is as its line says, yet one has an entry that the other has not."""
    files, other = parts(await made(log)), parts(await made(log[:-1]))
    manifest, told = (unseal(one["manifest.json"], EXPORT, VKEY) for one in (files, other))
    files["entries.csv"] = other["entries.csv"]
    manifest["files"] = [
        next(p for p in told["files"] if p["name"] == part["name"]) if part["name"] == "entries.csv" else part
        for part in manifest["files"]
    ]
    files["manifest.json"] = await seal(EXPORT, manifest, SIGNER)
    with pytest.raises(ManifestError, match=r"entries\.csv"):
        verify_manifest(zipped(files), VKEY)


async def test_only_the_log_s_own_key_counts(log: list[Row]) -> None:
    stranger = vkeys(Ed25519PrivateKey.generate())[0]
    for vkey in (stranger, vkeys()[1], "", "a+b+c"):
        with pytest.raises(ManifestError):
            verify_manifest(io.BytesIO(await made(log)), vkey)


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + bytes(18), b"no zip", b"PK\x03\x04" * 20])
def test_what_is_no_export_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError):
        verify_manifest(io.BytesIO(data), VKEY)


async def test_a_stream_that_broke_off_is_no_export(log: list[Row]) -> None:
    data = await made(log)
    for cut in (len(data) - 1, len(data) - 30, len(data) // 2):
        with pytest.raises(ManifestError):
            verify_manifest(io.BytesIO(data[:cut]), VKEY)


# -- formulas ---------------------------------------------------------------------------------------------------------


def cells_of(text: str, delimiter: str) -> list[str]:
    """Every cell as a spreadsheet opens the file whose list separator that is; quotes part way count for nothing."""
    return [cell for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) for cell in line]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_no_spreadsheet_computes_a_cell(log: list[Row], delimiter: str) -> None:
    text = parts(await made(log, "csv"))["entries.csv"].decode()
    for cell in cells_of(text, delimiter):
        bare = cell.lstrip(' \t\r\n\u00a0\u200b\ufeff"')
        assert not bare.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")), cell
        assert not cell.startswith(("\t", "\r", "\n")), cell


@pytest.mark.parametrize("text", ["fraud", "a-b", "2026-11-20", "a = b", "x, -1", "", "1.5"])
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert guarded(text) == text


async def test_lines_of_ndjson_stay_lines(log: list[Row]) -> None:
    log.append(row(VersionNoted(workspace="default", model="fraud", version=2, text="a\u2028b\nc\x85"), len(log)))
    data = parts(await made(log, "ndjson"))["entries.ndjson"]
    assert len(data.decode().splitlines()) == data.count(b"\n") == len(log)


def test_an_entry_that_cannot_be_read_has_its_bytes_all_the_same() -> None:
    for data in (b"", b"no leaf", b"hallmark-leaf/1\n{}\n", b"\xff" * 100):
        found = row_of(Stored(7, data, leaf_hash(data)))
        assert (found.stored.leaf, found.fields["index"]) == (data, 7)
        assert found.fields["problem"].startswith("bad-leaf")


# -- envelopes --------------------------------------------------------------------------------------------------------


def test_the_encoding_is_that_of_the_specification() -> None:
    """The example of the DSSE protocol document."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


async def test_a_signature_is_good_for_one_type_only() -> None:
    sealed = json.loads(await seal(EXPORT, {"a": 1}, SIGNER))
    assert unseal(json.dumps(sealed).encode(), EXPORT, VKEY) == {"a": 1}
    sealed["payloadType"] = IN_TOTO
    for wanted in (EXPORT, IN_TOTO):
        with pytest.raises(ManifestError):
            unseal(json.dumps(sealed).encode(), wanted, VKEY)


async def test_the_key_signs_nothing_but_envelopes() -> None:
    with pytest.raises(ValueError, match="envelope"):
        await SIGNER.sign_bytes(b"hallmark.example/log\n1\n")


async def test_the_client_checks_an_export_too(log: list[Row], tmp_path: Path) -> None:
    """An outsider has no service to run: the client, which is another program, finds what was changed."""
    hashes = [one.stored.leaf_hash for one in log]
    first = unseal(parts(await made(log[:7]))["manifest.json"], EXPORT, VKEY)["checkpoint"]["note"]
    good = await made(log, paths=prover(log), follows=(7, consistency_proof(hashes, 7)))
    file = tmp_path / "export.zip"

    def told(data: bytes, since: str | None = None) -> str:
        file.write_bytes(data)
        return verify_any(file, VKEY, old_checkpoint=since).what

    assert told(good, first).startswith(f"{len(log)} entries, 4 files")
    assert "not proved" in told(await made(log, end=5))
    assert told(await made(log)) == f"{len(log)} entries, 3 files, log hallmark.example/log/test of {len(log)} entries"
    for end, problem in ((5, "not the 5 told of"), (None, "do not add up to the signed root")):
        with pytest.raises(VerificationError, match=problem):
            told((await forged(log, end, paths=prover(log) if end else None)).read())
    for since in (note_of(7, bytes(32)), note_of(6, bytes(32))):
        with pytest.raises(VerificationError):
            told(good, since)
    for name, data in parts(good).items():
        bent = data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
        with pytest.raises(VerificationError):
            told(zipped({**parts(good), name: bent}).read())

    def lie(files: dict[str, bytes]) -> None:
        files["proofs.ndjson"] = files["proofs.ndjson"].replace(b'"index":3,', b'"index":2,')

    with pytest.raises(VerificationError, match="entry "):
        told((await signed_anew(good, lie)).read())
