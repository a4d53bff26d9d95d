"""How a policy would have decided the requests of the past."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel

from approval import views
from approval.desk import Desk
from approval.domain import Request
from policy.simulate import Past, Simulated
from policy.simulate import simulate as simulated

# Hundreds of requests may take seconds, in which others are served.
_ONE_AT_A_TIME = ThreadPoolExecutor(1, thread_name_prefix="simulation")


class SimulatedRequest(BaseModel):
    """`would` is approved, rejected or waiting."""

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


async def simulate(desk: Desk, text: str, last: int, readable: Callable[[Request], bool]) -> SimulationReport:
    """The latest requests about versions that came to an end, as the policy would have them.

    Raises:
        PolicyError: the text is no policy.
    """
    async with desk.db.snapshot() as tx:
        requests = {r.request_id: r for r in await views.decided_requests(tx, last) if readable(r)}
        past = [
            Past(one.request_id, one.case, await views.bound_policies(tx, one.policies), one.status, one.ended_at)
            for one in requests.values()
            if one.ended_at is not None
        ]
    found = await asyncio.get_running_loop().run_in_executor(_ONE_AT_A_TIME, simulated, text, past)
    return SimulationReport(
        looked_at=found.looked_at,
        applied_to=found.applied_to,
        differing=found.differing,
        items=[_item(one, requests[one.request_id]) for one in found.items],
    )


def _item(one: Simulated, request: Request) -> SimulatedRequest:
    workspace, model = request.place
    return SimulatedRequest(
        request_id=one.request_id,
        workspace=workspace,
        model=model,
        version=request.inputs["candidate"]["version"],
        to_stage=request.inputs["request"]["to"],
        decided=one.decided,
        would=one.would,
        phase=one.phase,
        reason=one.reason,
        differs=one.differs,
    )
