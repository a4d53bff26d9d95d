"""People: who votes for whom meanwhile, and who is in which groups."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import AwareDatetime, BaseModel, Field

from approval import views
from approval.api.common import Body, Callers, Comment
from approval.desk import Desk
from approval.directory import Directory
from contracts.access import Action
from contracts.payload import Identifier, Line
from kit.auth import Principal
from kit.problems import Problem

Subject = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class DelegationBody(Body):
    """`delegator` is the caller, unless the caller manages people."""

    delegate: Line
    ends: AwareDatetime
    starts: AwareDatetime | None = None
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
    """`told_by`: the token or the caller that told of these groups last."""

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

    @api.get("/v1/delegations", summary="Delegations to and by the caller, the latest first; or everybody's")
    async def list_delegations(http: Request, of: Literal["me", "all"] = "me") -> DelegationList:
        principal = await guard(http)
        async with db.snapshot() as tx:
            if of == "all":
                guard.require(principal, Action.MANAGE_PEOPLE, "*", "*")
                rows = list(await views.delegations(tx))
            else:
                found = [*await views.delegations(tx, delegator=principal.subject)]
                rows = [*found, *await views.delegations(tx, delegate=principal.subject)]
        return DelegationList(items=[_delegation(row) for row in rows], next=None)

    @api.post("/v1/delegations", summary="Let somebody vote where one may oneself", status_code=201)
    async def grant(http: Request, body: DelegationBody) -> DelegationDocument:
        principal = await guard(http)
        delegator = body.delegator or principal.subject
        if delegator != principal.subject:
            guard.require(principal, Action.MANAGE_PEOPLE, "*", "*")
        elif principal.kind != "person":
            raise Problem(403, "service-account", "only people vote, so only people delegate")
        if delegator == principal.subject:
            async with db.transaction() as tx:
                person = callers.person(principal, ("*", "*"))
                await directory.seen(tx, person, await desk.clock(tx))
        row = await directory.grant(delegator, body.delegate, body.starts, body.ends, body.reason, by=principal.subject)
        return _delegation(row)

    @api.delete("/v1/delegations/{delegation_id}", summary="End a delegation")
    async def end(http: Request, delegation_id: Annotated[Identifier, Path()]) -> DelegationDocument:
        principal = await guard(http)
        return _delegation(await directory.end(delegation_id, principal.subject, anybodys=manages(principal)))

    @api.get("/v1/members/{subject}", summary="The groups somebody is known to be in")
    async def get_member(http: Request, subject: Subject) -> MemberDocument:
        principal = await guard(http)
        if subject != principal.subject:
            guard.require(principal, Action.MANAGE_PEOPLE, "*", "*")
        async with db.snapshot() as tx:
            row = (await views.members(tx, [subject])).get(subject)
        if row is None:
            raise Problem(404, "member-not-found", f"nothing is known of {subject} yet")
        return _member(row)

    @api.put("/v1/members/{subject}", summary="Tell in which groups somebody is from now on")
    async def put_member(http: Request, subject: Subject, body: MemberBody) -> MemberDocument:
        """For the directory: votes that rest on other groups count no more, before any new token tells so."""
        principal = await guard(http)
        guard.require(principal, Action.MANAGE_PEOPLE, "*", "*")
        row = await directory.tell(subject, frozenset(body.groups), person=body.person, by=principal.subject)
        return _member(row)

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


def _member(row: Any) -> MemberDocument:
    return MemberDocument(
        subject=row.subject, groups=sorted(row.groups), person=row.person, told_by=row.told_by, at=row.at.isoformat()
    )
