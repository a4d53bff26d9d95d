"""What leaves the service, over HTTP, from the real log: exports, evidence bundles, the feed of a SIEM."""

import asyncio
import io
import json
import random
import re
import subprocess
import sys
import zipfile
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from tests.support.foreign import go_log
from tests.support.receiver import Hit, Receiver
from tests.support.waiting import until
from tests.unit.policy.records import KEY, good, keys

from audit import app as audit_app
from audit import cursor, merkle, tables
from audit.leaf import Detached, Leaf, decode
from audit.out.evidence.bundle import VERIFIER
from audit.out.manifest import verify_manifest
from audit.out.query import Entries, Query
from audit.out.siem import push
from audit.out.siem.feed import Feed
from audit.out.siem.push import Pusher, Sink
from audit.tlog.proofs import Proofs
from audit.tlog.publisher import Publisher
from audit.tlog.signing import signer_of
from audit.views import Views
from contracts.approval import RequestDecided
from contracts.audit import RecordSkipped
from contracts.registry import ModelDeleted, VersionNoted
from contracts.topics import APPROVAL_EVENTS, AUDIT_EVENTS
from kit.events import EventLog
from kit.problems import Problem

from .conftest import Harness, event, hours, record, registered, story

EVIL = "=cmd()|<script>alert(1)</script>\n\"'"
PATHS = ("/v1/export", "/v1/models/fraud/versions/1/evidence", "/v1/siem")


@pytest.fixture
async def log(audit: Harness) -> Harness:
    """Eleven entries: the story of two versions, a note by a stranger, and one that is no event."""
    noted = VersionNoted(workspace="default", model="fraud", version=1, text=EVIL)
    records = [record(one) for one in [*story(), event(noted, 10, at=hours(7))]]
    await audit.ledger.append([*records, record(story()[0], value=b"\xff", key=None, headers=())])
    return audit


async def fetch(audit: Harness, path: str, *groups: str) -> httpx2.Response:
    async with audit.client("aud", *groups) as client:
        response = await client.get(path)
    assert response.status_code == 200, response.text
    return response


async def vkey(audit: Harness) -> str:
    return str(await audit.get("/keys")).split("\n")[0]


def entries(data: bytes) -> list[dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [json.loads(line) for line in archive.read("entries.ndjson").splitlines()]


async def accesses(audit: Harness) -> list[dict[str, Any]]:
    return [json.loads(row["data"]) for row in await audit.rows(tables.mechanism.event) if "access" in row["type"]]


# -- exports -----------------------------------------------------------------------------------------------------------


async def test_the_whole_log_is_exported_with_a_manifest_that_reconciles(log: Harness) -> None:
    data = (await fetch(log, "/v1/export?format=ndjson&format=csv&format=parquet")).content
    manifest = verify_manifest(io.BytesIO(data), await vkey(log))
    stored = await log.entries()
    assert manifest["indexes"]["count"] == len(stored) == 11
    assert manifest["taken_by"] == "aud"
    assert [b64decode(one["leaf"]) for one in entries(data)] == [row["leaf"] for row in stored]
    assert manifest["checkpoint"]["note"] == await log.get("/checkpoint")


@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        ("workspace=default&model=fraud&version=1", [0, 1, 2, 5, 8, 9]),
        ("workspace=default&model=fraud&version=2", [3, 4, 6, 7]),
        ("type=hallmark.version.registered.v1", [0, 3]),
        ("since=2026-11-20T18:00:00Z&workspace=default", [7, 8, 9]),
        ("since=2026-11-20T14:00:00Z&until=2026-11-20T15:00:00Z", [2, 3]),
        ("actor=ana&start=2&end=5", [2, 3, 4]),
        ("start=2&end=5", [2, 3, 4]),
        ("start=5&end=5", []),
        ("start=10&end=999", [10]),
        ("workspace=other", []),
        ("subject=default/fraud*&start=3&end=5", [3, 4]),
        ("subject=default/fraud/1&start=7", [7, 8, 9]),
        ("outcome=failed", [10]),
        ("outcome=ok&start=8", [8, 9]),
        ("correlationid=nothing", []),
        ("type=hallmark.version.*&workspace=default", [0, 3, 9]),
        ("actor=nobody", []),
    ],
)
async def test_a_query_exports_what_it_asks_for(log: Harness, query: str, indexes: list[int]) -> None:
    query += "&format=csv&format=ndjson&format=parquet"
    data = (await fetch(log, f"/v1/export?{query}")).content
    assert [one["index"] for one in entries(data)] == indexes
    assert verify_manifest(io.BytesIO(data), await vkey(log))["indexes"]["count"] == len(indexes)


async def test_an_export_goes_on_where_the_last_ended(log: Harness) -> None:
    """Each entry once, each proved to be under the checkpoint, which is proved to extend the one before."""
    key = await vkey(log)
    first = (await fetch(log, "/v1/export?end=4&proofs=true")).content
    told = verify_manifest(io.BytesIO(first), key, proved=True)
    await log.ledger.append([record(event(registered(3), 11, at=hours(8)))])
    second = (await fetch(log, f"/v1/export?after={told['next']}&proofs=true&format=csv&format=ndjson")).content
    verify_manifest(io.BytesIO(second), key, since=told["checkpoint"]["note"], proved=True)
    found = [one["index"] for data in (first, second) for one in entries(data)]
    assert found == list(range(12))
    assert await log.status("/v1/export?after=nonsense", "auditors") == 422
    assert await log.status(f"/v1/export?after={told['next']}&start=2", "auditors") == 422
    for backward in (f"after={told['next']}&end=3", "start=3&end=2"):
        async with log.client("aud", "auditors") as client:
            response = await client.get(f"/v1/export?{backward}")
        assert (response.status_code, "'end'" in response.text) == (422, True)
    nothing = (await fetch(log, f"/v1/export?after={told['next']}&end=4")).content
    assert verify_manifest(io.BytesIO(nothing), key)["indexes"]["count"] == 0
    # Views that are made anew have read less than the export before: there is nothing yet, and it goes on from there.
    await log.execute("update audit.follower set next = 2 where name = 'views'")
    waiting = (await fetch(log, f"/v1/export?after={told['next']}")).content
    assert cursor.decode(verify_manifest(io.BytesIO(waiting), key)["next"], (int,)).place == (4,)


async def test_a_copy_is_told_as_one_and_proves_nothing_again(log: Harness, tmp_path: Path) -> None:
    change = decode((await log.entries())[2]["leaf"])  # to Production
    assert isinstance(change, Leaf)
    again: dict[str, Any] = {"key": change.key, "headers": change.headers, "value": change.value}
    await log.ledger.append([record(story()[2], **again)])
    data = (await fetch(log, "/v1/export?workspace=default")).content
    assert [(one["index"], one["copy_of"]) for one in entries(data)][-1] == (11, 2)
    told = verify_manifest(io.BytesIO(data), await vkey(log))["indexes"]
    assert (told["count"], told["copies"]) == (11, 1)
    data = (await fetch(log, PATHS[1])).content
    code, said = await asyncio.to_thread(verify, data, await log.get("/keys"), tmp_path)
    assert code == 0, said
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        envelope = json.loads(archive.read("manifest.json"))
        manifest = json.loads(b64decode(envelope["payload"]))
        assert (manifest["entries"], manifest["copies"]) == (7, 1)
        assert "A copy of entry 2." in archive.read("index.html").decode()
    await log.get("/checkpoint")
    (*_, ocsf) = (await fetch(log, "/v1/siem?after=10")).json() or [None]
    assert ocsf["unmapped"] == {"index": 11, "subject": "default/fraud/1", "copy_of": 2}


async def test_pages_are_as_one(log: Harness) -> None:
    source = Entries(log.db, log.archive.inline, log.archive.entry)
    ones = Query(0, 11, workspace="default", version=1)
    for page in (1, 2, 3, 11, 50):
        for window in (1, 3, 100):
            for query, indexes in ((Query(0, 11), list(range(11))), (ones, [0, 1, 2, 5, 8, 9])):
                pages = source.batches(query, page=page, window=window)
                assert [row.stored.index async for rows in pages for row in rows] == indexes


async def test_an_export_ends_where_the_views_are(log: Harness) -> None:
    """What the timeline has not read has no verdict yet: it is in no export, and the manifest says so."""
    await log.ledger.ledger.append([record(event(registered(3), 11, at=hours(8)))])
    for query in ("?workspace=default", "?", "?end=12"):
        data = (await fetch(log, f"/v1/export{query}")).content
        manifest = verify_manifest(io.BytesIO(data), await vkey(log))
        assert (manifest["query"]["end"], manifest["checkpoint"]["size"]) == (11, 12)
    assert entries((await fetch(log, "/v1/export?start=11")).content) == []
    await log.ledger.projector.catch_up()
    assert entries((await fetch(log, "/v1/export?start=11")).content)[0]["version"] == 3


BAD = ["format=pdf", "model=fraud", "start=-1", "since=yesterday", "version=0", "end=99999999999999999999", "type=%00"]


async def test_bad_questions_are_refused(log: Harness) -> None:
    assert {query: await log.status(f"/v1/export?{query}", "auditors") for query in BAD} == dict.fromkeys(BAD, 422)


# -- who may read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_strangers_read_nothing_and_leave_a_record(log: Harness, path: str) -> None:
    assert await log.status(path, "strangers") == 403
    (told,) = await accesses(log)
    assert (told["principal"], told["outcome"]) == ("eve", "denied")
    assert told["query"].startswith(f"GET {path}")
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(log.app), base_url="http://audit") as client:
        assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/v1/export", "/v1/siem"])
async def test_readers_of_a_workspace_do_not_read_the_log(log: Harness, path: str) -> None:
    assert await log.status(path, "ml-engineers") == 403
    assert await log.status(path, "local-auditors") == 403


async def test_whoever_may_read_the_model_gets_its_evidence_and_leaves_a_record(log: Harness) -> None:
    await fetch(log, PATHS[1], "ml-engineers")
    (told,) = await accesses(log)
    assert (told["principal"], told["outcome"], told["query"]) == ("aud", "allowed", f"GET {PATHS[1]}")
    assert await log.status(f"{PATHS[1]}?workspace=other", "ml-engineers") == 403


async def test_a_feed_that_is_asked_often_leaves_one_record_a_minute(log: Harness) -> None:
    for after in (-1, 3, 5):
        await fetch(log, f"/v1/siem?after={after}")
    assert len(await accesses(log)) == 1


# -- evidence ----------------------------------------------------------------------------------------------------------


def verify(data: bytes, keys: str, directory: Path, *more: str) -> tuple[int, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (directory / "verify_bundle.py").write_bytes(archive.read("verify_bundle.py"))
    (directory / "bundle.zip").write_bytes(data)
    (directory / "keys").write_text(keys)
    command = [sys.executable, "-I", "verify_bundle.py", "bundle.zip", "--key", "keys", *more]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


async def test_the_evidence_of_a_version_is_verified_without_the_service(log: Harness, tmp_path: Path) -> None:
    data = (await fetch(log, PATHS[1])).content
    code, said = await asyncio.to_thread(verify, data, await log.get("/keys"), tmp_path)
    assert code == 0, said
    assert "6 entries of default/fraud/1" in said
    assert "of 11 entries" in said
    (tmp_path / "old").write_text(await log.get("/checkpoint"), encoding="utf-8")
    await log.ledger.append([record(event(registered(3), 11, at=hours(8)))])
    for query, code in (("?since=11", 0), ("", 1), ("?since=10", 1)):
        newer = (await fetch(log, PATHS[1] + query)).content
        found, said = await asyncio.to_thread(verify, newer, await log.get("/keys"), tmp_path, "--since", "old")
        assert found == code, said
    assert await log.status(f"{PATHS[1]}?since=99", "auditors") == 422
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert b"<script>alert" not in archive.read("index.html")
        keys = (await log.get("/keys")).splitlines()
        policy = "".join(f"log {key}\n" for key in keys) + "quorum none\n"
        assert archive.read("tlog-policy").decode() == policy == await log.get("/v1/log/policy")


async def test_the_evidence_is_the_same_while_the_log_is(log: Harness) -> None:
    assert (await fetch(log, PATHS[1])).content == (await fetch(log, PATHS[1])).content


async def test_events_of_the_model_are_in_the_evidence_and_those_of_others_are_not(log: Harness) -> None:
    gone = ModelDeleted(workspace="default", model="fraud", reason="obsolete")
    other = registered(1, model="churn")
    await log.ledger.append([record(event(gone, 11, at=hours(8))), record(event(other, 1, at=hours(8)))])
    data = (await fetch(log, PATHS[1])).content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = [json.loads(line)["index"] for line in archive.read("events.ndjson").splitlines()]
    assert found == [0, 1, 2, 5, 8, 9, 11]


async def test_an_event_that_lies_elsewhere_is_whole_in_the_evidence(log: Harness, tmp_path: Path) -> None:
    content = registered(3).content.model_copy(
        update={"notes": "n" * 9_000, "tags": {f"t{n}": "x" * 9_000 for n in range(8)}}
    )
    large = registered(3).model_copy(update={"content": content})
    views = Views(None, log.archive)
    await log.log(views).append([record(event(large, 11, at=hours(8)))])
    stored = (await log.entries())[-1]
    assert isinstance(decode(stored["leaf"]), Detached)
    data = (await fetch(log, "/v1/models/fraud/versions/3/evidence")).content
    code, said = await asyncio.to_thread(verify, data, await log.get("/keys"), tmp_path)
    assert code == 0, said
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (line,) = archive.read("events.ndjson").splitlines()
        assert decode(b64decode(json.loads(line)["body"])).topic == stored["topic"]
        assert b"nnnn" in archive.read("model-card.md")


@pytest.mark.parametrize(("members", "verified"), [({}, True), ({"revoked": "2026-01-01T00:00:00Z"}, False)])
async def test_decisions_are_judged_with_the_keys_of_the_service(
    log: Harness, tmp_path: Path, members: dict[str, Any], verified: bool
) -> None:
    (tmp_path / "decision.jwks.json").write_text(json.dumps(keys(**members)))
    decided = RequestDecided.model_validate_json(json.dumps(good()))
    one = event(decided, 1, at=hours(8), source="hallmark/approval", subject="default/fraud/2", key="default/fraud")
    await log.ledger.append([record(one, topic=APPROVAL_EVENTS.name)])
    settings = log.settings.model_copy(update={"decision_jwks": str(tmp_path / "decision.jwks.json")})
    log.made = audit_app.build(settings)
    data = (await fetch(log, "/v1/models/fraud/versions/2/evidence")).content
    code, said = await asyncio.to_thread(verify, data, await log.get("/keys"), tmp_path)
    assert code == 0, said
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".verification.json")]
        checks = json.loads(archive.read(name))
        assert checks["verified"] is verified, checks
        assert [key["kid"] for key in json.loads(archive.read("keys/decisions.jwks.json"))["keys"]] == [KEY.kid]
        assert "21 CFR 11.50" in (page := archive.read("index.html").decode())
        assert "<bdi>I reviewed it (approve)</bdi>" in page


async def test_too_much_evidence_is_refused(log: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.out.evidence.gather.MAX_BYTES", 100)
    async with log.client() as client:
        response = await client.get(PATHS[1])
    assert (response.status_code, response.json()["type"].rpartition(":")[2]) == (413, "too-much-evidence")


async def test_there_is_no_evidence_of_what_nobody_logged(log: Harness) -> None:
    for path in ("/v1/models/fraud/versions/9/evidence", "/v1/models/nothing/versions/1/evidence"):
        assert await log.status(path, "auditors") == 404


# -- the feed ----------------------------------------------------------------------------------------------------------


MEDIA = {
    "ocsf": "application/json",
    "cloudevents": "application/cloudevents-batch+json",
    "cef": "text/plain; charset=utf-8",
}


def fed(response: httpx2.Response, form: str) -> list[int]:
    """The indexes of a page."""
    if form == "cef":
        return [int(re.findall(r" cn1=(\d+)", line)[0]) for line in response.text.splitlines()]
    return [r["unmapped"]["index"] if form == "ocsf" else int(r["logindex"]) for r in response.json()]


@pytest.mark.parametrize("form", MEDIA)
async def test_the_feed_gives_every_entry_once_a_cursor_is_followed(log: Harness, form: str) -> None:
    await log.get("/checkpoint")
    after, seen, lag = "-1", [], None
    while True:
        response = await fetch(log, f"/v1/siem?after={after}&format={form}&limit=4")
        found = fed(response, form)
        if not found:
            break
        seen += found
        after, lag = response.headers["hallmark-after"], response.headers["hallmark-lag"]
    assert seen == list(range(11))
    assert (after, lag) == ("10", "0")
    assert response.headers["content-type"] == MEDIA[form]


async def test_what_is_not_published_is_not_fed(log: Harness) -> None:
    assert (await fetch(log, "/v1/siem")).json() == []


async def pushed(
    log: Harness,
    answer: Callable[[Hit], int],
    *,
    limit: int = 3,
    every_seconds: float = 0.001,
    max_pause: float = 0.002,
) -> list[Hit]:
    """What a receiver was sent until it had everything."""
    events = EventLog(tables.mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    publisher = Publisher(log.db, events, log.archive, signer_of(log.settings), every_seconds=1, publish_seconds=1)
    size = (await publisher.current()).checkpoint.size
    receiver = Receiver(answer)
    try:
        sink = Sink("test", f"{receiver.url}/in", headers=(("Authorization", "Bearer x"),), limit=limit)
        feed = Feed(Entries(log.db, log.archive.inline, log.archive.entry), log.settings.checkpoint_origin)
        pusher = Pusher(log.db, feed, publisher, sink, events, every_seconds=every_seconds, max_pause=max_pause)
        task = asyncio.create_task(pusher.run())

        async def done() -> bool:
            return any(row["name"] == "siem:test" and row["next"] == size for row in await log.rows(tables.follower))

        await until(done)
        task.cancel()
        return receiver.hits
    finally:
        receiver.stop()


def indexes(hit: Hit) -> list[int]:
    return [one["unmapped"]["index"] for one in json.loads(hit.body)]


async def test_a_receiver_that_fails_gets_everything_in_the_end(log: Harness) -> None:
    """It is away every other time; each page comes again until it is taken, and none is lost."""
    count = 0

    def answer(_: Hit) -> int:
        nonlocal count
        count += 1
        return 200 if count % 2 == 0 else 503 if count % 3 else 401

    hits = await pushed(log, answer)
    assert {hit.headers["authorization"] for hit in hits} == {"Bearer x"}
    assert [index for hit in hits[1::2] for index in indexes(hit)] == list(range(11))
    assert not [row for row in await log.rows(tables.mechanism.event) if row["type"] == RecordSkipped.TYPE]


@pytest.mark.parametrize("status", [400, 413, 500])
async def test_a_record_that_is_refused_alone_does_not_keep_the_rest_back(log: Harness, status: int) -> None:
    """Entries 4 and 5, which the receiver takes in no page; the others come, and an event tells of the two."""
    taken: list[int] = []

    def answer(hit: Hit) -> int:
        if {4, 5} & set(indexes(hit)):
            return status
        taken.extend(indexes(hit))
        return 200

    await pushed(log, answer, limit=500)
    assert set(taken) == set(range(11)) - {4, 5}
    rows = [row for row in await log.rows(tables.mechanism.event) if row["type"] == RecordSkipped.TYPE]
    told = [RecordSkipped.model_validate_json(row["data"]) for row in rows]
    assert [(one.sink, one.index, one.status, one.detail) for one in told] == [
        ("test", 4, status, "ok"),
        ("test", 5, status, "ok"),
    ]


async def test_a_record_that_breaks_the_receiver_is_found_by_halves_and_soon(
    log: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page is one half of what is left of the one that was refused, in order; pauses add up to under a minute."""
    await log.ledger.append([record(event(registered(n), n)) for n in range(100, 130)])
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds != given["every_seconds"]:  # the wait for something new
            waited.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(push, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    given = {"every_seconds": 1.0, "max_pause": 60.0}
    hits = await pushed(log, lambda hit: 500 if 29 in indexes(hit) else 200, limit=500, **given)
    pages = [(indexes(hit)[0], len(indexes(hit))) for hit in hits]
    alone = pages.index((29, 1))
    assert pages[:alone] == [(0, 41), (0, 20), (20, 10), (20, 5), (25, 2), (27, 1), (28, 1)]
    (again, *rest) = (n for n, page in enumerate(pages) if page[0] > 29 and page[1] > 1)
    assert set(pages[alone:again]) == {(29, 1), (30, 1)}  # that one, and another to see whether the receiver is there
    assert (pages[again], len(rest)) == ((31, 2), 2)
    assert sum(waited) < 60


async def test_more_records_are_refused_in_a_row_than_anybody_would_probe(log: Harness) -> None:
    await log.ledger.append([record(event(registered(n), n)) for n in range(100, 119)])
    taken: set[int] = set()

    def answer(hit: Hit) -> int:
        if set(range(4, 26)) & set(indexes(hit)):
            return 422
        taken.update(indexes(hit))
        return 200

    await pushed(log, answer)
    assert taken == {*range(4), *range(26, 30)}


async def test_a_receiver_that_fails_at_random_gets_everything(log: Harness) -> None:
    await log.ledger.append([record(event(registered(n), n)) for n in range(100, 130)])
    chance = random.Random(6)
    taken: set[int] = set()

    def answer(hit: Hit) -> int:
        if chance.random() < 0.6:
            return 500
        taken.update(indexes(hit))
        return 200

    await pushed(log, answer)
    assert taken == set(range(41))
    assert not [row for row in await log.rows(tables.mechanism.event) if row["type"] == RecordSkipped.TYPE]


async def test_a_receiver_that_refuses_everything_loses_nothing(log: Harness) -> None:
    """A wrong address or form, for a while: that is no record's fault."""
    left = 40
    taken: list[int] = []

    def answer(hit: Hit) -> int:
        nonlocal left
        left -= 1
        if left > 0:
            return 400
        taken.extend(indexes(hit))
        return 200

    await pushed(log, answer)
    assert sorted(set(taken)) == list(range(11))


async def paths_are_those_of_proofs(log: Harness, most: int) -> None:
    """Many paths at once are what they are one by one, for a few statements."""
    proofs = Proofs(log.db, log.archive)
    statements: list[str] = []
    for size in (1, 2, 255, 256, 257, 511, 512, 513, most):
        given = [n for n in (0, 1, 2, 127, 255, 256, 300, 511, 512, 600, 610) if n < size]
        paths = await proofs.paths(size)
        assert [one.path for one in await paths.of(given)] == [await proofs.inclusion(n, size) for n in given]
    paths = await proofs.paths(most)
    sa.event.listen(log.db.engine.sync_engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    found = await paths.of(range(most))
    assert len(statements) < 10, statements
    root = await proofs.root(most)
    stored = [row["leaf_hash"] for row in await log.entries()]
    assert [one.leaf_hash for one in found] == stored[:most]
    assert all(merkle.verify_inclusion(one.leaf_hash, one.index, most, one.path, root) for one in found)
    with pytest.raises(Problem) as caught:
        await proofs.paths(10_000)
    assert caught.value.status == 404


# -- a copy of the log -------------------------------------------------------------------------------------------------


async def test_the_published_log_is_verified_by_the_verifier_of_the_bundle(log: Harness, tmp_path: Path) -> None:
    """What lies in the store is a C2SP tlog-tiles log as it is: copied, checked, bent, found."""
    await log.get("/checkpoint")
    old = str(await log.get("/checkpoint"))
    await log.ledger.append([record(event(registered(n), n)) for n in range(100, 700)])
    async with log.client() as client:
        assert (await client.get("/v1/log/inclusion?index=610")).status_code == 200  # publishes
    await paths_are_those_of_proofs(log, 611)
    copy = tmp_path / "copy"
    async for item in log.archive.store.objects(""):
        if item.key == "checkpoint" or item.key.startswith("tile/"):
            (copy / item.key).parent.mkdir(parents=True, exist_ok=True)
            (copy / item.key).write_bytes(await log.archive.read(item.key) or b"")
    (tmp_path / "keys").write_text(await log.get("/keys"))
    (tmp_path / "old").write_text(old, encoding="utf-8")
    (tmp_path / "verifier.py").write_bytes(VERIFIER.read_bytes())
    command = [sys.executable, "-I", "verifier.py", "--log", "copy", "--key", "keys", "--since", "old"]

    def run() -> str:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False).stdout

    assert await asyncio.to_thread(run) == "OK: log hallmark.example/log/audit of 611 entries\n"
    key = await vkey(log)
    assert (await asyncio.to_thread(go_log, copy, [key]))["size"] == 611
    bundle = copy / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"X")
    assert "NOT VERIFIED: entry 511:" in await asyncio.to_thread(run)
    with pytest.raises(ValueError, match="hash to"):
        await asyncio.to_thread(go_log, copy, [key])
