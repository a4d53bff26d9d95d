"""What leaves the service, put together for the composition root."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from audit.access import AccessLog
from audit.out import routes
from audit.out.archive import DayArchive
from audit.out.dsse import BytesSigner
from audit.out.evidence.gather import Bundles
from audit.out.policy import tlog_policy
from audit.out.query import Entries
from audit.out.siem.feed import Feed
from audit.out.siem.push import Pusher, Sink
from audit.settings import AuditSettings
from audit.tlog.archive import Archive
from audit.tlog.attesting import stamp_key
from audit.tlog.proofs import Proofs
from audit.tlog.publisher import Publisher
from kit.auth import KeySource
from kit.db import Database, Signal
from kit.events import EventLog
from kit.web import Guard


@dataclass(frozen=True)
class Out:
    router: APIRouter
    background: list[Callable[[], Coroutine[Any, Any, None]]]


def out_of(
    settings: AuditSettings,
    db: Database,
    guard: Guard,
    access: AccessLog,
    events: EventLog,
    archive: Archive,
    publisher: Publisher,
    signer: BytesSigner,
    projected: Signal,
) -> Out:
    """`signer`: the checkpoint's, which signs envelopes too. `projected`: the projector's."""

    async def token(size: int) -> bytes | None:
        return await archive.read(stamp_key(size))

    entries = Entries(db, archive.inline, archive.entry)
    feed = Feed(entries, settings.checkpoint_origin)
    keys = KeySource(settings.decision_jwks) if settings.decision_jwks else None

    def policy() -> str:
        return tlog_policy(publisher.vkeys, [one.vkey for one in settings.witnesses], settings.witness_quorum)

    bundles = Bundles(entries, Proofs(db, archive), publisher, signer, projected, keys, token, policy)
    days = DayArchive(
        db,
        archive,
        publisher,
        signer,
        every_seconds=settings.archive_seconds,
        running_day=settings.archive_running_day,
    )
    background = [days.run]
    if settings.siem_url is not None:
        secret = settings.siem_authorization
        headers = (("Authorization", secret.get_secret_value()),) if secret else ()
        sink = Sink(settings.siem_name, settings.siem_url, settings.siem_format, headers)
        background.append(Pusher(db, feed, publisher, sink, events).run)
    return Out(routes.router(db, guard, access, publisher, bundles, feed), background)
