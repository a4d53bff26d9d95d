"""The composition root: the only file that knows every other."""

import asyncio
from importlib.metadata import version

import structlog
from fastapi import FastAPI

from contracts.topics import REGISTRY_EVENTS
from kit.auth import KeySource
from kit.blobs import BlobStore
from kit.bus import Bus
from kit.db import Database
from kit.events import EventLog
from kit.inbox import Inbox
from kit.outbox import Relay
from kit.web import Guard, make_app
from registry import api, consumers
from registry.artifacts import Artifacts
from registry.commands import Commands
from registry.decisions import DecisionReader
from registry.settings import RegistrySettings
from registry.tables import mechanism

SERVICE = "registry"
VERSION = version("hallmark-service-registry")
EXPIRY_CHECK_SECONDS = 5.0
log = structlog.get_logger()


def build(settings: RegistrySettings) -> FastAPI:
    db = Database(settings.database_url.get_secret_value(), name=SERVICE, pool=settings.database_pool)
    events = EventLog(mechanism, topic=REGISTRY_EVENTS.name, source="hallmark/registry")
    inbox = Inbox(mechanism)
    guard = Guard(settings)
    blobs = BlobStore(
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint or settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )
    artifacts = Artifacts(db, blobs)
    commands = Commands(db, events, inbox, guard.access, artifacts, transition_hours=settings.transition_hours)
    reader = DecisionReader(KeySource(settings.decision_jwks))
    bus = Bus(settings, SERVICE)
    consumers.subscribe(bus, db, inbox, commands, reader, guard.verify)
    relay = Relay.of(db, events, settings)

    async def expire() -> None:
        while True:
            await commands.expire()
            await asyncio.sleep(EXPIRY_CHECK_SECONDS)

    services = {
        "registry": settings.registry_url,
        "approval": settings.approval_url,
        "audit": settings.audit_url,
        "notifier": settings.notifier_url,
        "console": settings.console_url,
        "version": VERSION,
    }
    return make_app(
        settings,
        service=SERVICE,
        version=VERSION,
        db=db,
        bus=bus,
        routers=[api.router(db, commands, artifacts, guard, services)],
        background=[relay.run, expire],
        on_start=[blobs.ensure_bucket],
    )
