"""Publishing: tiles before checkpoints, one root for a size, and nothing lost wherever the publisher dies."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minio.error import S3Error
from tests.support.authority import LocalAuthority
from tests.support.tiles import assert_published
from tests.support.waiting import until
from tests.support.witness import LocalWitness

from audit import app as audit_app
from audit import tables
from audit.note import open_note, parse_vkey, verify_note
from audit.settings import AuditSettings, WitnessAddress
from audit.tlog.archive import Contradiction
from audit.tlog.attesting import stamp_key
from audit.tlog.publisher import Publisher
from audit.tlog.stamps import Authority, read_stamp
from contracts.envelope import now
from contracts.notifier import SubscriptionRemoved
from contracts.topics import NOTIFIER_EVENTS
from kit.bus import Record
from kit.keys import ensure_key

from .conftest import Harness, event, record
from .test_log import publisher

STEP = int(os.environ.get("HALLMARK_KILL_STEP", "17"))  # 1: every await
# Entries between two kills. With more for each step, what there is to publish would outgrow the steps for ever.
GROWTH = -(-41 * STEP // 9)


def some(start: int, count: int) -> list[Record]:
    """Plain records at their own offsets."""
    message = SubscriptionRemoved(subscription_id="s", removed_by="ana")
    return [record(event(message, n + 1), topic=NOTIFIER_EVENTS.name, offset=n) for n in range(start, start + count)]


@pytest.mark.parametrize("sizes", [[0], [1], [255, 256, 257], [512], [300, 900, 901]])
async def test_what_is_published_adds_up(audit: Harness, sizes: list[int]) -> None:
    at = 0
    for size in sizes:
        await audit.ledger.ledger.append(some(at, size - at))
        at = size
        published = await publisher(audit).current()
        assert published.checkpoint.size == size
        assert await assert_published(audit.archive.read) == size
        assert await audit.get("/checkpoint") == published.note
        verdict = await audit.get("/v1/log/verify")
        assert verdict["ok"], verdict


async def test_partial_tiles_go_when_the_full_ones_are_there(audit: Harness) -> None:
    one = publisher(audit)
    for start, count in ((0, 200), (200, 50), (250, 10)):
        await audit.ledger.ledger.append(some(start, count))
        await one.current()
    keys = {item.key async for item in audit.archive.store.objects("tile/")}
    # Those of the present size, and those of earlier sizes whose full tiles are not there yet.
    assert keys == {
        *("tile/entries/000", "tile/0/000", "tile/entries/001.p/4", "tile/0/001.p/4", "tile/1/000.p/1"),
    }


async def test_partial_tiles_of_what_never_became_a_checkpoint_go_too(
    audit: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = publisher(audit)

    async def away(*_: Any) -> Any:
        raise ConnectionError("the signer is away")

    for start, count in ((0, 200), (200, 100), (300, 7)):
        with monkeypatch.context() as patched:
            patched.setattr(one, "_signed", away)
            await audit.ledger.ledger.append(some(start, count))
            with pytest.raises(ConnectionError):
                await one.current()
    await audit.ledger.ledger.append(some(307, 213))
    await one.current()
    keys = {item.key async for item in audit.archive.store.objects("tile/")}
    assert {key for key in keys if ".p/" in key} >= {"tile/0/002.p/8", "tile/entries/002.p/8", "tile/1/000.p/2"}
    assert not [key for key in keys if key.startswith(("tile/0/000.p", "tile/0/001.p", "tile/entries/001.p"))]


async def test_tiles_are_served_as_they_lie_in_the_store(audit: Harness) -> None:
    await audit.ledger.ledger.append(some(0, 300))
    await publisher(audit).current()
    async with audit.client() as client:
        for path in ("tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"):
            answer = await client.get(f"/{path}")
            assert answer.status_code == 200, path
            assert answer.content == await audit.archive.read(path)
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        for path in ("tile/0/001", "tile/0/001.p/43", "tile/2/000", "tile/0/1", "tile/0/000.p/256", "tile/", "tile/x"):
            assert (await client.get(f"/{path}")).status_code == 404, path
        note = await client.get("/checkpoint")
        assert note.headers["content-type"] == "text/plain; charset=utf-8"
        assert note.headers["cache-control"] == "no-cache"
    assert await audit.status("/tile/0/000", "ml-engineers") == 403
    assert await audit.status("/tile/entries/000", "ml-engineers") == 403
    async with audit.client() as client:
        del client.headers["authorization"]
        assert (await client.get("/tile/entries/000")).status_code == 401


async def test_a_public_log_is_served_to_everybody(audit: Harness) -> None:
    await audit.ledger.ledger.append(some(0, 3))
    await publisher(audit).current()
    audit.made = audit_app.build(audit.settings.model_copy(update={"log_public": True}))
    async with audit.client() as client:
        del client.headers["authorization"]
        answer = await client.get("/tile/entries/000.p/3")
        assert (answer.status_code, "public" in answer.headers["cache-control"]) == (200, True)
        assert (await client.get("/v1/log/entries")).status_code == 401


async def test_publishers_side_by_side_tell_one_history(audit: Harness) -> None:
    """Replicas: each signs what it sees, all the time, while the log grows."""
    several = [publisher(audit) for _ in range(3)]
    stop = asyncio.Event()

    async def publish(one: Publisher) -> None:
        while not stop.is_set():
            await one.current()
            await asyncio.sleep(0)

    async def grow() -> None:
        try:
            for start in range(0, 600, 15):
                await audit.ledger.ledger.append(some(start, 15))
        finally:
            stop.set()

    await asyncio.gather(grow(), *(publish(one) for one in several))
    for one in several:
        assert (await one.current()).checkpoint.size == 600
    assert await assert_published(audit.archive.read) == 600
    roots = {(row["size"], row["root"]) for row in await audit.rows(tables.checkpoint)}
    assert len(roots) == len({size for size, _ in roots})
    assert (await audit.get("/v1/log/verify"))["ok"]


async def test_a_database_from_an_older_backup_is_not_signed(audit: Harness) -> None:
    """The tables are as they were before; what was published since says more."""
    await audit.ledger.ledger.append(some(0, 10))
    await publisher(audit).current()
    head = (await audit.rows(tables.tree_head))[0]
    await audit.ledger.ledger.append(some(10, 10))
    await publisher(audit).current()
    note = await audit.archive.checkpoint()
    await restore(audit, head["size"], head["root"], head["frontier"])
    with pytest.raises(Contradiction, match="older backup"):
        await publisher(audit).current()
    # It grows again beyond what was published, with other entries: another history.
    audit.ledger = audit.log()
    await audit.ledger.ledger.append(some(30, 15))
    with pytest.raises(Contradiction, match="another root"):
        await publisher(audit).current()
    assert await audit.archive.checkpoint() == note
    verdict = await audit.get("/v1/log/verify")
    assert verdict["ok"] is False


@pytest.mark.parametrize("dies", [False, True])
async def test_a_checkpoint_that_is_set_back_with_the_database_is_found_out(
    audit: Harness, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """Database and `checkpoint` are as they were; that more was signed can be read from what nobody can change, also
    when the one that signed it came no further."""
    await audit.ledger.ledger.append(some(0, 10))
    other = publisher(audit)
    await other.current()
    head, before = (await audit.rows(tables.tree_head))[0], await audit.archive.checkpoint()
    await audit.ledger.ledger.append(some(10, 10))
    keep_first = audit.archive.keep_first

    async def dying(*given: Any, **options: Any) -> bytes:
        await keep_first(*given, **options)
        raise ConnectionError("killed")

    with monkeypatch.context() as patched, pytest.raises(ConnectionError) if dies else nullcontext():
        if dies:
            patched.setattr(audit.archive, "keep_first", dying)
        await publisher(audit).current()
    await restore(audit, head["size"], head["root"], head["frontier"])
    assert before is not None
    await audit.archive.store.put("checkpoint", before[0].encode(), {})
    with pytest.raises(Contradiction, match="older backup"):
        await publisher(audit).current()
    audit.ledger = audit.log()
    await audit.ledger.ledger.append(some(30, 15))
    # A process that has published before, and believes what it remembers, looks too.
    for one in (publisher(audit), other):
        with pytest.raises(Contradiction, match="another root"):
            await one.current()
    assert await audit.archive.checkpoint() is not None
    assert [row["size"] for row in await audit.rows(tables.checkpoint)] == [10]


async def restore(audit: Harness, size: int, root: bytes, frontier: bytes) -> None:
    await audit.tamper(
        f"delete from audit.entry where index >= {size}",
        f"delete from audit.checkpoint where size > {size}",
        f"update audit.tree_head set size = {size}, root = '\\x{root.hex()}', frontier = '\\x{frontier.hex()}'",
        f"update audit.kafka_offset set next = {size}, entries = {size}",
    )


async def test_other_bytes_in_the_store_stop_the_publisher(audit: Harness) -> None:
    """Somebody was there first, with a tile of his own."""
    await audit.ledger.ledger.append(some(0, 300))
    await audit.archive.store.put("tile/0/000", b"x" * 8192, {})
    with pytest.raises(Contradiction, match="tile/0/000"):
        await publisher(audit).current()
    assert await audit.archive.checkpoint() is None
    assert await audit.rows(tables.checkpoint) == []
    await audit.archive.store.put("sizes/!", b"", {})
    with pytest.raises(Contradiction, match="sizes/!"):
        await publisher(audit).current()


@pytest.mark.parametrize("told", [True, False])
async def test_a_new_key_goes_on_where_the_old_one_ended(audit: Harness, tmp_path: Path, told: bool) -> None:
    await audit.ledger.ledger.append(some(0, 3))
    old = publisher(audit).vkeys
    before = await publisher(audit).current()
    ensure_key(tmp_path / "new", "checkpoint")
    changed: dict[str, Any] = {"checkpoint_key": tmp_path / "new" / "checkpoint.jwk", "checkpoint_mldsa_key": None}
    changed["checkpoint_former_keys"] = tuple(old) if told else ()
    audit.settings = audit.settings.model_copy(update=changed)
    await audit.ledger.ledger.append(some(3, 3))
    new = publisher(audit)
    if not told:
        with pytest.raises(Contradiction, match="none of this log's"):
            await new.current()
        return
    after = await new.current()
    assert open_note(after.note, *new.vkeys).size == 6
    assert open_note(before.note, *old).size == 3
    assert new.vkeys[0] != old[0]


async def test_the_service_publishes_by_itself(audit: Harness) -> None:
    task = asyncio.create_task(publisher(audit).run())
    try:
        for size in (5, 10):
            await audit.ledger.ledger.append(some(size - 5, 5))

            async def out(wanted: int = size) -> bool:
                found = await audit.archive.checkpoint()
                return found is not None and found[0].split("\n")[1] == str(wanted)

            await until(out, 30)
    finally:
        task.cancel()
    assert await assert_published(audit.archive.read) == 10


async def test_objects_are_locked_where_the_store_can(audit: Harness) -> None:
    bucket = f"{audit.settings.s3_bucket}-locked"
    settings = audit.settings.model_copy(update={"s3_bucket": bucket})
    archive = audit_app.archive_of(settings)
    await archive.ready()
    await archive.ready()
    await archive.keep("tile/0/000", b"x")
    await archive.keep("tile/0/001.p/1", b"x", lock=False)
    client = archive.store._client
    lock = client.get_object_retention(bucket, "tile/0/000")
    assert lock is not None
    assert (lock.mode, lock.retain_until_date > now()) == ("COMPLIANCE", True)
    with pytest.raises(S3Error):
        client.get_object_retention(bucket, "tile/0/001.p/1")
    await archive.keep("tile/0/000", b"x")
    with pytest.raises(Contradiction):
        await archive.keep("tile/0/000", b"y")


@dataclass(frozen=True)
class Attested:
    settings: AuditSettings
    witness: LocalWitness
    authority: LocalAuthority


@pytest.fixture
def attested(audit: Harness, tmp_path: Path) -> Iterator[Attested]:
    witness, authority = LocalWitness("witness.example/w1", *publisher(audit).vkeys), LocalAuthority(tmp_path / "tsa")
    given = {
        "witnesses": (WitnessAddress(url=witness.url, vkey=witness.vkey),),
        "witness_quorum": 1,
        "tsa_url": authority.url,
        "tsa_certificates": authority.roots,
        "attestation_allow": ("127.0.0.0/8",),
    }
    try:
        yield Attested(audit.settings.model_copy(update=given), witness, authority)
    finally:
        authority.stop()
        witness.stop()


def environment(settings: AuditSettings) -> dict[str, str]:
    given = {f"HALLMARK_{name.upper()}": value for name, value in settings.model_dump(exclude_unset=True).items()}
    given["HALLMARK_WITNESSES"] = json.dumps([one.model_dump() for one in settings.witnesses])
    given["HALLMARK_ATTESTATION_ALLOW"] = ",".join(settings.attestation_allow)
    reveal = {name: getattr(value, "get_secret_value", lambda v=value: str(v))() for name, value in given.items()}
    return {**os.environ, **reveal}


@contextmanager
def killable(settings: AuditSettings) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.publishing"],
        env=environment(settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(600 if STEP > 1 else 7200)
async def test_killed_at_every_await_it_leaves_nothing_that_the_next_cannot_finish(
    audit: Harness, attested: Attested
) -> None:
    """SIGKILL at every STEP-th await of a publisher, each with new entries to publish, of a witness and of a time
    stamping authority too. Then all is whole."""
    size, killed, n = 0, 0, 1
    with killable(attested.settings) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            await audit.ledger.ledger.append(some(size, GROWTH))
            size += GROWTH
            process.stdin.write(f"{n}\n")
            answer = (await asyncio.to_thread(process.stdout.readline)).strip()
            assert answer in ("killed", "done")
            # Whatever was published is whole, at any time.
            if killed % 10 == 0 and await audit.archive.checkpoint() is not None:
                assert await assert_published(audit.archive.read) <= size
            if answer == "done":
                break
            killed, n = killed + 1, n + STEP
    assert killed * STEP > 200
    newest = await audit.archive.checkpoint()
    assert newest is not None
    assert attested.witness.vkey in verify_note(newest[0], [parse_vkey(attested.witness.vkey)]).lines
    token = await audit.archive.read(stamp_key(size))
    assert token is not None
    assert read_stamp(token, newest[0], Authority.read(attested.authority.roots.read_bytes()))
    assert await assert_published(audit.archive.read) == size
    roots = {(row["size"], row["root"]) for row in await audit.rows(tables.checkpoint)}
    assert len(roots) == len({size for size, _ in roots})
    assert (await audit.get("/v1/log/verify"))["ok"]
