"""The composition root: the only file that knows every other."""

from importlib.metadata import version

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from audit import api, consumers
from audit.access import AccessLog
from audit.completeness import Completeness
from audit.guards import Guards
from audit.ledger import Ledger
from audit.note import Signer
from audit.parking import DeadLetters
from audit.projector import Projector
from audit.retention import routes as retention
from audit.retention.legal import LegalHolds
from audit.retention.rules import Rules
from audit.settings import AuditSettings
from audit.tables import mechanism
from audit.tlog import routes as tlog
from audit.tlog.archive import Archive
from audit.tlog.publisher import Publisher
from audit.tlog.signing import LocalSigner
from audit.views import views_of
from contracts.topics import AUDIT_EVENTS
from kit.blobs import BlobStore
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
    archive = archive_of(settings)
    ledger = Ledger(db, archive)
    views = views_of(settings, archive)
    projector = Projector(db, views, ledger.appended)
    publisher = Publisher(
        db,
        events,
        archive,
        signer_of(settings),
        every_seconds=settings.checkpoint_seconds,
        publish_seconds=settings.checkpoint_publish_seconds,
    )
    bus = Bus(settings, SERVICE)
    consumers.subscribe(bus, ledger)
    guard = Guard(settings)
    access = AccessLog(db, events, guard, settings.checkpoint_origin)
    completeness = Completeness(db, settings)
    rules = Rules(db, events, settings.checkpoint_origin)
    return make_app(
        settings,
        service=SERVICE,
        version=VERSION,
        db=db,
        bus=bus,
        routers=[
            api.router(db, guard),
            retention.router(guard, access, rules),
            tlog.router(db, guard, access, publisher, archive, completeness, is_public=settings.log_public),
        ],
        background=[
            Relay.of(db, events, settings).run,
            projector.run,
            publisher.run,
            completeness.run,
            Guards(db).run,
            LegalHolds(db, archive, rules.changed).run,
            DeadLetters(db, bus, views, projector.projected).run,
        ],
    )


def archive_of(settings: AuditSettings) -> Archive:
    store = BlobStore(
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )
    return Archive(store, lock_days=settings.archive_lock_days)


def signer_of(settings: AuditSettings) -> LocalSigner:
    private = load_key(settings.checkpoint_key).private_key
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"{settings.checkpoint_key} is no private Ed25519 key")
    return LocalSigner(Signer(settings.checkpoint_origin, private))
