"""The migrations make the tables that the code declares, and keep what is there."""

import asyncio

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine
from tests.support.databases import migrate_service
from tests.support.receiver import Receiver

from contracts.approval import PolicyPublished, PolicyRef
from contracts.envelope import Envelope
from contracts.lifecycle import DEFAULT_LIFECYCLE
from contracts.registry import WorkspaceConfigured
from kit.db import sqlalchemy_url
from notifier import views

from .conftest import DIGEST, MIGRATIONS, Rig

POLICY = PolicyRef(name="p", revision=1, digest=DIGEST)
BACK_TO_0006 = (
    'alter table notifier.subscription drop column "order"',
    "alter table notifier.delivery add column stream varchar, add column leased_until timestamptz",
    "update notifier.delivery set stream = lane",
    "alter table notifier.delivery drop column lane, drop column event_position",
    "create index ix_delivery_lane on notifier.delivery (subscription_id, stream, position) where open",
    "alter table notifier.source_event drop column at, drop column taken_at",
    "drop table notifier.lane",
    "update notifier.alembic_version set version_num = '0006'",
)


@pytest.fixture
def config(database: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("HALLMARK_ADMIN_DATABASE_URL", database)
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


async def test_tables_and_migrations_agree(rig: Rig, config: Config) -> None:
    await asyncio.to_thread(command.check, config)


async def test_subscriptions_of_before_there_were_audiences_stand_for_nobody(
    rig: Rig, config: Config, database: str
) -> None:
    made = await rig.webhook("http://127.0.0.1:9/hook")
    engine = create_async_engine(sqlalchemy_url(database))
    set_to = "update notifier.alembic_version set version_num = :to"
    async with engine.begin() as tx:  # there is no way down: what the migration adds is taken away by hand
        head = await tx.scalar(sa.text("select version_num from notifier.alembic_version"))
        await tx.execute(sa.text("alter table notifier.subscription drop column audience"))
        await tx.execute(sa.text(set_to), {"to": "0001"})
    await asyncio.to_thread(command.upgrade, config, "0002")
    async with engine.begin() as tx:
        await tx.execute(sa.text(set_to), {"to": head})
    await engine.dispose()
    async with rig.db.transaction() as tx:
        again = await views.subscription(tx, made["subscription_id"])
    assert again is not None
    assert again.audience == ()
    assert views.document(again) == {name: value for name, value in made.items() if name != "secret"}


async def test_events_kept_before_are_found_by_workspace_and_type(rig: Rig, config: Config, database: str) -> None:
    policy = Envelope.of(
        PolicyPublished(policy=POLICY, document="x", published_by="ana"),
        source="hallmark/approval",
        subject="policy:p/q",
        key="policy:p",
        sequence=1,
    )
    ruled = WorkspaceConfigured(workspace="risk", lifecycle=DEFAULT_LIFECYCLE)
    configured = Envelope.of(ruled, source="s", subject="workspace:risk", key="workspace:risk", sequence=1)
    await rig.happens(rig.event(), policy, configured)
    engine = create_async_engine(sqlalchemy_url(database))
    kept = sa.text("select event_id, type, workspace from notifier.source_event order by 1")
    set_to = "update notifier.alembic_version set version_num = :to"
    async with engine.begin() as tx:
        before = (await tx.execute(kept)).all()
        head = await tx.scalar(sa.text("select version_num from notifier.alembic_version"))
        await tx.execute(sa.text("alter table notifier.source_event drop type, drop workspace, drop position"))
        await tx.execute(sa.text("alter table notifier.subscription drop stages, drop cel"))
        await tx.execute(sa.text("drop table notifier.filter_error"))
        await tx.execute(sa.text(set_to), {"to": "0003"})
    await asyncio.to_thread(command.upgrade, config, "0004")
    async with engine.begin() as tx:
        await tx.execute(sa.text(set_to), {"to": head})
        after = (await tx.execute(kept)).all()
    await engine.dispose()
    assert after == before
    assert {row.workspace for row in after} == {"default", None, "risk"}


async def test_what_waited_before_there_were_lanes_goes_on_in_its_order(
    rig: Rig, config: Config, receiver: Receiver, database: str
) -> None:
    """The tables as they were, with deliveries of then; after the migration a worker sends what was open."""
    made = await rig.webhook(f"{receiver.url}/hook")
    sent = [rig.event("churn", n) for n in (1, 2, 3)] + [rig.event("other", 1)]
    await rig.happens(*sent)
    engine = create_async_engine(sqlalchemy_url(database))
    async with engine.begin() as tx:
        head = await tx.scalar(sa.text("select version_num from notifier.alembic_version"))
        for statement in BACK_TO_0006:
            await tx.execute(sa.text(statement))
        first = {"id": sent[0].id}
        await tx.execute(
            sa.text("update notifier.delivery set open = false, status = 'succeeded' where event_id = :id"), first
        )
    await asyncio.to_thread(command.upgrade, config, "0007")
    async with engine.begin() as tx:
        await tx.execute(sa.text("update notifier.alembic_version set version_num = :to"), {"to": head})
        rows = (await tx.execute(sa.text("select * from notifier.source_event order by position"))).all()
    await engine.dispose()
    await asyncio.to_thread(migrate_service, "notifier", database)  # which grants the service what is new
    assert [(row.event_id, row.type, row.at) for row in rows] == [(e.id, e.type, e.time) for e in sent]
    async with rig.worker():
        await rig.happens(rig.event("churn", 4))
        await rig.all_done(made, 5)
    told = [hit.document for hit in receiver.hits]
    assert [d["data"]["version"] for d in told if d["data"]["model"] == "churn"] == [2, 3, 4]
    assert len(told) == 4
