"""Full text, which follows the timeline and is never in the way of it."""

import asyncio
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa

from audit import app as audit_app
from audit import tables, view_tables
from audit.search import SearchProjection
from contracts.registry import VersionNoted
from kit.migrations import migrate

from .conftest import Harness, event, hours, record, registered, service_url, story
from .signed import Signed
from .test_knowledge import mistaken
from .test_lifecycles import configured, custom
from .test_pages import walk


async def found(audit: Harness, query: str) -> list[int]:
    return [item["index"] for item in (await audit.get(f"/v1/search?{query}"))["items"]]


async def catch_up(audit: Harness, page: int = 1_000) -> int:
    projection, steps = SearchProjection(audit.db, page=page), 0
    while await projection.step():
        steps += 1
    return steps


async def test_words_and_parts_of_ids(audit: Harness) -> None:
    envelopes = story()
    await audit.ledger.append([record(e) for e in envelopes])
    noted = VersionNoted(workspace="default", model="churn-eu", version=3, text="drift in Köln, 100% sure_ly")
    await audit.ledger.append([record(event(noted, 1))])
    page = await audit.get("/v1/search?q=olga")
    assert (page["items"], page["behind"]) == ([], 10)
    await catch_up(audit)
    assert await found(audit, "q=olga") == [8]
    assert await found(audit, "q=rolled back") == [8]
    assert await found(audit, "q=köln drift") == [9]
    assert await found(audit, "q=drift -köln") == []
    assert await found(audit, f"q={envelopes[3].id[20:]}") == [3]
    assert await found(audit, "q=hurn-e") == [9]
    assert await found(audit, "q=churn-eu&model=fraud") == []
    assert await found(audit, "q=%25%25") == []
    assert await found(audit, "q=fraud&since=2026-11-20T18:00:00Z") == [8, 7]
    assert (await audit.get("/v1/search?q=fraud"))["behind"] == 0


async def test_pages_go_from_the_newest_back_in_one_tree(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    await catch_up(audit)
    new = iter(range(10, 1_000))

    async def grow() -> None:
        n = next(new)
        await audit.ledger.append([record(event(registered(n), n, at=hours(n)))])
        await catch_up(audit)

    items, sizes = await walk(audit, "/v1/search?q=fraud", grow)
    assert [item["index"] for item in items] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert sizes == {9}


async def test_what_is_told_anew_is_found_anew(audit: Harness, tmp_path: Path) -> None:
    signed = Signed(audit, tmp_path)
    back = event(mistaken(), 10, at=hours(6))
    await signed.tell(*custom(signed), back)
    await catch_up(audit, page=3)
    assert 10 in await found(audit, "q=moved QA Live")
    await signed.tell(event(configured(qa_gated=True), 2, at=hours(5)))
    await catch_up(audit, page=3)
    assert 10 not in await found(audit, "q=moved QA Live")
    assert await found(audit, "q=signed decision open") == [10]


async def test_pages_of_any_size_and_two_followers_give_the_same(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    await catch_up(audit)
    whole = await audit.rows(view_tables.search_entry)
    assert len(whole) == 9
    async with audit.db.transaction() as tx:
        await tx.execute(sa.delete(view_tables.search_entry))
        await tx.execute(sa.update(tables.follower).where(tables.follower.c.name == "search").values(next=0))
    followers = [SearchProjection(audit.db, page=2) for _ in range(3)]

    async def follow(projection: SearchProjection) -> None:
        while await projection.step():
            pass

    await asyncio.gather(*map(follow, followers))
    assert await audit.rows(view_tables.search_entry) == whole
    assert await followers[0].lag() == 0


async def test_rights_and_bad_questions(audit: Harness) -> None:
    assert await audit.status("/v1/search?q=fraud&workspace=*", "ml-engineers") == 403
    assert await audit.status("/v1/search?q=fraud", "strangers") == 403
    for query in ("", "q=a", "q=%00%00", "q=ab&limit=0", "q=ab&after=x", f"q={'x' * 201}"):
        assert await audit.status(f"/v1/search?{query}", "auditors") == 422
    hard: list[Any] = ["'\"&|!():*", "%25_\\", "a" * 200]
    for text in hard:
        assert await audit.status(f"/v1/search?q={text.replace('&', '%26')}", "auditors") == 200


async def test_without_pg_trgm_the_tables_are_made_all_the_same(
    infra_postgres: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the extension parts of names are found by reading every row, and the migration says so."""
    scripts = shutil.copytree(Path(audit_app.__file__).parent / "migrations", tmp_path / "migrations")
    made = scripts / "versions" / "0006_questions.py"
    made.write_text(made.read_text().replace("exists pg_trgm", "exists no_such_extension"))
    name = f"t_{uuid4().hex[:12]}"
    url = urlsplit(infra_postgres)._replace(path=f"/{name}").geturl()
    admin = await asyncpg.connect(infra_postgres)
    try:
        await admin.execute(f"create database {name}")
        await asyncio.to_thread(migrate, "audit", scripts, database_url=service_url(url), admin_database_url=url)
        database = await asyncpg.connect(url)
        indexes = {row[0] for row in await database.fetch("select indexname from pg_indexes where schemaname='audit'")}
        await database.close()
    finally:
        await admin.execute(f"drop database if exists {name} with (force)")
        await admin.close()
    assert "ix_search_entry_words" in indexes
    assert "ix_search_entry_names" not in indexes
    assert "pg_trgm is not available" in caplog.text
