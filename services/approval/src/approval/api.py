"""HTTP in: requests, votes, policies, and the public key that decisions are checked with."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from joserfc.jwk import OKPKey
from pydantic import BaseModel, ConfigDict, Field

from approval import domain, views
from approval.commands import Commands
from approval.domain import Ballot, Voter
from approval.policy import PolicyError
from approval.revisions import Revisions
from contracts.access import Action
from contracts.approval import Choice, Decision, PolicyRef, Vote
from contracts.payload import Digest, Identifier, Key, Text
from contracts.registry import Criterion
from kit.auth import Principal
from kit.db import Database
from kit.keys import public_jwks
from kit.problems import Problem
from kit.web import Guard

LOOK_AGAIN_SECONDS = 1.0
Status = Literal["open", "approved", "rejected", "expired"]
RequestId = Annotated[Identifier, Path()]
Limit = Annotated[int, Query(ge=1, le=500)]
After = Annotated[str | None, Query(max_length=200, pattern=r"^[\x21-\x7e]+$")]
Filter = Annotated[str | None, Query(max_length=250, pattern=r"^[^\x00]*$")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VoteBody(Body):
    """`rule` chooses among several rules that the voter's groups answer for; by default one that still needs people."""

    choice: Choice
    comment: Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")] = ""
    request_digest: Digest | None = None
    rule: Key | None = None


class PolicyBody(Body):
    document: Text


class RuleState(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    id: str
    groups: list[str] = Field(alias="from")
    count: int
    meaning: str
    have: int


class RequestDocument(BaseModel):
    request_id: str
    kind: str
    workspace: str
    model: str
    version: int
    from_stage: str
    to_stage: str
    status: Status
    requested_by: str
    reason: str
    policies: tuple[PolicyRef, ...]
    gates: tuple[Criterion, ...]
    rules: list[RuleState]
    votes: tuple[Vote, ...]
    inputs: dict[str, Any]
    request_digest: str
    decision: Decision | None
    jws: str | None
    opened_at: str
    decided_at: str | None
    expires_at: str


class RequestList(BaseModel):
    items: list[RequestDocument]
    next: str | None


class PolicyDocument(BaseModel):
    name: str
    revision: int
    digest: str
    document: str
    published_by: str
    published_at: str


class PolicyList(BaseModel):
    items: list[PolicyDocument]
    next: str | None


def document(request: domain.Request, rules: tuple[domain.Rule, ...]) -> RequestDocument:
    opened, decision = request.opened, request.decision
    have = domain.tally(request, rules)
    return RequestDocument(
        **opened.model_dump(include={"workspace", "model", "version", "requested_by", "reason", "request_digest"}),
        request_id=opened.transition_id,
        kind=str(opened.kind),
        from_stage=str(opened.from_stage),
        to_stage=str(opened.to_stage),
        status=request.status,
        policies=opened.policies,
        gates=request.gates,
        rules=[
            RuleState.model_validate(
                {
                    "id": r.id,
                    "from": sorted(f"group:{g}" for g in r.groups),
                    "count": r.count,
                    "meaning": r.meaning,
                    "have": have[r.id],
                }
            )
            for r in rules
        ],
        votes=request.votes,
        inputs=opened.inputs,
        decision=decision,
        jws=request.jws,
        opened_at=request.opened_at.isoformat(),
        decided_at=decision.decided_at.isoformat() if decision else None,
        expires_at=opened.expires_at.isoformat(),
    )


def router(db: Database, guard: Guard, commands: Commands, revisions: Revisions, key: OKPKey) -> APIRouter:
    api = APIRouter()

    async def read(request_id: str, principal: Principal) -> tuple[domain.Request, RequestDocument]:
        async with db.snapshot() as tx:
            found = await views.request(tx, request_id)
            if found is None:
                raise Problem(404, "request-not-found", f"no request {request_id}; it may not have arrived yet")
            guard.require(principal, Action.READ, found.opened.workspace, found.opened.model)
            return found, document(found, await views.rules_of(tx, found))

    def may(principal: Principal, action: Action, request: domain.Request) -> bool:
        try:
            guard.require(principal, action, request.opened.workspace, request.opened.model)
        except Problem:
            return False
        return True

    @api.get("/.well-known/jwks.json", tags=["keys"], summary="The key set that verifies decisions")
    async def jwks() -> dict[str, Any]:
        return public_jwks(key)

    @api.get("/v1/requests", tags=["requests"], summary="Requests the caller may read, newest first")
    async def list_requests(
        http: Request,
        status: Status | None = None,
        workspace: Filter = None,
        model: Filter = None,
        limit: Limit = 50,
        after: After = None,
    ) -> RequestList:
        principal = await guard(http)
        items: list[RequestDocument] = []
        async with db.snapshot() as tx:
            found = views.requests(tx, status=status, workspace=workspace, model=model, after=after)
            async for request in found:
                if not may(principal, Action.READ, request):
                    continue
                if len(items) == limit:
                    return RequestList(items=items, next=items[-1].request_id)
                items.append(document(request, await views.rules_of(tx, request)))
        return RequestList(items=items, next=None)

    @api.get("/v1/requests/{request_id}", tags=["requests"], summary="One request; waits until it is decided")
    async def get_request(
        http: Request, request_id: RequestId, wait: Annotated[float, Query(ge=0, le=30, allow_inf_nan=False)] = 0
    ) -> RequestDocument:
        principal = await guard(http)
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while True:
            left = until - clock()
            try:
                request, found = await read(request_id, principal)
                if request.status != domain.OPEN or left <= 0:
                    return found
            except Problem as problem:
                # It may be on its way from the registry.
                if problem.status != 404 or left <= 0:
                    raise
            await db.changed.wait(min(left, LOOK_AGAIN_SECONDS))

    @api.post("/v1/requests/{request_id}/votes", tags=["requests"], summary="Approve or reject")
    async def vote(http: Request, request_id: RequestId, body: VoteBody) -> RequestDocument:
        principal = await guard(http)
        request, _ = await read(request_id, principal)
        voter = Voter(
            subject=principal.subject,
            groups=principal.groups,
            person=principal.kind == "person",
            may_vote=may(principal, Action.VOTE, request),
            method=principal.method,
        )
        ballot = Ballot(body.choice, body.comment, body.request_digest, body.rule)
        await commands.vote(request_id, voter, ballot)
        return (await read(request_id, principal))[1]

    @api.get("/v1/policies", tags=["policies"], summary="Current policies, or all revisions of one")
    async def list_policies(http: Request, name: Filter = None) -> PolicyList:
        await guard(http)
        async with db.snapshot() as tx:
            rows = await views.policies(tx, name=name)
        return PolicyList(items=[_policy_document(row) for row in rows], next=None)

    @api.post("/v1/policies", tags=["policies"], summary="Publish a revision", status_code=201)
    async def publish(http: Request, body: PolicyBody, response: Response) -> PolicyDocument:
        """201 for a new revision, 200 when the current one says the same."""
        principal = await guard(http)
        guard.require(principal, Action.MANAGE_POLICY, "*", "*")
        try:
            published = await revisions.publish(body.document, principal.subject)
        except PolicyError as error:
            mistakes = [{"line": m.line, "field": m.field, "message": m.message} for m in error.mistakes]
            raise Problem(422, "invalid-policy", str(error), errors=mistakes) from error
        response.status_code = 201 if published.new else 200
        async with db.snapshot() as tx:
            rows = await views.policies(tx, name=published.ref.name)
        return _policy_document(next(row for row in rows if row.revision == published.ref.revision))

    return api


def _policy_document(row: Any) -> PolicyDocument:
    return PolicyDocument(
        name=row.name,
        revision=row.revision,
        digest=row.digest,
        document=row.document,
        published_by=row.published_by,
        published_at=row.published_at.isoformat(),
    )
