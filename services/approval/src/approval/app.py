"""The composition root: the only file that knows every other."""

from dataclasses import dataclass
from importlib.metadata import version

from fastapi import FastAPI

from approval import api
from approval.answers import Answers
from approval.calls import Calls, asking_of, secrets_of
from approval.clicks import Clicks
from approval.clock import Clock
from approval.commands import Commands
from approval.consumers import RegistryEvents
from approval.desk import SYSTEM, Desk
from approval.directory import Directory
from approval.emergency import Emergencies
from approval.evidence import Attachments
from approval.files import files_of
from approval.keyring import Keyring
from approval.people import People
from approval.revisions import Revisions
from approval.revocations import Revocations
from approval.settings import ApprovalSettings
from approval.sweep import Sweeper
from approval.tables import mechanism
from contracts.topics import APPROVAL_EVENTS, REGISTRY_EVENTS
from kit.auth import Access
from kit.bus import Bus
from kit.consume import Ordered
from kit.db import Database
from kit.events import EventLog
from kit.inbox import Inbox
from kit.outbound import Guard as OutboundGuard
from kit.outbound import guarded_client
from kit.outbox import Relay
from kit.topics import apply_topics
from kit.web import Guard, make_app

SLACK_SECONDS = 10.0


@dataclass(frozen=True)
class Parts:
    """The use cases, wired to one database."""

    desk: Desk
    commands: Commands
    people: People
    directory: Directory
    emergencies: Emergencies
    revisions: Revisions
    revocations: Revocations
    sweeper: Sweeper


def assemble(settings: ApprovalSettings, db: Database, access: Access, keyring: Keyring, clock: Clock) -> Parts:
    events = EventLog(mechanism, topic=APPROVAL_EVENTS.name, source=SYSTEM)
    desk = Desk(db, events, keyring, access, settings, clock)
    directory = Directory(desk)
    return Parts(
        desk=desk,
        commands=Commands(desk),
        people=People(desk, directory, settings.settle_seconds),
        directory=directory,
        emergencies=Emergencies(desk, directory),
        revisions=Revisions(desk),
        revocations=Revocations(desk, keyring),
        sweeper=Sweeper(desk, settings.sweep_seconds),
    )


def build(settings: ApprovalSettings) -> FastAPI:
    """The whole service: HTTP, consumer, relay and the sweeper of due requests."""
    keyring = Keyring(settings.decision_key)
    db = Database(settings.database_url.get_secret_value(), name="approval", pool=settings.database_pool)
    bus, guard = Bus(settings, "approval"), Guard(settings)
    parts = assemble(settings, db, guard.access, keyring, Clock())
    events = RegistryEvents(parts.commands)
    bus.subscribe(REGISTRY_EVENTS, Ordered(db, Inbox(mechanism), bus, REGISTRY_EVENTS, events))
    relay = Relay.of(db, parts.desk.log, settings)

    async def topics() -> None:
        if settings.kafka_create_topics:
            await apply_topics(settings.kafka_bootstrap, prefix=settings.topic_prefix)

    answers = Answers(parts.desk, secrets_of(settings))
    calls = Calls(parts.desk, answers, asking_of(settings), settings)
    files = files_of(settings)
    attachments = Attachments(parts.desk, parts.commands, files)
    callers = api.Callers(guard, parts.desk)
    secret = settings.slack_signing_secret
    signing = secret.get_secret_value() if secret else None
    clicks = Clicks(parts.desk, parts.people, Inbox(mechanism), signing, settings.console_url)
    return make_app(
        settings,
        service="approval",
        version=version("hallmark-service-approval"),
        db=db,
        bus=bus,
        routers=[
            api.keys(keyring),
            api.requests(parts.desk, callers, parts.people, parts.emergencies, parts.revisions),
            api.policies(parts.desk, callers, parts.revisions),
            api.people(parts.desk, callers, parts.directory),
            api.revocations(callers, parts.revocations),
            api.evidence(callers, attachments, answers),
            api.slack(callers, clicks, guarded_client(OutboundGuard(settings.slack_allow), SLACK_SECONDS)),
        ],
        background=[relay.run, parts.sweeper.run, calls.run, *([files.tidy] if files else [])],
        on_start=[topics, parts.revisions.bootstrap],
        people=guard.people,
    )
