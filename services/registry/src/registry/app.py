"""The composition root: the only file that knows every other."""

import asyncio
from importlib.metadata import version

from fastapi import FastAPI

from kit.auth import KeySource
from kit.bus import Bus
from kit.db import Database
from kit.inbox import Inbox
from kit.keys import load_key
from kit.outbox import Relay
from kit.web import Guard, make_app
from registry import api, consumers, uploads
from registry.artifacts import Artifacts, store_of
from registry.commands import Commands
from registry.decisions import DecisionReader
from registry.inspection import Inspector
from registry.mlflow import routes as mlflow_routes
from registry.search import routes as search_routes
from registry.serving import routes as serving_routes
from registry.serving.service import Serving
from registry.settings import RegistrySettings
from registry.tables import event_log, mechanism
from registry.verification import Verification

SERVICE = "registry"
VERSION = version("hallmark-service-registry")
EXPIRY_CHECK_SECONDS = 5.0


def build(settings: RegistrySettings) -> FastAPI:
    db = Database(settings.database_url.get_secret_value(), name=SERVICE, pool=settings.database_pool)
    events = event_log()
    inbox = Inbox(mechanism)
    guard = Guard(settings)
    blobs = store_of(settings)
    artifacts = Artifacts(db, blobs, settings.reference_buckets)
    commands = Commands(
        db, events, inbox, guard.access, artifacts, transition_hours=settings.transition_hours, people=guard.people
    )
    reader = DecisionReader(KeySource(settings.decision_jwks))
    inspector = Inspector(at_once=settings.verifications)
    verification = Verification(db, commands, artifacts, inspector, at_once=settings.verifications)
    serving = Serving(db, load_key(settings.serving_key), artifacts.download_url, settings.serving_epoch)
    bus = Bus(settings, SERVICE)
    consumers.subscribe(bus, db, inbox, commands, reader, guard.verify)
    relay = Relay.of(db, events, settings)

    async def expire() -> None:
        while True:
            await commands.expire()
            await asyncio.sleep(EXPIRY_CHECK_SECONDS)

    async def verify() -> None:
        async with inspector:
            await verification.run()

    services = {
        "registry": settings.registry_url,
        "approval": settings.approval_url,
        "audit": settings.audit_url,
        "notifier": settings.notifier_url,
        "console": settings.console_url,
        "version": VERSION,
    }
    others = [
        uploads.router(artifacts, guard),
        search_routes.router(db, guard),
        mlflow_routes.router(db, commands, guard, wait=settings.mlflow_wait_seconds, address=settings.registry_url),
        serving_routes.router(serving, guard, report=commands.report, archive=commands.archive),
    ]
    return make_app(
        settings,
        service=SERVICE,
        version=VERSION,
        db=db,
        bus=bus,
        routers=[api.router(db, commands, guard, services, others)],
        background=[relay.run, expire, verify, *serving.background],
        on_start=[blobs.ensure_bucket],
        on_stopping=[serving.close],
        people=guard.people,
    )
