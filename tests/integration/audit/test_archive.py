"""The Parquet archive by day: what DuckDB reads of it is the log, whoever dies in the middle; nothing is put twice."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyarrow import dataset, fs

from audit import ledger, tables
from audit.note import open_note
from audit.out.archive import DayArchive
from audit.out.dsse import ARCHIVE, unseal
from audit.tlog.archive import Archive, Contradiction
from audit.tlog.publisher import Publisher
from audit.tlog.signing import signer_of
from contracts.topics import AUDIT_EVENTS
from kit.db import Database
from kit.events import EventLog

from .conftest import Harness, event, record, registered

DAY = datetime(2049, 3, 4, 9, tzinfo=UTC)  # later than the beginning of the log, whose time never runs backwards
# The README's; `{files}` is a directory or an address of S3.
[_README_QUERY] = re.findall(r"```sql\n(.*?)```", (Path(__file__).parents[3] / "README.md").read_text(), re.DOTALL)
QUERY = _README_QUERY.replace("DIRECTORY", "{files}").replace("2026-11-20", "2049-03-04")


class Parts:
    """The service's parts of an archive, and what they wrote."""

    def __init__(self, audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.audit, self._patch, self._next = audit, monkeypatch, 0
        self.signer = signer_of(audit.settings)
        self.publisher = self.publisher_of(audit.db, audit.archive)
        self.vkey = self.publisher.vkeys[0]

    def publisher_of(self, db: Database, archive: Archive) -> Publisher:
        events = EventLog(tables.mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
        return Publisher(db, events, archive, self.signer, every_seconds=1, publish_seconds=1)

    def job(self, db: Any = None, archive: Any = None, **options: Any) -> DayArchive:
        given = {"part_rows": 4, **options}
        db, archive = db or self.audit.db, archive or self.audit.archive
        return DayArchive(db, archive, self.publisher, self.signer, **given)

    async def log(self, day: int, count: int) -> None:
        """So many more entries on that day."""
        self._patch.setattr(ledger, "now", lambda: DAY + timedelta(days=day))
        self._patch.setattr(ledger, "MOST_AHEAD", timedelta.max)  # these days are to come
        for _ in range(count):
            self._next += 1
            one = event(registered(self._next), self._next, actor=f"person-{self._next % 3}")
            await self.audit.ledger.append([record(one)])
        await self.publisher.current()

    async def keys(self) -> list[str]:
        return sorted([item.key async for item in self.audit.archive.store.objects("archive/")])

    async def download(self, directory: Path) -> None:
        for key in await self.keys():
            (directory / key).parent.mkdir(parents=True, exist_ok=True)
            (directory / key).write_bytes(await self.audit.archive.read(key) or b"")

    async def manifest(self, day: str) -> dict[str, Any]:
        return unseal(await self.audit.archive.read(f"archive/day={day}/_manifest.json") or b"", ARCHIVE, self.vkey)

    async def follower(self) -> int:
        return next((r["next"] for r in await self.audit.rows(tables.follower) if r["name"] == "archive"), 0)


@pytest.fixture
def parts(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(audit, monkeypatch)


async def drain(job: DayArchive, **options: Any) -> int:
    total = 0
    while count := await job.step(**options):
        total += count
    return total


def query(text: str) -> list[Any]:
    found = duckdb.sql(text)
    assert found is not None
    return found.fetchall()


def leaves(directory: Path) -> list[tuple[int, bytes]]:
    """The archive's own leaves, in order, as DuckDB reads them."""
    files = f"{directory}/archive/day=*/part-*.parquet"
    return query(f"select index, leaf from read_parquet('{files}') order by index")


async def test_complete_days_are_written_and_signed(parts: Parts, tmp_path: Path) -> None:
    await parts.log(0, 6)
    await parts.log(1, 3)
    assert await drain(parts.job()) == 6
    assert await parts.keys() == [
        "archive/day=2049-03-04/_manifest.json",
        "archive/day=2049-03-04/part-000000000000-000000000003.parquet",
        "archive/day=2049-03-04/part-000000000004-000000000005.parquet",
    ]
    await parts.log(3, 1)
    assert await drain(parts.job()) == 3
    manifest = await parts.manifest("2049-03-04")
    assert (manifest["day"], manifest["count"]) == ("2049-03-04", 6)
    assert [(p["first"], p["last"], p["count"]) for p in manifest["parts"]] == [(0, 3, 4), (4, 5, 2)]
    head = manifest["checkpoint"]
    signed = open_note(head["note"], parts.vkey)
    assert (signed.size, signed.root.hex()) == (head["size"], head["root"])
    await parts.download(tmp_path)
    assert leaves(tmp_path) == [(row["index"], row["leaf"]) for row in (await parts.audit.entries())[:9]]


async def test_the_query_of_the_readme_works_on_the_files(parts: Parts, tmp_path: Path) -> None:
    await parts.log(0, 5)
    await parts.log(1, 2)
    await drain(parts.job(), at_once=True)
    await parts.download(tmp_path)
    kind = "hallmark.version.registered.v1"
    assert query(QUERY.format(files=tmp_path)) == [
        (DAY.date(), kind, 5, 3),
        ((DAY + timedelta(days=1)).date(), kind, 2, 2),
    ]


async def test_the_query_works_on_the_store_itself(parts: Parts) -> None:
    """By Arrow, which brings S3 along: DuckDB's own extension `httpfs` has to be fetched first."""
    await parts.log(0, 5)
    await parts.log(1, 2)
    await drain(parts.job(), at_once=True)
    s = parts.audit.settings

    def ask() -> list[Any]:
        store = fs.S3FileSystem(
            access_key=s.s3_access_key.get_secret_value(),
            secret_key=s.s3_secret_key.get_secret_value(),
            endpoint_override=s.s3_endpoint,
            region=s.s3_region,
        )
        days = dataset.partitioning(pa.schema([("day", pa.date32())]), flavor="hive")
        found = dataset.dataset(f"{s.s3_bucket}/archive", filesystem=store, format="parquet", partitioning=days)
        with duckdb.connect() as connection:
            connection.register("archive", found)
            return connection.sql("select day, count(*) from archive group by day order by day").fetchall()

    assert await asyncio.to_thread(ask) == [(DAY.date(), 5), ((DAY + timedelta(days=1)).date(), 2)]


async def test_the_query_of_the_readme_works_on_the_store_where_duckdb_reaches_it(parts: Parts) -> None:
    try:
        duckdb.sql("load httpfs")
    except duckdb.IOException:
        pytest.skip("DuckDB's extension httpfs is not installed here")
    await parts.log(0, 5)
    await drain(parts.job(), at_once=True)
    s = parts.audit.settings
    secret = f"""create secret (type s3, key_id '{s.s3_access_key.get_secret_value()}',
        secret '{s.s3_secret_key.get_secret_value()}', endpoint '{s.s3_endpoint.split("://")[1]}',
        region '{s.s3_region}', url_style 'path', use_ssl false)"""

    def ask() -> list[Any]:
        with duckdb.connect() as connection:
            connection.sql(secret)
            return connection.sql(QUERY.format(files=f"s3://{s.s3_bucket}")).fetchall()

    assert await asyncio.to_thread(ask) == [(DAY.date(), "hallmark.version.registered.v1", 5, 3)]


async def test_anybody_can_hash_the_leaves_again(parts: Parts, tmp_path: Path) -> None:
    await parts.log(0, 5)
    await drain(parts.job(), at_once=True)
    await parts.download(tmp_path)
    found = query(
        f"select count(*), count(*) filter (where sha256(from_hex('00') || leaf) = lower(hex(leaf_hash))) "
        f"from read_parquet('{tmp_path}/archive/day=*/part-*.parquet')"
    )
    assert found == [(5, 5)]


async def test_the_running_day_is_written_at_once_when_asked_for(parts: Parts, tmp_path: Path) -> None:
    job = parts.job()
    await parts.log(0, 3)
    assert await job.step() == 0
    assert await drain(job, at_once=True) == 3
    await parts.log(0, 2)
    assert await drain(parts.job(running_day=True)) == 2
    assert await job.step() == 0
    await parts.log(1, 1)
    assert await drain(job) == 0
    assert [p["count"] for p in (await parts.manifest("2049-03-04"))["parts"]] == [3, 2]
    await parts.download(tmp_path)
    assert [index for index, _ in leaves(tmp_path)] == list(range(5))


async def test_only_what_is_published_is_archived(parts: Parts) -> None:
    await parts.log(0, 2)
    await parts.audit.ledger.append([record(event(registered(90), 90))])
    assert await drain(parts.job(), at_once=True) == 2


class Killed(BaseException):
    """As if the process had been killed there."""


class Fuse:
    """Lets so many calls through, then kills: before the call, or behind it when nobody hears of it any more."""

    def __init__(self, calls: int, *, behind: bool) -> None:
        self.left, self.behind = calls, behind

    def burn(self) -> bool:
        self.left -= 1
        if self.left < 0 and not self.behind:
            raise Killed
        return self.left < 0


class MortalDatabase:
    def __init__(self, db: Database, fuse: Fuse) -> None:
        self._db, self._fuse = db, fuse

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        dies = self._fuse.burn()
        async with self._db.transaction() as tx:
            yield tx
        if dies:
            raise Killed


class MortalArchive(Archive):
    def __init__(self, archive: Archive, fuse: Fuse) -> None:
        super().__init__(archive.store)
        self._fuse = fuse

    async def _mortal(self, work: Callable[[], Any]) -> Any:
        dies = self._fuse.burn()
        found = await work()
        if dies:
            raise Killed
        return found

    async def keep(self, key: str, data: bytes, **options: Any) -> None:
        await self._mortal(lambda: Archive.keep(self, key, data, **options))

    async def read(self, key: str) -> bytes | None:
        found: bytes | None = await self._mortal(lambda: Archive.read(self, key))
        return found


@pytest.mark.parametrize("behind", [False, True])
async def test_killed_anywhere_it_goes_on_and_writes_the_same(parts: Parts, behind: bool, tmp_path: Path) -> None:
    """More entries come between two lives: the part that was begun is finished as it was meant."""
    await parts.log(0, 3)
    lives, day = 0, 0
    for calls in range(60):
        fuse = Fuse(calls % 12, behind=behind)
        job = parts.job(MortalDatabase(parts.audit.db, fuse), MortalArchive(parts.audit.archive, fuse))
        try:
            await drain(job, at_once=True)
        except Killed:
            lives += 1
        if calls % 6 == 5:
            day += calls % 12 == 11
            await parts.log(day, 1)
    assert lives > 20
    await parts.log(day + 1, 1)
    await drain(parts.job())
    await parts.download(tmp_path)
    stored = [(row["index"], row["leaf"]) for row in await parts.audit.entries()]
    assert leaves(tmp_path) == stored[: await parts.follower()]
    assert await parts.follower() == len(stored) - 1
    manifest = await parts.manifest("2049-03-04")
    assert sum(p["count"] for p in manifest["parts"]) == manifest["count"] > 3


async def test_two_writers_side_by_side_write_each_entry_once(parts: Parts, tmp_path: Path) -> None:
    await parts.log(0, 9)
    await parts.log(1, 9)

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(6):
            await parts.job(part_rows=chance.randint(1, 4)).step(at_once=True)

    await asyncio.gather(*(work(seed) for seed in range(3)))
    await drain(parts.job(), at_once=True)
    await parts.download(tmp_path)
    assert [index for index, _ in leaves(tmp_path)] == list(range(18))
    assert (await parts.manifest("2049-03-04"))["count"] == 9


async def test_a_part_of_other_entries_is_never_written_over(parts: Parts) -> None:
    await parts.log(0, 4)
    key = "archive/day=2049-03-04/part-000000000000-000000000003.parquet"
    await parts.audit.archive.keep(key, b"something else")
    with pytest.raises(Contradiction):
        await parts.job().step(at_once=True)
    assert await parts.audit.archive.read(key) == b"something else"
    assert await parts.follower() == 0


async def test_an_entry_that_does_not_fit_its_hash_is_never_put(parts: Parts) -> None:
    await parts.log(0, 2)
    await parts.audit.tamper("update audit.entry set leaf = leaf || 'x' where index = 1")
    with pytest.raises(Contradiction, match="entry 1 does not fit its hash"):
        await parts.job().step(at_once=True)
    assert await parts.keys() == []


async def test_a_part_that_tells_a_problem_otherwise_is_as_good(parts: Parts) -> None:
    """The views may find something between two lives. The entries are the same."""
    await parts.log(0, 4)
    job = parts.job(archive=MortalArchive(parts.audit.archive, Fuse(0, behind=True)))
    with pytest.raises(Killed):
        await job.step(at_once=True)
    assert len(await parts.keys()) == 1
    await parts.audit.execute("update audit.timeline set problem = 'found later'")
    assert await drain(parts.job(), at_once=True) == 4


async def test_a_hole_in_a_day_is_found_before_it_is_signed(parts: Parts) -> None:
    await parts.log(0, 8)
    await parts.log(1, 1)
    await drain(parts.job())
    await parts.audit.archive.delete_under("archive/day=2049-03-04/part-000000000000")
    await parts.audit.archive.delete_under("archive/day=2049-03-04/_manifest")
    await parts.audit.execute("update audit.follower set next = 8 where name like 'archive%'")
    await parts.log(2, 1)
    with pytest.raises(Contradiction):
        await drain(parts.job())
