"""The log over HTTP: proofs that others can check, tampering that is found and located, and who may read it."""

import asyncio
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from urllib3.exceptions import HTTPError

from audit import app as audit_app
from audit import merkle, tables
from audit.note import open_note
from audit.tlog.archive import Contradiction
from audit.tlog.check import Check
from audit.tlog.publisher import Published, Publisher
from audit.tlog.signing import signer_of
from audit.verify import Report, verify_export
from contracts.audit import AccessRecorded, CheckpointPublished
from contracts.envelope import Envelope
from contracts.topics import AUDIT_EVENTS
from hallmark import verify as clients
from kit.events import EventLog

from .conftest import Harness, event, record, registered, story

LOG_PATHS = ["entries", "inclusion?index=0", "consistency?from=0", "export", "verify", "completeness"]


@pytest.fixture
async def log(audit: Harness) -> Harness:
    """Nine entries, signed at five and at nine."""
    await audit.ledger.append([record(e) for e in story()[:5]])
    await publisher(audit).current()
    await audit.ledger.append([record(e) for e in story()[5:]])
    await publisher(audit).current()
    return audit


async def exported(log: Harness) -> Report:
    text = await log.get("/v1/log/export")
    return verify_export(text.encode().splitlines(keepends=True), (await log.get("/keys")).splitlines()[0])


async def test_the_checkpoint_is_signed_by_the_served_key(log: Harness) -> None:
    note, vkeys = await log.get("/checkpoint"), (await log.get("/keys")).splitlines()
    checkpoint, second = [open_note(note, vkey) for vkey in vkeys]  # Ed25519 and ML-DSA-44
    assert checkpoint == second
    hashes = [e["leaf_hash"] for e in await log.entries()]
    assert (checkpoint.origin, checkpoint.size) == ("hallmark.example/log/audit", 9)
    assert checkpoint.root == merkle.root_of(hashes)
    assert await log.get("/checkpoint") == note


async def test_inclusion_is_proved_for_every_entry(log: Harness) -> None:
    vkey = (await log.get("/keys")).splitlines()[0]
    for index in range(9):
        found = await log.get(f"/v1/log/inclusion?index={index}")
        signed = open_note(found["checkpoint"], vkey)
        (entry,) = (await log.get(f"/v1/log/entries?start={index}&limit=1"))["items"]
        leaf = merkle.leaf_hash(b64decode(entry["leaf"]))
        proof = [b64decode(node) for node in found["proof"]]
        assert merkle.verify_inclusion(leaf, found["index"], signed.size, proof, signed.root)
        assert (found["size"], b64decode(found["root"]), found["leaf_hash"]) == (signed.size, signed.root, leaf.hex())


async def test_consistency_is_proved_between_any_two_sizes(log: Harness) -> None:
    for first in range(10):
        for second in range(first, 10):
            found = await log.get(f"/v1/log/consistency?from={first}&to={second}")
            old, new = b64decode(found["from_root"]), b64decode(found["to_root"])
            proof = [b64decode(node) for node in found["proof"]]
            assert merkle.verify_consistency(first, second, old, new, proof)


async def test_entries_are_paged(log: Harness) -> None:
    items, start = [], "0"
    while start is not None:
        page = await log.get(f"/v1/log/entries?start={start}&limit=4")
        items += page["items"]
        start = page["next"]
    assert [item["index"] for item in items] == list(range(9))
    assert {item["topic"] for item in items} == {"hallmark.registry.events"}
    assert items[0]["type"] == "hallmark.version.registered.v1"
    assert (await log.get("/v1/log/entries?start=99"))["items"] == []


BAD = {
    "inclusion?index=9": 404,
    "inclusion?index=-1": 422,
    "inclusion": 422,
    "consistency?from=3&to=2": 422,
    "consistency?from=0&to=10": 404,
    "consistency?from=10": 422,
    "entries?start=x": 422,
    "entries?limit=501": 422,
    "inclusion?index=99999999999999999999999999": 422,
}


async def test_bad_questions_about_the_log_are_refused(log: Harness) -> None:
    assert {path: await log.status(f"/v1/log/{path}", "auditors") for path in BAD} == BAD


async def test_the_export_is_verified_offline_and_a_changed_copy_is_not(log: Harness, tmp_path: Path) -> None:
    text = await log.get("/v1/log/export")
    vkey = (await log.get("/keys")).splitlines()[0]
    report = verify_export(text.encode().splitlines(keepends=True), vkey)
    assert (report.ok, report.size) == (True, 9)
    file = tmp_path / "export"
    for index in (0, 4, 7, 8):
        lines = text.encode().splitlines(keepends=True)
        bent = bytearray(lines[index + 1])
        bent[len(bent) // 2] ^= 1
        lines[index + 1] = bytes(bent)
        found = verify_export(lines, vkey)
        assert (found.ok, found.index) == (False, index)
        lines = text.encode().splitlines(keepends=True)
        entry = json.loads(lines[index + 1]) | {"leaf": "bGll", "leaf_hash": merkle.leaf_hash(b"lie").hex()}
        lines[index + 1] = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        file.write_bytes(b"".join(lines))
        with pytest.raises(clients.VerificationError, match=f"entry {index} was replaced"):
            clients.verify_export(file, vkey)


async def test_an_export_longer_than_a_page(audit: Harness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("audit.tlog.proofs.PAGE", 3)
    monkeypatch.setattr("audit.tlog.proofs.SUBTREES", 5)
    for size in range(1, 8):
        await audit.ledger.append([record(event(registered(size, f"m{size}"), 1))])
        report = await exported(audit)
        assert (report.ok, report.size) == (True, size)
        (tmp_path / "export").write_text(await audit.get("/v1/log/export"))
        assert clients.verify_export(tmp_path / "export", (await audit.get("/keys")).splitlines()[0]).size == size
        assert (await audit.get("/v1/log/verify"))["ok"] is True


async def test_the_verifier_is_served(log: Harness) -> None:
    text = await log.get("/v1/log/verifier")
    scope: dict[str, Any] = {"__name__": "served"}
    exec(compile(text, "verify.py", "exec"), scope)
    lines = (await log.get("/v1/log/export")).encode().splitlines(keepends=True)
    assert scope["verify_export"](lines, (await log.get("/keys")).splitlines()[0]).ok


# What somebody with full power over the database may try, and the entry where it must be found.
FLIP = "set leaf = set_byte(leaf, length(leaf) - 2, get_byte(leaf, length(leaf) - 2) # 1)"
REHASH = "update audit.entry set leaf_hash = sha256('\\x00'::bytea || leaf)"
TAMPERING: dict[str, tuple[list[str], int]] = {
    "first": ([f"update audit.entry {FLIP} where index = 0"], 0),
    "middle": ([f"update audit.entry {FLIP} where index = 4"], 4),
    "second last": ([f"update audit.entry {FLIP} where index = 7"], 7),
    "last": ([f"update audit.entry {FLIP} where index = 8"], 8),
    "leaf hash": (["update audit.entry set leaf_hash = set_byte(leaf_hash, 0, 1) where index = 3"], 3),
    "bytes and hash, under the first checkpoint": ([f"update audit.entry {FLIP} where index = 2", REHASH], 2),
    "bytes and hash, under the last": ([f"update audit.entry {FLIP} where index = 8", REHASH], 8),
    "column": (["update audit.entry set kafka_offset = kafka_offset + 1 where index = 6"], 6),
    "recorded": (["update audit.entry set recorded_at = recorded_at - interval '1 hour' where index = 6"], 6),
    "removed": (["delete from audit.entry where index = 5"], 5),
    "truncated": (["delete from audit.entry where index >= 7"], 7),
    "emptied": (["delete from audit.entry"], 0),
    "swapped": (
        [
            "update audit.entry set index = 100 where index = 3",
            "update audit.entry set index = 3 where index = 6",
            "update audit.entry set index = 6 where index = 100",
        ],
        0,
    ),
    "moved up": (
        ["delete from audit.entry where index = 3", "update audit.entry set index = index - 1 where index > 3"],
        0,
    ),
}


@pytest.mark.parametrize("name", TAMPERING)
async def test_tampering_with_the_database_is_found(log: Harness, name: str) -> None:
    statements, index = TAMPERING[name]
    await log.tamper(*statements)
    verdict = await log.get("/v1/log/verify")
    assert verdict["ok"] is False
    # A change that also fixes its own hash is found between two checkpoints.
    spread = 5 if name.startswith("bytes and hash") or name == "moved up" or name == "swapped" else 1
    assert verdict["first_bad"]["index"] <= index < verdict["first_bad"]["index"] + spread, verdict
    assert name == "column" or name == "recorded" or not (await exported(log)).ok


async def test_a_changed_checkpoint_is_found(log: Harness) -> None:
    await log.tamper(
        "update audit.checkpoint set root = set_byte(root, 0, 1) where size = 5",
    )
    verdict = await log.get("/v1/log/verify")
    assert (verdict["ok"], verdict["first_bad"]["index"]) == (False, 0)


@pytest.mark.parametrize(
    "change",
    [
        "set root = set_byte(root, 0, 1)",
        "set size = 5",
        "set size = 5, root = (select root from audit.checkpoint where size = 5)",
    ],
)
async def test_two_roots_are_never_signed_for_one_size(log: Harness, change: str) -> None:
    note = await log.get("/checkpoint")
    await log.tamper(f"update audit.tree_head {change}")
    with pytest.raises(Contradiction):
        await publisher(log).current()
    assert await log.status("/v1/log/inclusion?index=9", "auditors") == 500
    assert (await log.get("/v1/log/verify"))["ok"] is False
    # What was published stays published, and nothing else is.
    assert await log.get("/checkpoint") == note
    assert len(await log.rows(tables.checkpoint)) == 2


def publisher(log: Harness, publish_seconds: float = 0) -> Publisher:
    """Another process's."""
    events = EventLog(tables.mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    signer = signer_of(log.settings)
    return Publisher(
        log.db,
        events,
        log.archive,
        signer,
        every_seconds=0.1,
        publish_seconds=publish_seconds,
        former_keys=log.settings.checkpoint_former_keys,
    )


async def test_checkpoints_are_announced_at_most_once_per_interval(audit: Harness) -> None:
    slow, fast = publisher(audit, publish_seconds=3600), publisher(audit)
    for envelope in story()[:4]:
        await audit.ledger.append([record(envelope)])
        for _ in range(2):
            await slow.announce(await slow.current())
    assert [p.size for p in await published(audit)] == [1]
    for _ in range(2):
        await fast.announce(await fast.current())
    sizes = await published(audit)
    assert [p.size for p in sizes] == [1, 4]
    assert b64decode(sizes[1].root) == (await audit.rows(tables.tree_head))[0]["root"]


async def test_the_log_does_not_feed_itself(audit: Harness) -> None:
    """The event that announces a checkpoint becomes an entry: that alone is nothing to announce."""
    await audit.ledger.append([record(story()[0])])
    one = publisher(audit)
    await one.announce(await one.current())
    (row,) = [row for row in await audit.rows(tables.mechanism.outbox) if row["topic"] == AUDIT_EVENTS.name]
    headers = tuple((name, value.encode()) for name, value in row["headers"])
    own = Envelope.from_kafka(row["key"], headers, row["value"])
    assert (await audit.ledger.append([record(own, topic=AUDIT_EVENTS.name)]))[0].flaw is None
    await one.announce(await one.current())
    assert [p.size for p in await published(audit)] == [1]
    await audit.ledger.append([record(story()[1])])
    await one.announce(await one.current())
    assert [p.size for p in await published(audit)] == [1, 3]


async def published(audit: Harness) -> list[CheckpointPublished]:
    rows = await audit.rows(tables.mechanism.event)
    return [CheckpointPublished.model_validate_json(r["data"]) for r in rows if r["type"] == CheckpointPublished.TYPE]


async def accesses(audit: Harness) -> list[AccessRecorded]:
    rows = await audit.rows(tables.mechanism.event)
    return [AccessRecorded.model_validate_json(r["data"]) for r in rows if r["type"] == AccessRecorded.TYPE]


@pytest.mark.parametrize("path", LOG_PATHS)
async def test_who_reads_the_log_is_recorded(log: Harness, path: str) -> None:
    await log.get(f"/v1/log/{path}")
    assert await log.status(f"/v1/log/{path}", "ml-engineers") == 403
    assert await log.status(f"/v1/log/{path}", "local-auditors") == 403
    query = f"GET /v1/log/{path}"
    assert await accesses(log) == [
        AccessRecorded(principal="aud", query=query, outcome="allowed"),
        AccessRecorded(principal="eve", query=query, outcome="denied"),
        AccessRecorded(principal="eve", query=query, outcome="denied"),
    ]
    async with log.db.snapshot() as tx:
        topics = set(await tx.scalars(sa.select(tables.mechanism.outbox.c.topic)))
    assert topics == {AUDIT_EVENTS.name}


async def test_who_may_read_what(log: Harness) -> None:
    assert await log.status("/v1/timeline?model=fraud", "ml-engineers") == 200
    assert await log.status("/v1/models/fraud/production", "ml-engineers") == 200
    assert await log.status("/v1/timeline?workspace=other", "ml-engineers") == 403
    assert await log.status("/v1/models/fraud/production?workspace=other", "ml-engineers") == 403
    assert await log.status("/v1/timeline?workspace=*", "ml-engineers") == 403
    assert await log.status("/v1/timeline?workspace=*", "local-auditors") == 403
    assert await log.status("/v1/timeline?workspace=*", "auditors") == 200
    assert await log.status("/v1/timeline", "strangers") == 403
    async with log.client() as client:
        del client.headers["authorization"]
        for path in ("/v1/timeline", "/v1/models/fraud/production", "/v1/log/entries"):
            assert (await client.get(path)).status_code == 401
        for path in ("/checkpoint", "/keys", "/v1/log/verifier"):
            assert (await client.get(path)).status_code == 200


async def test_a_token_of_a_command_is_nowhere_in_the_database_or_the_export(audit: Harness) -> None:
    sent = record(story()[0])
    secret = b"Bearer eyJhbGciOiJFZERTQSJ9.very-secret"
    headers = (*sent.headers, ("Authorization", secret))
    await audit.ledger.append([record(story()[0], headers=headers), record(story()[1], headers=headers, value=b"bad")])
    text = await audit.get("/v1/log/export")
    leaves = [b64decode(json.loads(line)["leaf"]) for line in text.splitlines()[1:]]
    assert not any(b"secret" in leaf for leaf in leaves)
    for table in tables.Table.metadata.tables.values():
        assert "secret" not in repr(await audit.rows(table))


async def test_proofs_under_the_newest_checkpoint_need_nobody_else(log: Harness) -> None:
    """The store is away: what is covered is proved, what is not has to wait."""
    before = [await log.get(f"/v1/log/{path}") for path in ("inclusion?index=8", "consistency?from=2")]
    await log.ledger.append([record(event(registered(1, "later"), 1))])
    log.made = audit_app.build(log.settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:1"}))
    assert [await log.get(f"/v1/log/{path}") for path in ("inclusion?index=8", "consistency?from=2")] == before
    with pytest.raises(HTTPError):
        await log.status("/v1/log/inclusion?index=9", "auditors")


async def test_everything_is_checked_once_at_a_time(log: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on, everything = asyncio.Event(), asyncio.Event(), Check.everything

    async def slow(self: Check, published: Published) -> Any:
        inside.set()
        await go_on.wait()
        return await everything(self, published)

    monkeypatch.setattr(Check, "everything", slow)
    first = asyncio.create_task(log.get("/v1/log/verify"))
    await inside.wait()
    assert await log.status("/v1/log/verify", "auditors") == 409
    go_on.set()
    assert (await first)["ok"] is True
    assert (await log.get("/v1/log/verify"))["ok"] is True


async def test_a_checkpoint_at_the_end_of_a_page_is_checked(audit: Harness) -> None:
    for start, count in ((0, 256), (256, 4)):
        await audit.ledger.ledger.append(
            [record(event(registered(1, f"m{n}"), 1)) for n in range(start, start + count)]
        )
        await publisher(audit).current()
    await audit.tamper("update audit.checkpoint set root = sha256('x') where size = 256")
    found = await audit.get("/v1/log/verify")
    assert (found["ok"], found["first_bad"]["index"]) == (False, 0)
    assert "the root signed for 256" in found["first_bad"]["problem"]
