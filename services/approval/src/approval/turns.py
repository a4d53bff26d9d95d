"""Whose turn it is: requests enter a stage, or get an alias, one at a time, so that each is judged against who is there
when it is carried out.

An approval has the turn until the registry has told what became of it, or until it may be carried out no more.
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from approval.domain import Request
from approval.tables import OutcomeRow, RequestRow, of

_request, _outcome = of(RequestRow), of(OutcomeRow)


async def before(tx: AsyncConnection, request: Request, at: datetime) -> Request | None:
    """The approved request for the same target that has the turn: of several, the one whose approval ends first."""
    others = await holding(tx, *request.place, at)
    return next((other for other in others if other.target == request.target), None)


async def holding(tx: AsyncConnection, workspace: str, model: str, at: datetime) -> list[Request]:
    """The approved requests that the registry may be carrying out now: that which ends first is the first."""
    told = sa.select(_outcome.c.transition_id).where(_outcome.c.transition_id == _request.c.request_id)
    query = (
        sa.select(_request.c.state)
        .where(_request.c.workspace == workspace, _request.c.model == model, _request.c.holds_until > at)
        .where(~told.exists())
        .order_by(_request.c.holds_until, _request.c.request_id)
    )
    return [Request.model_validate_json(state) for state in await tx.scalars(query)]
