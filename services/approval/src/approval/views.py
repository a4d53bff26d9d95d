"""Policies, requests, people and evidence as tables: `project` folds one own event, `rebuild` folds them all again."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import accounts, domain
from approval.domain import Request
from approval.tables import DelegationRow, EvidenceRow, MemberRow, PolicyRow, RequestRow, of
from contracts import approval as events
from contracts.approval import PolicyRef
from contracts.envelope import Envelope
from contracts.members import Known, Said, token_of
from contracts.payload import Message
from kit.events import EventLog
from policy.document import Policy, recorded

_policy, _request, _evidence = of(PolicyRow), of(RequestRow), of(EvidenceRow)
_delegation, _member = of(DelegationRow), of(MemberRow)
VIEWS = (_policy, _request, _evidence, _delegation, _member, accounts.TABLE)
_TYPES: dict[str, type[Message]] = {event.TYPE: event for event in events.EVENTS}
# These say of which request they are; the opening and the end of a request name it in their own ways.
_OF_A_REQUEST = (
    events.RequestRebound,
    events.GatesEvaluated,
    events.GateAnswered,
    events.GateWaived,
    events.VoteCast,
    events.VoteWithdrawn,
    events.VoteRefused,
    events.RequestCommented,
    events.RequestEscalated,
    events.RequestClosed,
    events.GlassBroken,
    events.ReviewGiven,
    events.ReviewOverdue,
    events.ApprovalLapsed,
    events.PolicyProposed,
)


async def project(tx: AsyncConnection, envelope: Envelope) -> None:
    """Folds one event of this service into the views."""
    message = envelope.payload(_TYPES[envelope.type])
    match message:
        case events.PolicyPublished():
            await _published(tx, envelope, message)
        case events.EvidenceAttached():
            await _attached(tx, message)
        case events.DelegationGranted() | events.DelegationEnded():
            await _delegated(tx, envelope, message)
        case events.MembershipChanged():
            await _joined(tx, envelope, message)
        case events.AccountLinked() | events.AccountUnlinked():
            await accounts.project(tx, envelope, message)
    request_id = request_id_of(message)
    if request_id is not None:
        before = await request(tx, request_id)
        after = domain.evolve(
            before, message, at=envelope.time, correlationid=envelope.correlationid, event_id=envelope.id
        )
        await _store(tx, after)


def request_id_of(message: Message) -> str | None:
    """The request that an event is of, if it is of one."""
    match message:
        case events.RequestOpened():
            return message.transition_id
        case events.RequestDecided():
            return message.decision.transition_id
        case events.PolicyPublished():
            return message.request_id
    return message.request_id if isinstance(message, _OF_A_REQUEST) else None


async def _store(tx: AsyncConnection, state: Request) -> None:
    opened = state.opened
    workspace, model = state.place if isinstance(opened, events.RequestOpened) else ("*", opened.policy.name)
    values = {
        "request_id": state.request_id,
        "workspace": workspace,
        "model": model,
        "version": opened.version if isinstance(opened, events.RequestOpened) else opened.policy.revision,
        "kind": state.kind,
        "status": state.status,
        "requested_by": opened.requested_by,
        "opened_at": state.opened_at,
        "freezes_at": state.freezes_at,
        "holds_until": state.holds_until,
        "state": state.model_dump_json(by_alias=True),
    }
    changes = {name: values[name] for name in ("status", "freezes_at", "holds_until", "state")}
    await tx.execute(insert(_request).values(values).on_conflict_do_update(index_elements=["request_id"], set_=changes))


async def _published(tx: AsyncConnection, envelope: Envelope, message: events.PolicyPublished) -> None:
    await tx.execute(
        sa.insert(_policy).values(
            **message.policy.model_dump(),
            document=message.document,
            published_by=message.published_by,
            published_at=envelope.time,
        )
    )


async def _attached(tx: AsyncConnection, message: events.EvidenceAttached) -> None:
    await tx.execute(
        sa.insert(_evidence).values(
            evidence_id=message.evidence.evidence_id,
            workspace=message.workspace,
            model=message.model,
            version=message.version,
            at=message.evidence.at,
            data=message.evidence.model_dump_json(),
        )
    )


async def _delegated(
    tx: AsyncConnection, envelope: Envelope, message: events.DelegationGranted | events.DelegationEnded
) -> None:
    if isinstance(message, events.DelegationGranted):
        await tx.execute(sa.insert(_delegation).values(**message.model_dump(), granted_at=envelope.time))
        return
    ended = sa.update(_delegation).where(_delegation.c.delegation_id == message.delegation_id)
    await tx.execute(ended.values(ended_at=envelope.time, ended_by=message.ended_by))


async def _joined(tx: AsyncConnection, envelope: Envelope, message: events.MembershipChanged) -> None:
    known = (await members(tx, [message.subject])).get(message.subject) or Known(message.subject)
    said = Said(frozenset(message.groups), message.person, message.by, message.issued_at or envelope.time)
    known = known.with_told(said) if message.issued_at is None else known.with_token(said, message.email)
    token, told = known.token, known.told
    values = {
        "groups": sorted(token.groups) if token else None,
        "person": token.person if token else None,
        "issued_at": token.at if token else None,
        "email": known.email,
        "told_groups": sorted(told.groups) if told else None,
        "told_person": told.person if told else None,
        "told_by": told.by if told else None,
        "told_at": told.at if told else None,
    }
    statement = insert(_member).values(subject=message.subject, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["subject"], set_=values))


async def rebuild(tx: AsyncConnection, log: EventLog) -> int:
    """Empties the views and folds every event again; returns how many. Writers wait at the views meanwhile."""
    names = ", ".join(f"approval.{table.name}" for table in VIEWS)
    await tx.execute(sa.text(f"lock table {names} in exclusive mode"))
    for table in VIEWS:
        await tx.execute(sa.delete(table))
    count = 0
    async for envelope in log.read(tx):
        await project(tx, envelope)
        count += 1
    return count


async def restore(tx: AsyncConnection, log: EventLog) -> int:
    """Folds the views when they are empty and events are not: after a migration that gave them another shape."""
    if await tx.scalar(sa.select(_policy.c.name).limit(1)) is not None:
        return 0
    return await rebuild(tx, log)


# -- requests -----------------------------------------------------------------------------------------------------


async def request(tx: AsyncConnection, request_id: str) -> Request | None:
    state = await tx.scalar(sa.select(_request.c.state).where(_request.c.request_id == request_id))
    return None if state is None else Request.model_validate_json(state)


async def requests_named(tx: AsyncConnection, request_ids: Sequence[str]) -> list[Request]:
    """These requests, in their order."""
    query = sa.select(_request.c.request_id, _request.c.state).where(_request.c.request_id.in_(request_ids))
    found = {row.request_id: row.state for row in await tx.execute(query)} if request_ids else {}
    return [Request.model_validate_json(found[request_id]) for request_id in request_ids]


async def opened(tx: AsyncConnection, request_id: str) -> tuple[datetime, str] | None:
    """The place of a request in lists: when it was opened, and its id."""
    at = await tx.scalar(sa.select(_request.c.opened_at).where(_request.c.request_id == request_id))
    return None if at is None else (at, request_id)


async def open_requests(tx: AsyncConnection, workspace: str, model: str) -> list[str]:
    query = sa.select(_request.c.request_id).where(
        _request.c.workspace == workspace, _request.c.model == model, _request.c.status == domain.OPEN
    )
    return list((await tx.scalars(query.order_by(_request.c.opened_at, _request.c.request_id))).all())


async def frozen(tx: AsyncConnection, workspace: str, model: str, at: datetime) -> str | None:
    """Why the model may not be promoted at that time, if so, whether or not the sweeper has noted it."""
    query = sa.select(_request.c.request_id).where(
        _request.c.workspace == workspace, _request.c.model == model, _request.c.freezes_at <= at
    )
    found = await tx.scalar(query.order_by(_request.c.freezes_at).limit(1))
    if found is None:
        return None
    return f"the model is frozen until the emergency of request {found} is reviewed"


async def decision_of(tx: AsyncConnection, workspace: str, model: str, version: int, to_stage: str) -> Request | None:
    """The latest request that was approved for this version, to that stage."""
    query = (
        sa.select(_request.c.state)
        .where(
            _request.c.workspace == workspace,
            _request.c.model == model,
            _request.c.version == version,
            _request.c.status == domain.APPROVED,
        )
        .order_by(_request.c.opened_at.desc(), _request.c.request_id.desc())
    )
    found = map(Request.model_validate_json, (await tx.scalars(query)).all())
    return next((one for one in found if one.inputs["request"]["to"] == to_stage), None)


# -- policies -----------------------------------------------------------------------------------------------------


async def policies(
    tx: AsyncConnection,
    *,
    name: str | None = None,
    after: str | None = None,
    below: int | None = None,
    limit: int | None = None,
) -> Sequence[Any]:
    """The current revision of each policy by name, those `after` one; or every revision of one, newest first, those
    `below` one."""
    query = sa.select(_policy).order_by(_policy.c.name, _policy.c.revision.desc()).limit(limit)
    query = query.where(_policy.c.name == name) if name is not None else query.ext(distinct_on(_policy.c.name))
    if after is not None:
        query = query.where(_policy.c.name > after)
    if below is not None:
        query = query.where(_policy.c.revision < below)
    return (await tx.execute(query)).all()


async def current_policies(tx: AsyncConnection) -> list[tuple[PolicyRef, Policy]]:
    return [(ref_of(row), recorded(row.document)) for row in await policies(tx)]


async def others_than(tx: AsyncConnection, name: str) -> list[Policy]:
    """The other policies in force."""
    return [policy for ref, policy in await current_policies(tx) if ref.name != name]


def ref_of(row: Any) -> PolicyRef:
    return PolicyRef(name=row.name, revision=row.revision, digest=row.digest)


async def bound_policies(tx: AsyncConnection, refs: Iterable[PolicyRef]) -> list[tuple[PolicyRef, Policy]]:
    """The very revisions that a request is bound to."""
    refs = list(refs)
    known = await revisions_of(tx, refs)
    return [(ref, known[ref]) for ref in refs]


async def revisions_of(tx: AsyncConnection, refs: Iterable[PolicyRef]) -> dict[PolicyRef, Policy]:
    """Raises LookupError when one is not known."""
    wanted = set(refs)
    place = sa.tuple_(_policy.c.name, _policy.c.revision)
    query = sa.select(_policy).where(place.in_([(ref.name, ref.revision) for ref in wanted]))
    found = {ref_of(row): recorded(row.document) for row in await tx.execute(query)} if wanted else {}
    if missing := wanted - set(found):
        raise LookupError(f"policies that are not known: {', '.join(sorted(map(str, missing)))}")
    return found


async def editors(tx: AsyncConnection, refs: Iterable[PolicyRef]) -> list[str]:
    """Who published these revisions."""
    places = [(ref.name, ref.revision) for ref in refs]
    query = sa.select(_policy.c.published_by).where(sa.tuple_(_policy.c.name, _policy.c.revision).in_(places))
    return sorted(set((await tx.scalars(query)).all()))


# -- people -------------------------------------------------------------------------------------------------------


async def members(tx: AsyncConnection, subjects: Iterable[str]) -> dict[str, Known]:
    """What is known of these people, by subject."""
    wanted = sorted(set(subjects))
    rows = await tx.execute(sa.select(_member).where(_member.c.subject.in_(wanted))) if wanted else ()
    return {row.subject: _known(row) for row in rows}


def _known(row: Any) -> Known:
    token = None if row.issued_at is None else token_of(row.subject, row.groups, row.person, row.issued_at)
    told = None if row.told_at is None else Said(frozenset(row.told_groups), row.told_person, row.told_by, row.told_at)
    return Known(row.subject, token, told, row.email)


async def delegations(
    tx: AsyncConnection, *, delegate: str | None = None, delegator: str | None = None, at: datetime | None = None
) -> Sequence[Any]:
    """Delegations to or by somebody, the latest first; with `at`, those that are in force then."""
    query = sa.select(_delegation).order_by(_delegation.c.granted_at.desc(), _delegation.c.delegation_id)
    if delegate is not None:
        query = query.where(_delegation.c.delegate == delegate)
    if delegator is not None:
        query = query.where(_delegation.c.delegator == delegator)
    if at is not None:
        query = query.where(_delegation.c.starts <= at, _delegation.c.ends > at, _delegation.c.ended_at.is_(None))
    return (await tx.execute(query.limit(500))).all()


async def delegation(tx: AsyncConnection, delegation_id: str) -> Any:
    return (await tx.execute(sa.select(_delegation).where(_delegation.c.delegation_id == delegation_id))).first()
