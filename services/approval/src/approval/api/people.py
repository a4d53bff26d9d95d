"""People: who votes for whom meanwhile, and who is in which groups."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from approval import delegations, views
from approval.api.common import After, Body, Callers, Comment, Limit, Moment
from approval.desk import Desk
from approval.directory import Directory
from contracts.access import Action
from contracts.members import Known
from contracts.payload import Identifier, Line
from kit.auth import Principal
from kit.problems import Problem

Subject = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class DelegationBody(Body):
    """`delegator` is the caller; who manages people may name others, but not to let themselves vote for them."""

    delegate: Line
    ends: Moment
    starts: Moment | None = None
    reason: Comment = ""
    delegator: Line | None = None


class MemberBody(Body):
    groups: Annotated[list[Line], Field(max_length=500)]
    person: bool = True


class DelegationDocument(BaseModel):
    delegation_id: str
    delegator: str
    delegate: str
    starts: str
    ends: str
    reason: str
    granted_at: str
    ended_at: str | None
    ended_by: str | None


class DelegationList(BaseModel):
    items: list[DelegationDocument]
    next: str | None


class MemberDocument(BaseModel):
    """`groups`: those of their newest token, without what the directory has taken away since. `told_by`: the token or
    the caller that told last."""

    subject: str
    groups: list[str]
    person: bool
    told_by: str
    at: str


def router(desk: Desk, callers: Callers, directory: Directory) -> APIRouter:
    api = APIRouter(tags=["people"])
    guard, db = callers.guard, desk.db

    def manages(principal: Principal) -> bool:
        return callers.may(principal, Action.MANAGE_PEOPLE, ("*", "*"))

    async def whose(principal: Principal, name: str) -> str:
        """Whom a caller means by a name who may mean themselves, or manages people. Nobody else learns whether there
        is somebody of that name. Raises Problem 403, 422."""
        try:
            found = await guard.named(name)
        except Problem:
            guard.require(principal, Action.MANAGE_PEOPLE, "*", "*")
            raise
        if found != principal.subject:
            guard.require(principal, Action.MANAGE_PEOPLE, "*", "*")
        return found

    @api.get("/v1/delegations", summary="Delegations to and by the caller, the latest first; or everybody's")
    async def list_delegations(
        http: Request, of: Literal["me", "all"] = "me", limit: Limit = 50, after: After = None
    ) -> DelegationList:
        principal = await guard(http)
        if of == "all":
            guard.require(principal, Action.MANAGE_PEOPLE, "*", "*")
        subject = principal.subject if of == "me" else None
        async with db.snapshot() as tx:
            rows = await delegations.listed(tx, subject, after=after, limit=limit + 1)
        if rows is None:
            raise Problem(404, "delegation-not-found", f"no delegation {after} to go on after")
        items = [_delegation(row) for row in rows[:limit]]
        return DelegationList(items=items, next=items[-1].delegation_id if len(rows) > limit else None)

    @api.post("/v1/delegations", summary="Let somebody vote where one may oneself", status_code=201)
    async def grant(http: Request, body: DelegationBody) -> DelegationDocument:
        principal = await guard(http)
        delegator = await whose(principal, body.delegator) if body.delegator else principal.subject
        if delegator != principal.subject:
            if _same(await guard.named(body.delegate), principal.subject):
                raise Problem(403, "own-delegate", "nobody takes the right of others for themselves; ask them")
        elif principal.kind != "person":
            raise Problem(403, "service-account", "only people vote, so only people delegate")
        elif not guard.access.grants(principal, Action.VOTE):
            raise Problem(403, "forbidden", f"{principal.subject} may vote nowhere, so has nothing to delegate")
        delegate = await guard.named(body.delegate)
        if delegator == principal.subject:
            async with db.transaction() as tx:
                person = callers.person(principal, ("*", "*"))
                await directory.seen(tx, person, await desk.clock(tx))
        row = await directory.grant(delegator, delegate, body.starts, body.ends, body.reason, by=principal.subject)
        return _delegation(row)

    @api.delete("/v1/delegations/{delegation_id}", summary="End a delegation")
    async def end(http: Request, delegation_id: Annotated[Identifier, Path()]) -> DelegationDocument:
        principal = await guard(http)
        return _delegation(await directory.end(delegation_id, principal.subject, anybodys=manages(principal)))

    @api.get("/v1/members/{subject:path}", summary="The groups somebody is known to be in")
    async def get_member(http: Request, subject: Subject) -> MemberDocument:
        principal = await guard(http)
        subject = await whose(principal, subject)
        async with db.snapshot() as tx:
            known = (await views.members(tx, [subject])).get(subject)
        if known is None:
            raise Problem(404, "member-not-found", f"nothing is known of {subject} yet")
        return _member(known)

    @api.put("/v1/members/{subject:path}", summary="Tell in which groups somebody is from now on")
    async def put_member(http: Request, subject: Subject, body: MemberBody) -> MemberDocument:
        """For the directory, which takes away only: votes that rest on other groups count no more, before any new token
        tells so. It gives no groups: somebody is in those that their newest token names, and in none before the first.
        """
        principal = await guard(http)
        guard.require(principal, Action.MANAGE_PEOPLE, "*", "*")
        subject = await guard.named(subject) if body.person else subject
        if _same(subject, principal.subject):
            raise Problem(403, "own-membership", "others tell in which groups you are")
        told = await directory.tell(subject, frozenset(body.groups), person=body.person, by=principal.subject)
        return _member(told)

    return api


def _delegation(row: Any) -> DelegationDocument:
    return DelegationDocument(
        delegation_id=row.delegation_id,
        delegator=row.delegator,
        delegate=row.delegate,
        starts=row.starts.isoformat(),
        ends=row.ends.isoformat(),
        reason=row.reason,
        granted_at=row.granted_at.isoformat(),
        ended_at=row.ended_at.isoformat() if row.ended_at else None,
        ended_by=row.ended_by,
    )


def _member(known: Known) -> MemberDocument:
    return MemberDocument(
        subject=known.subject,
        groups=sorted(known.groups),
        person=known.person,
        told_by=known.latest.by,
        at=known.at.isoformat(),
    )


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
