"""The composition root: the only file that knows every other."""

from importlib.metadata import version

from fastapi import FastAPI

from audit import api, consumers
from audit.access import AccessLog
from audit.completeness import Completeness
from audit.guards import Guards
from audit.ledger import Ledger
from audit.months import Months
from audit.out.parts import out_of
from audit.params import Reader, readers
from audit.parking import DeadLetters
from audit.people import routes as people
from audit.people.keeper import Keeper
from audit.pins import Pins
from audit.projector import Projector
from audit.reports.proving import prover
from audit.retention import routes as retention
from audit.retention.legal import LegalHolds
from audit.retention.rules import Rules
from audit.saved import routes as saved
from audit.saved.searches import Searches
from audit.search import SearchProjection
from audit.settings import AuditSettings
from audit.tables import mechanism
from audit.tlog import routes as tlog
from audit.tlog.archive import Archive
from audit.tlog.attesting import attestation_of
from audit.tlog.proofs import Proofs
from audit.tlog.publisher import Publisher
from audit.tlog.signing import signer_of
from audit.views import views_of
from contracts.topics import AUDIT_EVENTS
from kit.auth import KeySource
from kit.blobs import BlobStore
from kit.bus import Bus
from kit.db import Database
from kit.events import EventLog
from kit.outbox import Relay
from kit.web import Guard, make_app

SERVICE = "audit"
VERSION = version("hallmark-service-audit")


def build(settings: AuditSettings) -> FastAPI:
    db = Database(settings.database_url.get_secret_value(), name=SERVICE, pool=settings.database_pool)
    events = EventLog(mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    archive = archive_of(settings)
    ledger = Ledger(db, archive)
    signer = signer_of(settings)
    views = views_of(settings, archive)
    projector = Projector(db, views, ledger.appended)
    publisher = Publisher(
        db,
        events,
        archive,
        signer,
        every_seconds=settings.checkpoint_seconds,
        publish_seconds=settings.checkpoint_publish_seconds,
        attestation=attestation_of(settings, archive),
        former_keys=settings.checkpoint_former_keys,
    )
    bus = Bus(settings, SERVICE)
    consumers.subscribe(bus, ledger)
    guard = Guard(settings)
    access = AccessLog(db, events, guard, settings.checkpoint_origin)
    completeness = Completeness(db, settings)
    out = out_of(settings, db, guard, access, events, archive, publisher, signer, projector.projected)
    pins = Pins(KeySource(settings.serving_jwks) if settings.serving_jwks else None)
    rules = Rules(db, events, settings.checkpoint_origin)
    keeper = Keeper(db, events, settings.checkpoint_origin) if guard.people else None
    reader = readers(db, guard, access, checked=settings.decision_jwks is not None)
    searches = Searches(db, events, access, lambda owner: Reader(db, guard, access, owner, None))
    return make_app(
        settings,
        service=SERVICE,
        version=VERSION,
        db=db,
        bus=bus,
        routers=[
            api.router(
                db,
                reader,
                pins,
                prover(Proofs(db, archive), publisher),
            ),
            saved.router(reader, searches),
            retention.router(guard, access, rules),
            people.router(guard, access, keeper),
            tlog.router(db, guard, access, publisher, archive, completeness, is_public=settings.log_public),
            out.router,
        ],
        background=[
            Relay.of(db, events, settings).run,
            projector.run,
            publisher.run,
            completeness.run,
            SearchProjection(db).run,
            searches.run,
            Guards(db).run,
            access.run,
            Months(db).run,
            LegalHolds(db, archive, rules.changed).run,
            DeadLetters(db, bus, views, projector.projected).run,
            *out.background,
            *([keeper.run] if keeper else []),
        ],
        people=guard.people,
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
