"""The collector: what nobody references goes, what any version references stays, also while versions are registered."""

import asyncio
import io
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
import structlog
from fastapi import FastAPI
from tests.integration.registry.artifact_support import (
    MIB,
    World,
    digest_of,
    directory,
    registry_database,
    single,
    store_on,
)
from tests.support.waiting import until

from embedded import s3
from embedded.fixtures import S3
from kit.db import Database, Signal
from kit.main import run
from kit.problems import Problem
from registry import collect as collect_module
from registry import offers
from registry.artifacts import Artifacts
from registry.collect import COMMAND, Report, collect, human
from registry.places import blob_key, lock_of, share, upload_key
from registry.settings import RegistrySettings

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def database_url(infra_postgres: str) -> Iterator[str]:
    with registry_database(infra_postgres) as url:
        yield url


@pytest_asyncio.fixture
async def world(database_url: str, infra_s3: S3, bucket: str) -> AsyncIterator[World]:
    db = Database(database_url, name="test", pool=20)
    store = store_on(infra_s3, bucket)
    yield World(db, store, Artifacts(db, store))
    await db.close()


async def later(world: World, *, dry_run: bool = False, hours: float = 25) -> Report:
    """The collector, some hours from now."""
    now = datetime.now(UTC) + timedelta(hours=hours)
    return await collect(world.db, world.store, older_than=DAY, dry_run=dry_run, now=now)


async def litter(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """One of everything that may go; gives their keys by kind."""
    monkeypatch.setattr(offers, "SINGLE_MAX", 6 * MIB)
    monkeypatch.setattr(offers, "PART_SIZE", 5 * MIB)
    upload, large, aside, bad = os.urandom(10), os.urandom(7 * MIB), os.urandom(20), os.urandom(30)
    await world.upload(upload, aside)
    part = await world.offer(large)
    await world.send(part, large, [1])
    copy = await world.artifacts.set_aside(single(aside).parts()[0], "ana")
    # A version of two files: one was kept already when the other turned out to be wrong.
    await world.upload(bad, bad[1:])
    rejected = directory(good=bad, wrong=bad[1:])
    version = await world.register(rejected)
    kept = await world.artifacts.set_aside(rejected.parts()[0], "ana")
    await world.artifacts.keep(kept, digest_of(bad))
    await world.artifacts.discard(kept)
    await world.reject(version)
    return {
        "upload": {upload_key(digest_of(data), "ana") for data in (upload, aside, bad, bad[1:])},
        "multipart": {upload_key(digest_of(large), "ana")},
        "aside": {copy.key},
        "blob": {blob_key(digest_of(bad))},
    }


def by_kind(report: Report) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for item in report.items:
        found.setdefault(item.kind, set()).add(item.key)
    return found


async def test_what_nobody_references_goes_once_it_is_old(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, pending = await world.ready(os.urandom(40), os.urandom(41)), os.urandom(50)
    await world.upload(pending)
    await world.register(single(pending))
    rubbish = await litter(world, monkeypatch)
    everything = await world.keys()

    young = await later(world, hours=23)
    assert young.items == []
    assert young.looked_at > 0
    rehearsal = await later(world, dry_run=True)
    assert by_kind(rehearsal) == rubbish
    assert await world.keys() == everything
    assert len(await world.store.unfinished("")) == 1

    done = await later(world)
    assert by_kind(done) == rubbish
    assert done.totals()["multipart"] == {"objects": 1, "bytes": 5 * MIB}
    assert await world.keys() == {
        *(blob_key(part.digest) for part in ready.parts()),
        upload_key(digest_of(pending), "ana"),
    }
    assert await world.store.unfinished("") == []
    assert (await later(world)).items == []


async def test_a_blob_stays_as_long_as_one_version_holds_it(world: World) -> None:
    data = os.urandom(30)
    await world.upload(data, data[1:])
    two = directory(a=data, b=data[1:])
    rejected = await world.register(two, "first")
    held = await world.register(single(data), "second")
    await world.verify(single(data), held, "second")
    await world.reject(rejected, "first")
    await later(world)
    assert blob_key(digest_of(data)) in await world.keys()


async def test_an_upload_that_goes_on_is_not_abandoned(
    world: World, monkeypatch: pytest.MonkeyPatch, infra_s3: S3
) -> None:
    monkeypatch.setattr(offers, "SINGLE_MAX", 1)
    offer = await world.offer(b"some bytes")
    start = datetime.now(UTC)
    # S3 counts in seconds: a part of the next one is younger than the beginning.
    await until(lambda: datetime.now(UTC).replace(microsecond=0) > start + timedelta(seconds=1))
    await world.send(offer, b"some bytes")
    between = start + timedelta(seconds=1)
    report = await collect(world.db, world.store, older_than=timedelta(0), dry_run=False, now=between)
    assert report.items == []
    report = await collect(world.db, world.store, older_than=timedelta(0), dry_run=False, now=between + DAY)
    assert by_kind(report) == {"multipart": {upload_key(offer.digest, "ana")}}


async def test_bytes_that_are_being_registered_are_left_alone(world: World) -> None:
    data = os.urandom(60)
    await world.upload(data)
    async with world.db.transaction() as tx:
        await world.artifacts.claim(tx, single(data), "ana")
        report = await later(world)  # between the claim and the commit: it neither deletes nor waits
        assert (report.busy, report.items) == (1, [])
        await world.registered(tx, single(data))
    assert (await later(world)).items == []
    await world.verify(single(data), 1)
    assert httpx2.get(world.artifacts.download_url(digest_of(data))).content == data


async def test_a_registration_that_comes_too_late_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim waits while the collector decides; then the bytes are gone, and it says so."""
    data = os.urandom(60)
    await world.upload(data)
    asked, go = asyncio.Event(), asyncio.Event()
    needed = collect_module._needed

    async def slowly(*given: object) -> set[str]:
        found = await needed(*given)  # type: ignore[arg-type]
        asked.set()
        await go.wait()
        return found

    monkeypatch.setattr(collect_module, "_needed", slowly)
    collecting = asyncio.create_task(later(world))
    await asyncio.wait_for(asked.wait(), 10)
    registering = asyncio.create_task(world.register(single(data)))
    await waits_for_a_lock(world)
    go.set()
    assert len((await collecting).items) == 1
    with pytest.raises(Problem) as caught:
        await registering
    assert caught.value.code == "artifact-missing"


async def waits_for_a_lock(world: World) -> None:
    query = sa.text("select count(*) from pg_locks where locktype = 'advisory' and not granted")

    async def waiting() -> object:
        async with world.db.transaction() as tx:
            return await tx.scalar(query)

    await until(waiting)


async def test_bytes_uploaded_again_meanwhile_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(60)
    await world.upload(data)
    key = upload_key(digest_of(data), "ana")
    old = await world.store.stat(key)
    assert old is not None
    stat = world.store.stat

    async def fresh(key: str, *, bucket: str | None = None) -> object:
        found = await stat(key, bucket=bucket)
        return found and type(found)(found.key, found.size, datetime.now(UTC) + 2 * DAY)

    monkeypatch.setattr(world.store, "stat", fresh)
    assert (await later(world)).items == []
    assert await world.keys() == {key}


async def test_no_version_ever_loses_its_bytes_to_a_race(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations and collectors at once; everything is always old enough. Goes on until both have won and lost."""

    async def none(_: object) -> None:
        """Old enough is here also the copy of a moment ago, which verification would have to make again."""

    monkeypatch.setattr(collect_module._Run, "asides", none)
    registered: list[bytes] = []
    refused: set[str] = set()
    collected: set[str] = set()
    passing, stop = Signal(), asyncio.Event()

    async def gather() -> None:
        while not stop.is_set():
            passing.set()
            collected.update(item.key for item in (await later(world)).items)

    async def register(number: int) -> None:
        data = os.urandom(100)
        await world.upload(data)
        for _ in range(number % 3):
            await passing.wait(5)
        try:
            version = await world.register(single(data), f"m{number}")
        except Problem as error:
            assert error.code == "artifact-missing"
            refused.add(upload_key(digest_of(data), "ana"))
            return
        registered.append(data)
        if number % 2:
            await world.verify(single(data), version, f"m{number}")

    collectors = [asyncio.create_task(gather()) for _ in range(2)]
    async with asyncio.timeout(100):
        for start in range(0, 10_000, 8):
            await asyncio.gather(*(register(number) for number in range(start, start + 8)))
            if start >= 64 and len(refused) >= 3 and len(registered) >= 20:
                break
    stop.set()
    await asyncio.gather(*collectors)
    # Nothing else was there to collect but the uploads of what was verified a moment before.
    assert refused <= collected <= refused | {upload_key(digest_of(data), "ana") for data in registered}
    for data in registered:  # verified or still to be verified: there either way
        aside = await world.artifacts.set_aside(single(data).parts()[0], "ana")
        assert httpx2.get(world.artifacts.url(aside)).content == data
    print(f"{len(registered)} registered, {len(refused)} refused")


async def test_a_busy_lock_is_shared_by_registrations(world: World) -> None:
    lock = lock_of(digest_of(b"x"))
    async with world.db.transaction() as first, world.db.transaction() as second:
        await first.execute(share(lock))
        await asyncio.wait_for(second.execute(share(lock)), 5)


def test_locks_are_few_and_every_digest_has_one() -> None:
    assert {lock_of(f"sha256:{n:02x}{'0' * 62}") for n in range(256)} == set(range(64))


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")])
def test_sizes_for_people(size: int, text: str) -> None:
    assert human(size) == text


# -- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(database_url: str, infra_s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    given = {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "AUTH_JWKS": "unused",
        "ACCESS_FILE": str(tmp_path / "unused"),
        "DECISION_JWKS": "unused",
        "SERVING_KEY": str(tmp_path / "unused"),
        "S3_ENDPOINT": infra_s3.endpoint,
        "S3_ACCESS_KEY": infra_s3.access_key,
        "S3_SECRET_KEY": infra_s3.secret_key,
        "S3_BUCKET": bucket,
    }
    for name, value in given.items():
        monkeypatch.setenv(f"HALLMARK_{name}", value)
    return infra_s3


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    def nothing(_: RegistrySettings) -> FastAPI:
        raise AssertionError("collect needs no application")

    monkeypatch.setattr(sys, "argv", ["registry", "collect", *arguments])
    handlers = list(logging.root.handlers)
    try:
        with pytest.raises(SystemExit) as ended:
            run("registry", RegistrySettings, nothing, commands=[COMMAND])
    finally:
        # A process of its own would end here; in this one, later tests must not log into what was captured.
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
        logging.root.handlers[:] = handlers
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_says_what_goes(
    environment: S3, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    raw = s3.client(environment.endpoint, environment.access_key, environment.secret_key)
    key = upload_key(digest_of(b"left over"), "ana")
    raw.put_object(bucket, key, io.BytesIO(b"left over"), 9)

    assert command(monkeypatch, "--json") == 0
    assert json.loads(capsys.readouterr().out)["items"] == []  # it is of today
    monkeypatch.setattr(collect_module, "datetime", Tomorrow)
    assert command(monkeypatch, "--dry-run") == 0
    said = capsys.readouterr().out
    assert f"would go: upload {key}, 9 B" in said
    assert "1 looked at, 1 collected, 9 B would be freed, 0 busy" in said
    assert command(monkeypatch, "--older-than", "24h", "--json") == 0
    out, err = capsys.readouterr()
    assert f"gone: upload {key}" in err
    document = json.loads(out)
    assert (document["dry_run"], document["totals"]) == (False, {"upload": {"objects": 1, "bytes": 9}})
    assert not list(raw.list_objects(bucket, recursive=True))


class Tomorrow(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + 2 * DAY


@pytest.mark.parametrize("age", ["59m", "1", "h", "-1h", "soon"])
def test_an_age_that_makes_no_sense_is_refused(
    environment: S3, age: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, f"--older-than={age}") == 2
    assert "--older-than" in capsys.readouterr().err
