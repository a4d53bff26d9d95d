"""Policies and requests as tables: `project` folds one own event, `rebuild` folds them all again, the rest queries."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import domain
from approval.domain import Request, Rule
from approval.policy import Policy, parse
from approval.tables import PolicyRow, RequestRow, of
from contracts import approval as events
from contracts.approval import PolicyRef
from contracts.envelope import Envelope
from contracts.payload import Message
from kit.events import EventLog

_policy, _request = of(PolicyRow), of(RequestRow)
_revisions: dict[str, Policy] = {}
_TYPES: dict[str, type[Message]] = {event.TYPE: event for event in events.EVENTS}


async def project(tx: AsyncConnection, envelope: Envelope) -> None:
    """Folds one event of this service into the views."""
    message = envelope.payload(_TYPES[envelope.type])
    if isinstance(message, events.PolicyPublished):
        await tx.execute(
            sa.insert(_policy).values(
                **message.policy.model_dump(),
                document=message.document,
                published_by=message.published_by,
                published_at=envelope.time,
            )
        )
        return
    before = await request(tx, request_id_of(message))
    after = domain.evolve(before, message, at=envelope.time, correlationid=envelope.correlationid, event_id=envelope.id)
    await _store(tx, after)


def request_id_of(message: Message) -> str:
    match message:
        case events.RequestOpened():
            return message.transition_id
        case events.RequestDecided():
            return message.decision.transition_id
        case events.GatesEvaluated() | events.VoteCast() | events.VoteRefused() | events.RequestClosed():
            return message.request_id
    raise ValueError(f"{message.TYPE} is no event of a request")


async def _store(tx: AsyncConnection, state: Request) -> None:
    values = {
        "request_id": state.opened.transition_id,
        "workspace": state.opened.workspace,
        "model": state.opened.model,
        "version": state.opened.version,
        "status": state.status,
        "opened_at": state.opened_at,
        "expires_at": state.opened.expires_at,
        "last_vote_at": max((v.at for v in state.votes), default=None),
        "state": state.model_dump_json(by_alias=True),
    }
    changes = {name: values[name] for name in ("status", "last_vote_at", "state")}
    await tx.execute(insert(_request).values(values).on_conflict_do_update(index_elements=["request_id"], set_=changes))


async def rebuild(tx: AsyncConnection, log: EventLog) -> int:
    """Empties the views and folds every event again; returns how many. Writers wait at the views meanwhile."""
    await tx.execute(sa.text("lock table approval.policy, approval.request in exclusive mode"))
    await tx.execute(sa.delete(_policy))
    await tx.execute(sa.delete(_request))
    count = 0
    async for envelope in log.read(tx):
        await project(tx, envelope)
        count += 1
    return count


async def request(tx: AsyncConnection, request_id: str) -> Request | None:
    state = await tx.scalar(sa.select(_request.c.state).where(_request.c.request_id == request_id))
    return None if state is None else Request.model_validate_json(state)


async def requests(
    tx: AsyncConnection, *, status: str | None, workspace: str | None, model: str | None, after: str | None
) -> AsyncIterator[Request]:
    """Newest first, from the one after `after` (a request id)."""
    place = sa.tuple_(_request.c.opened_at, _request.c.request_id)
    while True:
        query = sa.select(_request.c.request_id, _request.c.state).order_by(place.desc()).limit(200)
        for column, value in (
            (_request.c.status, status),
            (_request.c.workspace, workspace),
            (_request.c.model, model),
        ):
            if value is not None:
                query = query.where(column == value)
        if after is not None:
            query = query.where(
                place
                < sa.select(_request.c.opened_at, _request.c.request_id)
                .where(_request.c.request_id == after)
                .scalar_subquery()
            )
        rows = (await tx.execute(query)).all()
        for row in rows:
            yield Request.model_validate_json(row.state)
        if len(rows) < 200:
            return
        after = rows[-1].request_id


async def due(tx: AsyncConnection, settle_seconds: float) -> list[str]:
    """Open requests that are over: past their expiry, or decided by votes that have settled.

    The database is the clock.
    """
    at = await clock(tx)
    settled = at - timedelta(seconds=settle_seconds)
    query = sa.select(_request.c.state).where(
        _request.c.status == domain.OPEN,
        sa.or_(_request.c.expires_at <= at, _request.c.last_vote_at <= settled),
    )
    found = [Request.model_validate_json(state) for state in (await tx.scalars(query)).all()]
    return [
        r.opened.transition_id
        for r in found
        if r.opened.expires_at <= at or domain.verdict(r, await rules_of(tx, r)) is not None
    ]


async def policies(tx: AsyncConnection, *, name: str | None = None) -> Sequence[Any]:
    """The current revision of each policy, or every revision of one, newest first."""
    query = sa.select(_policy).order_by(_policy.c.name, _policy.c.revision.desc())
    query = query.where(_policy.c.name == name) if name is not None else query.ext(distinct_on(_policy.c.name))
    return (await tx.execute(query)).all()


async def current_policies(tx: AsyncConnection) -> list[tuple[PolicyRef, Policy]]:
    return [(ref_of(row), parse(row.document)) for row in await policies(tx)]


def ref_of(row: Any) -> PolicyRef:
    return PolicyRef(name=row.name, revision=row.revision, digest=row.digest)


async def policy_of(tx: AsyncConnection, ref: PolicyRef) -> Policy:
    """The revision, which never changes and so is read once."""
    if ref.digest not in _revisions:
        document = await tx.scalar(
            sa.select(_policy.c.document).where(_policy.c.name == ref.name, _policy.c.revision == ref.revision)
        )
        if document is None:
            raise LookupError(f"policy {ref.name} revision {ref.revision} is not known")
        _revisions[ref.digest] = parse(document)
    return _revisions[ref.digest]


async def rules_of(tx: AsyncConnection, state: Request) -> tuple[Rule, ...]:
    """The rules of the very revisions the request was opened under."""
    policies = [await policy_of(tx, ref) for ref in state.opened.policies]
    return tuple(rule for policy in policies for rule in policy.rules)


async def clock(tx: AsyncConnection) -> datetime:
    """The database's time now; `now()` would be when the transaction began, before it waited for a lock."""
    at = await tx.scalar(sa.select(sa.func.clock_timestamp()))
    assert isinstance(at, datetime)
    return at
