"""The vault of identities on real PostgreSQL: who gets which pseudonym, what the log learns, what erasure leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
import sqlalchemy as sa
from joserfc.jwk import OKPKey
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.audit.conftest import ACCESS, Harness, people_url, service_url
from tests.support.waiting import until

from audit import tables, view_tables
from audit.access import PERSONAL, PLAIN, TEXTS
from audit.people.keeper import Keeper
from audit.retention.rules import holds_of
from audit.settings import AuditSettings
from contracts.audit import AccessRecorded, PersonKnown, SubjectErased
from contracts.canonical import canonical_json
from contracts.people import is_pseudonym
from contracts.topics import AUDIT_EVENTS
from kit.auth import KeySource, Principal, Verifier
from kit.errors import is_transient
from kit.events import EventLog
from kit.keys import load_key, make_token
from kit.migrations import migrate
from kit.people import People
from kit.problems import Problem
from policy.case import names

Row = dict[str, Any]


@pytest.fixture
def settings(settings: AuditSettings, migrated: str) -> AuditSettings:
    settings.access_file.write_text(ACCESS + "  - {group: admins, role: admin}\n")
    return settings.model_copy(update={"people_database_url": SecretStr(people_url(migrated))})


@pytest.fixture
async def people(settings: AuditSettings) -> AsyncIterator[People]:
    vault = People.of(settings)
    assert vault is not None
    yield vault
    await vault.close()


@pytest.fixture
def key(audit: Harness) -> OKPKey:
    return load_key(audit.directory / "auth.jwk")


def verifier(audit: Harness, people: People) -> Verifier:
    keys = KeySource(str(audit.directory / "auth.jwks.json"))
    return Verifier(keys, issuer="hallmark", audience="hallmark", people=people)


def token(key: OKPKey, subject: str, email: str | None = None, kind: str = "person") -> str:
    return f"Bearer {make_token(key, subject, [], kind=kind, email=email)}"


def keeper(audit: Harness) -> Keeper:
    return Keeper(audit.db, events(), audit.settings.checkpoint_origin)


def events() -> EventLog:
    return EventLog(tables.mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")


async def silent(audit: Harness) -> None:
    """As if nobody had called for a while."""
    await audit.execute("update people.state set last_seen = last_seen - interval '1 hour'")


async def waits(audit: Harness, many: int = 1) -> None:
    """Until so many wait for a lock."""
    waiting = (
        "select count(distinct l.pid) from pg_locks l join pg_database d on d.oid = l.database "
        "where not l.granted and d.datname = current_database()"
    )

    async def enough() -> bool:
        async with audit.db.transaction() as tx:
            return int(await tx.scalar(sa.text(waiting)) or 0) >= many

    await until(enough, what=f"{many} wait for a lock")


async def said(audit: Harness, kind: type[Any]) -> list[Any]:
    rows = await audit.rows(tables.mechanism.event)
    return [kind.model_validate_json(row["data"]) for row in rows if row["type"] == kind.TYPE]


def called(principal: Principal) -> frozenset[str]:
    return names(principal.subject, principal.email)


async def test_who_was_one_person_is_one_and_who_were_two_are_two(audit: Harness, people: People, key: OKPKey) -> None:
    check, other = verifier(audit, people), People.of(audit.settings)
    assert other is not None
    ana = await check.principal(token(key, "ana", "Ana.Lima@corp.example"))
    again = await verifier(audit, other).principal(token(key, "Ana", "ana.lima@CORP.example"))
    await other.close()
    assert [is_pseudonym(name or "") for name in (ana.subject, ana.email)] == [True, True]
    assert (again.subject, again.email) == (ana.subject, ana.email), "two processes must agree, whatever the capitals"
    second = await check.principal(token(key, "al-2", "ana.lima@corp.example"))
    named = await check.principal(token(key, "ana.lima@corp.example"))
    ben = await check.principal(token(key, "ben", "ben@corp.example"))
    assert second.subject != ana.subject
    assert called(second) & called(ana), "one address is one person"
    assert called(named) & called(ana), "so is a subject that is somebody's address"
    assert not called(ben) & (called(ana) | called(second))
    assert await people.stand_in("BEN@corp.example") == ben.email, "a committer is called as their token is"


async def test_a_hundred_first_calls_at_once_agree(audit: Harness, people: People) -> None:
    others = [People.of(audit.settings) for _ in range(3)]
    vaults = [people, *(one for one in others if one)]
    met = await asyncio.gather(
        *(vault.meet(f"p{n % 5}", f"p{n % 5}@x.example", person=True) for n in range(100) for vault in vaults)
    )
    for vault in vaults[1:]:
        await vault.close()
    assert len(set(met)) == 5


async def test_service_accounts_keep_their_names(audit: Harness, people: People, key: OKPKey) -> None:
    check = verifier(audit, people)
    trainer = await check.principal(token(key, "trainer", None, "service"))
    assert (trainer.subject, trainer.kind) == ("trainer", "service")
    for subject, email in (("ben@corp.example", None), ("carla", "carla@corp.example")):
        untold = await check.principal(token(key, subject, email, "service"))
        assert is_pseudonym(untold.subject), "a person whose token does not say that they are one"
        assert (await check.principal(token(key, subject, email))).subject == untold.subject
    ana = await check.principal(token(key, "ana"))
    bot = await check.principal(token(key, "ana", None, "service"))
    assert bot.subject == ana.subject, "a machine that bears a person's name is not called by it"
    with pytest.raises(Problem) as refused:
        await check.principal(token(key, ana.subject, None, "service"))
    assert refused.value.status == 401


async def test_a_vault_that_is_away_is_waited_for_and_what_it_said_holds_a_minute(
    audit: Harness, people: People, key: OKPKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = verifier(audit, people)
    known = await check.principal(token(key, "ana"))
    shut = People("postgresql://hallmark_people:test@127.0.0.1:1/nothing", "hallmark")
    monkeypatch.setattr(people, "_db", shut._db)
    assert (await check.principal(token(key, "ana"))).subject == known.subject
    with pytest.raises(OSError, match="Connect") as failed:
        await verifier(audit, shut).principal(token(key, "ben"))
    await shut.close()
    assert is_transient(failed.value), "so the answer is 503, and a record of Kafka is tried again"
    assert "ben" not in str(failed.value)


async def test_a_name_leaves_memory_when_it_counts_no_more(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.people.KEEP_SECONDS", 0.1)
    await people.meet("ana", None, person=True)
    assert len(people._kept) == 1
    await until(lambda: not people._kept)


async def test_a_service_is_not_ready_without_the_vault(audit: Harness) -> None:
    shut = SecretStr("postgresql://hallmark_people:test@127.0.0.1:1/nothing")
    audit.settings = audit.settings.model_copy(update={"people_database_url": shut})
    async with audit.client("aud") as auditor:
        missing = (await auditor.get("/readyz")).json()["missing"]
    assert [part.partition(":")[0] for part in missing] == ["start-up", "vault"]


async def test_an_error_of_the_vault_names_nobody(audit: Harness, people: People, key: OKPKey) -> None:
    await audit.execute("alter schema people rename to moved")
    with pytest.raises(DBAPIError) as failed:
        await verifier(audit, people).principal(token(key, "ana", "ana@corp.example"))
    assert "people.meet" in str(failed.value)
    assert "ana" not in str(failed.value).replace("transaction", "")


async def test_the_log_commits_to_each_person_once_and_tells_when_the_vault_was_rewritten(
    audit: Harness, people: People
) -> None:
    ana, mail = await people.meet("ana", "ana@corp.example", person=True)
    keeps = keeper(audit)
    assert [await keeps.announce(), await keeps.announce()] == [2, 0]
    shown = await keeps.show(ana)
    assert (shown["name"], shown["person"], shown["addresses"], shown["as_announced"]) == ("ana", True, [mail], True)
    computed = sha256(bytes.fromhex(shown["salt"]) + canonical_json({"issuer": "hallmark", "name": "ana"})).hexdigest()
    announced = {one.pseudonym: one.commitment for one in await said(audit, PersonKnown)}
    assert announced[ana] == shown["commitment"] == f"sha256:{computed}"
    assert "ana" not in json.dumps([str(row["data"]) for row in await audit.rows(tables.mechanism.event)])
    await audit.execute(f"update people.name set written = 'eve' where pseudonym = '{ana}'")
    assert (await keeps.show(ana))["as_announced"] is False


async def test_erasing_somebody(audit: Harness, people: People) -> None:
    ana, mail = await people.meet("ana", "ana@corp.example", person=True)
    shared = (await people.meet("ben", "team@corp.example", person=True))[1]
    await people.meet("ana", "team@corp.example", person=True)
    await silent(audit)
    await people.meet("eve", "team@corp.example", person=True)
    path = f"/v1/people/{ana}"
    async with audit.client("aud") as auditor, audit.client("root", "admins") as admin:
        found = (await auditor.get("/v1/people", params={"subject": "ANA@corp.example"})).json()["items"]
        assert [(one["pseudonym"], one["accounts"]) for one in found] == [(mail, [ana])]
        assert (await auditor.get(path)).json()["addresses"] == sorted([str(mail), str(shared)])
        assert (await auditor.delete(path, params={"reason": "asked"})).status_code == 403
        for reason, code in (("Ana asked for it", "personal-data"), ("ana@corp.example left", "personal-data")):
            refused = await admin.delete(path, params={"reason": reason})
            assert (refused.status_code, refused.json()["type"]) == (422, f"urn:hallmark:problem:{code}")
        erased = await admin.delete(path, params={"reason": "article 17"})
        assert erased.json() == {"pseudonym": ana, "also": [mail], "kept": [shared]}
        assert [(await admin.delete(path, params={"reason": "again"})).status_code for _ in range(2)] == [404, 404]
        assert (await auditor.get(path)).status_code == 404
        assert (await auditor.get("/v1/people", params={"subject": "ana"})).json()["items"] == []
    [event] = await said(audit, SubjectErased)
    assert (event.pseudonym, event.also, event.reason) == (ana, (mail,), "article 17")
    assert {ana, mail} <= {one.pseudonym for one in await said(audit, PersonKnown)}, "announced before they went"
    recorded = await said(audit, AccessRecorded)
    assert "GET /v1/people?subject=(withheld)" in {one.query for one in recorded}
    everything = "".join(str(row["data"]) for row in await audit.rows(tables.mechanism.event))
    assert not any(name in everything.lower() for name in ("corp.example", '"ana'))
    fresh = People.of(audit.settings)
    assert fresh is not None
    back, _ = await fresh.meet("ana", None, person=True)
    await fresh.close()
    assert back != ana, "nothing leads from the name to the old pseudonym"


async def test_the_pages_of_the_vault_hold_nothing_of_who_was_erased(audit: Harness, people: People) -> None:
    ana, _ = await people.meet("ana-of-old-pages", "ana-of-old-pages@corp.example", person=True)
    await people.meet("ben-of-old-pages", None, person=True)
    await silent(audit)
    await keeper(audit).erase(ana, "root", "article 17")
    await audit.execute("checkpoint")
    admin = await asyncpg.connect(audit.admin_url)
    try:
        data = Path(await admin.fetchval("show data_directory"))
        database = await admin.fetchval("select oid from pg_database where datname = current_database()")
    finally:
        await admin.close()
    files = [path for path in (data / "base" / str(database)).iterdir() if path.is_file()]
    holding = [needle for needle in (b"ana-of-old", b"ben-of-old") if any(needle in f.read_bytes() for f in files)]
    assert holding == [b"ben-of-old"]


async def test_a_hold_on_everything_and_an_open_request_keep_somebody(audit: Harness, people: People) -> None:
    ana, _ = await people.meet("ana", None, person=True)
    await silent(audit)
    async with audit.client("root", "admins") as admin:
        made = (await admin.post("/v1/retention/holds", json={"reason": "a trial"})).json()
        refused = await admin.delete(f"/v1/people/{ana}", params={"reason": "asked"})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:hallmark:problem:legal-hold")
        await admin.post(f"/v1/retention/holds/{made['id']}/release", json={"reason": "settled"})
        async with audit.db.transaction() as tx:
            for index, kind, person in (
                (1, "hallmark.request.opened.v1", "trainer"),
                (2, "hallmark.vote.cast.v1", ana),
            ):
                row = {"index": index, "at": sa.func.now(), "type": kind, "person": person, "request": "r", "data": {}}
                await tx.execute(sa.insert(view_tables.fact).values(row))
        refused = await admin.delete(f"/v1/people/{ana}", params={"reason": "asked"})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:hallmark:problem:open-request")
        async with audit.db.transaction() as tx:
            ended = {"index": 3, "at": sa.func.now(), "type": "hallmark.request.decided.v1", "request": "r", "data": {}}
            await tx.execute(sa.insert(view_tables.fact).values(ended))
        assert (await admin.delete(f"/v1/people/{ana}", params={"reason": "asked"})).status_code == 200


async def test_an_open_request_keeps_whoever_has_a_part_in_it_by_whatever_name(audit: Harness, people: People) -> None:
    met = [await people.meet(f"p{n}", f"p{n}@corp.example", person=True) for n in range(5)]
    await silent(audit)
    (asker, _), (_, author), (_, committer), (owner, _), (nobody, _) = met
    version = {"workspace": "w", "model": "m", "version": 1}
    async with audit.db.transaction() as tx:
        await happened(tx, "r", 1, "request.opened", str(author), **version)
        await happened(tx, "r", 2, "vote.cast", "ben", vote={"on_behalf_of": asker}, **version)
        content = {"owner": owner, "lineage": {"committers": [committer]}}
        await happened(tx, None, 3, "version.registered", "trainer", content=content, **version)
        await happened(tx, None, 4, "version.registered", nobody, **version | {"version": 2})
    for kept, _ in met[:4]:
        with pytest.raises(Problem) as refused:
            await keeper(audit).erase(kept, "root", "article 17")
        assert (refused.value.status, refused.value.code) == (409, "open-request")
    assert (await keeper(audit).erase(nobody, "root", "article 17"))["pseudonym"] == nobody


async def test_nobody_is_erased_whom_a_service_may_still_know_by_the_old_pseudonym(
    audit: Harness, people: People
) -> None:
    ana, mail = await people.meet("ana", "ana@corp.example", person=True)
    await silent(audit)
    await people.stand_in("ANA@corp.example")
    for known in (ana, mail):
        with pytest.raises(Problem) as refused:
            await keeper(audit).erase(str(known), "root", "article 17")
        assert (refused.value.status, refused.value.code) == (409, "seen-lately")
    await silent(audit)
    await keeper(audit).erase(ana, "root", "article 17")
    async with people._db.transaction() as tx:
        with pytest.raises(DBAPIError, match="was somebody's"):
            ensure = "select people.ensure('hallmark', true, 'eve', 'eve', :gone, decode(repeat('00', 32), 'hex'))"
            await tx.execute(sa.text(ensure), {"gone": ana})


async def test_to_nobody_is_the_vault_empty_while_somebody_is_erased(
    audit: Harness, people: People, migrated: str
) -> None:
    ana, _ = await people.meet("ana", None, person=True)
    gone, _ = await people.meet("ben", None, person=True)
    admin = await asyncpg.connect(migrated)
    try:
        async with admin.transaction():
            await admin.execute("select people.erase($1)", gone)
            known, found = asyncio.create_task(people.known("ana")), asyncio.create_task(keeper(audit).find("ana"))
            await waits(audit, 2)
    finally:
        await admin.close()
    assert await known == ana
    assert [one["pseudonym"] for one in await found] == [ana]


async def test_erasures_at_once_do_not_wait_for_one_another_for_ever_nor_for_who_reads(
    audit: Harness, people: People, migrated: str
) -> None:
    met = [(await people.meet(f"p{n}", None, person=True))[0] for n in range(4)]
    await silent(audit)
    erased = await asyncio.gather(*(keeper(audit).erase(each, "root", "article 17") for each in met[:3]))
    assert len(erased) == 3
    admin = await asyncpg.connect(migrated)
    try:
        async with admin.transaction():
            await admin.execute("select count(*) from people.name")
            with pytest.raises(DBAPIError) as refused:
                await keeper(audit).erase(met[3], "root", "article 17")
            assert is_transient(refused.value)
            assert await people.known("p3") == met[3], "nobody waits longer than that"
    finally:
        await admin.close()


async def test_a_hold_that_is_being_placed_keeps_everybody(audit: Harness, people: People) -> None:
    ana, _ = await people.meet("ana", None, person=True)
    await silent(audit)
    async with audit.db.transaction() as tx:
        await events().lock(tx, holds_of(audit.settings.checkpoint_origin))
        erasing = asyncio.create_task(keeper(audit).erase(ana, "root", "article 17"))
        await waits(audit)
        row = {"id": "h", "placed_by": "root", "reason": "a trial", "at": sa.func.now(), "marks": []}
        await tx.execute(sa.insert(tables.hold).values(row))
    with pytest.raises(Problem) as refused:
        await erasing
    assert refused.value.code == "legal-hold"


async def test_the_vault_is_not_switched_on_over_a_log_with_names(audit: Harness, people: People) -> None:
    grant = "select people.grant_vault('hallmark_audit', 'hallmark_people')"
    await audit.execute(grant)
    await audit.execute("revoke usage on schema people from hallmark_people")
    async with audit.db.transaction() as tx:
        await happened(tx, "r", 1, "request.opened", "hallmark/approval")
    await audit.execute(grant)
    await audit.execute("revoke usage on schema people from hallmark_people")
    async with audit.db.transaction() as tx:
        await happened(tx, "r", 2, "request.opened", "ana")
    with pytest.raises(asyncpg.RaiseError, match="from the first event on"):
        await audit.execute(grant)


def test_the_vault_is_in_the_database_of_audit(migrated: str) -> None:
    with pytest.raises(ValueError, match="must name that one"):
        migrate(
            "audit",
            Path(),
            database_url=service_url(migrated),
            admin_database_url=None,
            people_database_url=people_url(migrated) + "2",
        )


async def happened(tx: AsyncConnection, request: str | None, index: int, kind: str, person: str, **data: Any) -> None:
    """What is said of workspace, model and version is said in `data`, too."""
    row = {"index": index, "at": sa.func.now(), "type": f"hallmark.{kind}.v1", "person": person, "request": request}
    place = {name: data.get(name) for name in ("workspace", "model", "version")}
    await tx.execute(sa.insert(view_tables.fact).values(**row, **place, data=data))


async def test_who_asks_leaves_no_name_in_the_log(audit: Harness, people: People) -> None:
    ana, _ = await people.meet("ana", "ana@corp.example", person=True)
    async with audit.client("aud") as auditor:
        for query in ("actor=ana", "actor=ANA", "actor=nobody-any-more"):
            assert (await auditor.get(f"/v1/timeline?workspace=*&{query}&limit=5")).status_code == 200
        assert (await auditor.get("/v1/search?workspace=*&q=what+ana+did")).status_code == 200
        assert (await auditor.get("/v1/timeline?workspace=*&type=x%40corp.example")).status_code == 422
        assert (await auditor.get("/v1/timeline?workspace=*&actor=ana%00")).status_code == 422
        for query in ("who=ana&Actor=ana", f"subject=person:{ana}&subject=person:ana", "correlationid=ana"):
            assert (await auditor.get(f"/v1/timeline?workspace=*&{query}")).status_code == 200
        # In one transaction of the vault, whatever it asks.
        many = "&".join(f"actor=n{n}" for n in range(300))
        assert (await auditor.get(f"/v1/timeline?workspace=*&{many}&subject=w/m")).status_code == 200
    queries = [one.query for one in await said(audit, AccessRecorded)]
    assert queries == [
        f"GET /v1/timeline?workspace=*&actor={ana}&limit=5",
        f"GET /v1/timeline?workspace=*&actor={ana}&limit=5",
        "GET /v1/timeline?workspace=*&actor=(withheld)&limit=5",
        "GET /v1/search?workspace=*&q=(withheld)",
        "GET /v1/timeline?workspace=*&(withheld)=(withheld)&(withheld)=(withheld)",
        f"GET /v1/timeline?workspace=*&subject=person:{ana}&subject=(withheld)",
        "GET /v1/timeline?workspace=*&correlationid=(withheld)",
        "GET /v1/timeline?workspace=*" + "&actor=(withheld)" * 300 + "&subject=w/m",
    ]


async def test_of_every_part_of_a_query_it_is_said_whether_it_may_name_somebody(audit: Harness) -> None:
    async with audit.client("aud") as auditor:
        paths = (await auditor.get("/openapi.json")).json()["paths"]
    told = {path: item for path, item in paths.items() if not path.startswith("/v1/people")}
    parts = [part for item in told.values() for way in item.values() for part in way.get("parameters", ())]
    assert {part["name"] for part in parts if part["in"] == "query"} == PLAIN | PERSONAL | TEXTS


async def test_the_services_role_reads_no_name(audit: Harness, migrated: str, people: People) -> None:
    await people.meet("ana", None, person=True)
    asks = await asyncpg.connect(people_url(migrated))
    keeps = await asyncpg.connect(service_url(migrated))
    try:
        for connection, statement in (
            (asks, "select * from people.name"),
            (asks, "select people.erase('p_')"),
            (asks, "delete from people.name"),
            (asks, "select * from audit.event"),
            (keeps, "update people.name set written = 'eve'"),
            (keeps, "delete from people.name"),
            (keeps, "insert into people.state values ('p_', true, now())"),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await asks.close()
        await keeps.close()


async def test_a_log_without_a_vault_says_so(audit: Harness) -> None:
    audit.settings = audit.settings.model_copy(update={"people_database_url": None})
    async with audit.client("root", "admins") as admin:
        answer = await admin.get("/v1/people", params={"subject": quote("ana@corp.example")})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:hallmark:problem:no-vault")
