"""HTTP in: what the log keeps for how long, and what no law lets go."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from audit.access import AccessLog
from audit.answers import Answer
from audit.retention.rules import Rules, Scope
from contracts.access import Action
from contracts.audit import RetentionRule
from contracts.payload import ModelName, Reason, Workspace
from kit.auth import Principal
from kit.problems import Problem
from kit.web import Guard

Document = dict[str, Any]


class NewPolicy(BaseModel):
    """`topic` and `type` "*" are any; of several rules about a record the longest counts. `reason`: why less than a
    floor of the law is enough."""

    model_config = ConfigDict(extra="forbid")

    rules: Annotated[tuple[RetentionRule, ...], Field(min_length=1, max_length=200)]
    reason: Reason | None = None


class Policy(Answer):
    sequence: int
    rules: list[RetentionRule]
    published_by: str
    reason: str | None
    at: datetime


class NewHold(BaseModel):
    """Without a model it protects the workspace, without both everything. `since` and `until` (without it) narrow it by
    when the log recorded a record."""

    model_config = ConfigDict(extra="forbid")

    workspace: Workspace | None = None
    model: ModelName | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    reason: Reason


class Hold(Answer):
    id: str
    workspace: str | None
    model: str | None
    since: datetime | None
    until: datetime | None
    placed_by: str
    reason: str
    at: datetime
    released_by: str | None
    released_at: datetime | None
    release_reason: str | None


class Holds(Answer):
    items: list[Hold]


class Release(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Reason


def router(guard: Guard, access: AccessLog, rules: Rules) -> APIRouter:
    api = APIRouter(tags=["retention"])
    Caller = Annotated[Principal, Depends(guard)]

    async def auditor(request: Request, caller: Caller) -> None:
        await access.admit(caller, f"{request.method} {request.url.path}")

    @api.get(
        "/v1/retention/policy", summary="The policy in force", response_model=Policy, dependencies=[Depends(auditor)]
    )
    async def current() -> Document:
        found = await rules.current()
        if found is None:
            raise Problem(404, "no-policy", "no retention policy was published: nothing is pruned")
        return found

    @api.put("/v1/retention/policy", summary="Publish a policy", response_model=Policy)
    async def publish(body: NewPolicy, caller: Caller) -> Document:
        await access.admit(caller, "PUT /v1/retention/policy", Action.CONFIGURE)
        return await rules.publish(body.rules, body.reason, caller.subject)

    @api.get("/v1/retention/holds", summary="All legal holds", response_model=Holds, dependencies=[Depends(auditor)])
    async def holds() -> Document:
        return {"items": await rules.holds()}

    @api.post("/v1/retention/holds", summary="Place a legal hold", status_code=201, response_model=Hold)
    async def place(body: NewHold, caller: Caller) -> Document:
        await access.admit(caller, "POST /v1/retention/holds", Action.CONFIGURE)
        scope = Scope(body.workspace, body.model, body.since, body.until)
        return await rules.place(scope, body.reason, caller.subject)

    @api.post("/v1/retention/holds/{hold_id}/release", summary="Release a legal hold", response_model=Hold)
    async def release(
        body: Release, caller: Caller, hold_id: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
    ) -> Document:
        await access.admit(caller, f"POST /v1/retention/holds/{hold_id}/release", Action.CONFIGURE)
        return await rules.release(hold_id, body.reason, caller.subject)

    return api
