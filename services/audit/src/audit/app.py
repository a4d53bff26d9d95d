"""The composition root: the only file that knows every other."""

from importlib.metadata import version

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from audit import api, consumers
from audit.access import AccessLog
from audit.checkpoints import Checkpoints
from audit.ledger import Ledger
from audit.note import Signer
from audit.pins import Pins
from audit.proofs import Proofs
from audit.search import SearchProjection
from audit.settings import AuditSettings
from audit.tables import mechanism
from audit.views import views_of
from contracts.topics import AUDIT_EVENTS
from kit.auth import KeySource
from kit.bus import Bus
from kit.db import Database
from kit.events import EventLog
from kit.keys import load_key
from kit.outbox import Relay
from kit.web import Guard, make_app

SERVICE = "audit"
VERSION = version("hallmark-service-audit")


def build(settings: AuditSettings) -> FastAPI:
    db = Database(settings.database_url.get_secret_value(), name=SERVICE, pool=settings.database_pool)
    events = EventLog(mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    private = load_key(settings.checkpoint_key).private_key
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"{settings.checkpoint_key} is no private Ed25519 key")
    checkpoints = Checkpoints(
        db,
        events,
        Signer(settings.checkpoint_origin, private),
        every_seconds=settings.checkpoint_seconds,
        publish_seconds=settings.checkpoint_publish_seconds,
    )
    bus = Bus(settings, SERVICE)
    consumers.subscribe(bus, Ledger(db, views_of(settings)))
    guard = Guard(settings)
    access = AccessLog(db, events, guard, settings.checkpoint_origin)
    pins = Pins(KeySource(settings.serving_jwks) if settings.serving_jwks else None)
    search = SearchProjection(db)
    return make_app(
        settings,
        service=SERVICE,
        version=VERSION,
        db=db,
        bus=bus,
        routers=[api.router(db, guard, Proofs(db), checkpoints, access, pins)],
        background=[Relay.of(db, events, settings).run, checkpoints.run, search.run],
    )
