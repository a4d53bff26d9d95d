"""The composition root: the only file that knows every other."""

from importlib.metadata import version

from fastapi import FastAPI

from approval.api import router
from approval.commands import SYSTEM, Commands
from approval.consumers import RegistryEvents
from approval.revisions import Revisions
from approval.settings import ApprovalSettings
from approval.tables import mechanism
from contracts.topics import APPROVAL_EVENTS, REGISTRY_EVENTS
from kit.bus import Bus
from kit.consume import Ordered
from kit.db import Database
from kit.events import EventLog
from kit.inbox import Inbox
from kit.keys import load_key
from kit.outbox import Relay
from kit.topics import apply_topics
from kit.web import Guard, make_app


def build(settings: ApprovalSettings) -> FastAPI:
    """The whole service: HTTP, consumer, relay and the sweeper of due requests."""
    key = load_key(settings.decision_key)
    db = Database(settings.database_url.get_secret_value(), name="approval", pool=settings.database_pool)
    events = EventLog(mechanism, topic=APPROVAL_EVENTS.name, source=SYSTEM)
    bus = Bus(settings, "approval")
    guard = Guard(settings)
    commands = Commands(db, events, key, settings)
    revisions = Revisions(db, events)
    bus.subscribe(REGISTRY_EVENTS, Ordered(db, Inbox(mechanism), bus, REGISTRY_EVENTS, RegistryEvents(commands)))
    relay = Relay.of(db, events, settings)

    async def topics() -> None:
        if settings.kafka_create_topics:
            await apply_topics(settings.kafka_bootstrap, prefix=settings.topic_prefix)

    return make_app(
        settings,
        service="approval",
        version=version("hallmark-service-approval"),
        db=db,
        bus=bus,
        routers=[router(db, guard, commands, revisions, key)],
        background=[relay.run, commands.sweep],
        on_start=[topics, revisions.bootstrap],
    )
