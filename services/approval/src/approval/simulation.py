"""How a policy would have decided the requests of the past."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import copies, lists, views
from approval.desk import Desk
from approval.domain import Request
from contracts.approval import PolicyProposed
from policy.document import parse
from policy.evidence import VERSIONS, marked
from policy.simulate import Past, Simulated
from policy.simulate import simulate as simulated

# Hundreds of requests may take seconds, in which others are served.
_ONE_AT_A_TIME = ThreadPoolExecutor(1, thread_name_prefix="simulation")


class SimulatedRequest(BaseModel):
    """`would` is approved, rejected, expired or waiting. Of a change of a policy `model` is the policy's name,
    `version` its revision, and `workspace` is `*`."""

    request_id: str
    workspace: str
    model: str
    version: int
    to_stage: str
    decided: str
    would: str
    phase: str
    reason: str
    differs: bool


class SimulationReport(BaseModel):
    """`applied_to`: how many of the requests the policy is about."""

    looked_at: int
    applied_to: int
    differing: int
    items: list[SimulatedRequest]


async def simulate(desk: Desk, text: str, last: int, sections: Sequence[lists.Section]) -> SimulationReport:
    """The latest requests of these sections that came to an end, as the policy would have them: requests about
    policies if it is about those, and about versions if not.

    Raises:
        PolicyError: the text is no policy.
    """
    of_policies = parse(text).spec.match.transition.kind == "policy"
    async with desk.db.snapshot() as tx:
        named = await lists.decided(tx, sections, of_policies=of_policies, limit=last)
        requests = {one.request_id: one for one in await views.requests_named(tx, named)}
        past = [await _past(tx, one, one.ended_at) for one in requests.values() if one.ended_at is not None]
    found = await asyncio.get_running_loop().run_in_executor(_ONE_AT_A_TIME, simulated, text, past)
    return SimulationReport(
        looked_at=found.looked_at,
        applied_to=found.applied_to,
        differing=found.differing,
        items=[_item(one, requests[one.request_id]) for one in found.items],
    )


async def _past(tx: AsyncConnection, request: Request, at: datetime) -> Past:
    policies = await views.bound_policies(tx, request.policies)
    first, last = await _seen(tx, request, request.opened_at), await _seen(tx, request, at)
    case = replace(request.case, inputs=last)
    return Past(request.request_id, case, policies, request.status, at, first if first != last else None)


async def _seen(tx: AsyncConnection, request: Request, at: datetime) -> dict[str, Any]:
    """The inputs with all the evidence of that time: frozen are only the types that the policies of then looked at."""
    opened, found = request.opened, dict(request.inputs)
    if isinstance(opened, PolicyProposed):
        return found
    for whose in VERSIONS:
        if (version := found.get(whose)) is not None:
            evidence = await copies.evidenced(tx, opened.workspace, opened.model, version["version"], at=at)
            found[whose] = marked({**version, **evidence}, opened.requested_by)
    return found


def _item(one: Simulated, request: Request) -> SimulatedRequest:
    opened = request.opened
    about = opened.policy if isinstance(opened, PolicyProposed) else None
    workspace, model = ("*", about.name) if about else request.place
    return SimulatedRequest(
        request_id=one.request_id,
        workspace=workspace,
        model=model,
        version=about.revision if about else request.inputs["candidate"]["version"],
        to_stage=request.inputs["request"]["to"],
        decided=one.decided,
        would=one.would,
        phase=one.phase,
        reason=one.reason,
        differs=one.differs,
    )
