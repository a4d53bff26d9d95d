"""Policies: read, check, publish, and see what they would do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from approval import lists, views
from approval.api.common import Body, Callers, Comment, Filter, Limit
from approval.desk import Desk
from approval.explain import Asked, Explanation, explain
from approval.revisions import Proposed, Revisions
from approval.simulation import SimulationReport, simulate
from contracts.access import Action
from contracts.payload import Line, ModelName, StageName, Target, Text, VersionNumber, Workspace
from contracts.registry import RequestFields
from kit.problems import Problem
from kit.web import Guard
from policy.document import parse
from policy.reader import PolicyError


class PolicyText(Body):
    document: Text


class PolicyBody(PolicyText):
    reason: Comment = ""


class SimulationBody(PolicyText):
    last: Annotated[int, Field(ge=1, le=500)] = 50


class ExplainBody(Body):
    """A request that might be made. `from` is where the version is now, by default."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    workspace: Workspace = "default"
    model: ModelName
    version: VersionNumber
    to: Target
    from_stage: Annotated[StageName | None, Field(alias="from")] = None
    kind: Literal["promotion", "rollback", "alias"] | None = None
    reason: Comment = ""
    fields: RequestFields = Field(default_factory=dict)


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


class PolicyRequested(BaseModel):
    """`published`: the revision is in force. Otherwise the request of this id has to be approved first."""

    name: str
    revision: int
    digest: str
    published: bool
    request_id: str | None
    status: str


class Checked(BaseModel):
    name: Line
    digest: str


def router(desk: Desk, callers: Callers, revisions: Revisions) -> APIRouter:
    api = APIRouter(tags=["policies"])
    guard, db = callers.guard, desk.db

    @api.get("/v1/policies", summary="Current policies, or all revisions of one")
    async def list_policies(http: Request, name: Filter = None, limit: Limit = 50, after: Filter = None) -> PolicyList:
        """`after`: a policy's name; of the revisions of one, which come newest first, a revision's number."""
        await guard(http)
        place = {"after": after} if name is None else {"below": _number(after)}
        async with db.snapshot() as tx:
            rows = await views.policies(tx, name=name, limit=limit + 1, **place)
        items = [_document(row) for row in rows[:limit]]
        following = str(items[-1].name if name is None else items[-1].revision) if len(rows) > limit else None
        return PolicyList(items=items, next=following)

    @api.post(
        "/v1/policies",
        summary="Publish a revision, or ask for it",
        status_code=201,
        responses={
            200: {"model": PolicyRequested, "description": "The revision in force says the same"},
            202: {"model": PolicyRequested, "description": "Others have to approve it first"},
        },
    )
    async def publish(http: Request, body: PolicyBody, response: Response) -> PolicyRequested:
        """200: the revision in force says the same. 201: it is in force now. 202: others have to approve first."""
        principal = await guard(http)
        guard.require(principal, Action.MANAGE_POLICY, "*", "*")
        await _refuse_names(guard, body.document)
        with _mistakes():
            proposed = await revisions.propose(body.document, principal.subject, body.reason)
        found = _requested(proposed)
        response.status_code = 200 if proposed.request is None else 201 if found.published else 202
        return found

    @api.post("/v1/policies/check", summary="Whether a document is a policy")
    async def check(http: Request, body: PolicyText) -> Checked:
        await guard(http)
        with _mistakes():
            policy = parse(body.document)
        return Checked(name=policy.name, digest=policy.digest)

    @api.post("/v1/policies/explain", summary="What a request would need, and how its gates stand now")
    async def explained(http: Request, body: ExplainBody) -> Explanation:
        principal = await guard(http)
        guard.require(principal, Action.READ, body.workspace, body.model)
        asked = Asked(**body.model_dump(), requested_by=principal.subject)
        return await explain(desk, asked)

    @api.post("/v1/policies/simulate", summary="How a policy would have decided past requests")
    async def simulated(http: Request, body: SimulationBody) -> SimulationReport:
        """The latest requests that the caller may read: about versions, or about policies if it is about those."""
        sections = lists.readable(guard.access.grants(await guard(http), Action.READ))
        with _mistakes():
            return await simulate(desk, body.document, body.last, sections)

    return api


_USER = re.compile(r"\buser:([^\s\"',\]}#]{1,200})")


async def _refuse_names(guard: Guard, document: str) -> None:
    """Raises Problem 422 when the text of a policy, which stays as it was written, names somebody by their plain name
    though people have pseudonyms. Services are named as they are called."""
    for name in dict.fromkeys(_USER.findall(document)):
        if (meant := await guard.meant(name)) != name:
            raise Problem(422, "personal-data", f"policies stay in the log: write user:{meant} for whom user: names")


@contextmanager
def _mistakes() -> Iterator[None]:
    """Turns what is wrong with a document into a Problem 422 with line and field of each mistake."""
    try:
        yield
    except PolicyError as error:
        mistakes = [{"line": m.line, "field": m.field, "message": m.message} for m in error.mistakes]
        raise Problem(422, "invalid-policy", str(error), errors=mistakes) from error


def _number(after: str | None) -> int | None:
    if after is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", after):
        raise Problem(422, "invalid-request", f"'after' is the number of a revision, not {after!r}")
    return int(after)


def _requested(proposed: Proposed) -> PolicyRequested:
    request = proposed.request
    published = request is None or request.published is not None
    return PolicyRequested(
        **proposed.ref.model_dump(),
        published=published,
        request_id=request.request_id if request else None,
        status="approved" if request is None else request.status,
    )


def _document(row: Any) -> PolicyDocument:
    return PolicyDocument(
        name=row.name,
        revision=row.revision,
        digest=row.digest,
        document=row.document,
        published_by=row.published_by,
        published_at=row.published_at.isoformat(),
    )
