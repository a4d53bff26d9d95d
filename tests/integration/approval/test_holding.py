"""How long a decision holds on a real database: no longer than the votes, the window and the emergency that made it."""

from datetime import datetime, timedelta

import pytest
from tests.integration.approval.conftest import Direct
from tests.integration.approval.test_emergencies import LONG, breaks
from tests.integration.approval.test_features import GLASS, REVIEW, approvals, asked, document, only, vote

from approval.domain import Request

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]


async def decided(direct: Direct, request: str) -> tuple[Request, datetime]:
    found = await direct.request(request)
    assert found.decision is not None
    assert found.decision.verdict == "approved"
    return found, found.decision.expires_at


async def test_an_approval_is_good_as_long_as_its_request(only: Direct) -> None:
    """When nothing else limits it: an outage of the registry must not lose what people approved."""
    await only.publish(document(**approvals(REVIEW)))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers")
    found, until = await decided(only, request)
    assert until == found.opened.expires_at


async def test_an_approval_does_not_outlive_its_votes(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2}, valid_for="1d")))
    request = await asked(only, **LONG)
    first = (await vote(only, request, "ben", "reviewers")).votes[0]
    await only.later(hours=20)
    await vote(only, request, "bo", "reviewers")
    assert (await decided(only, request))[1] == first.at + timedelta(days=1)


async def test_an_approval_does_not_outlive_its_window(only: Direct) -> None:
    async with only.db.snapshot() as tx:
        start = (await only.clock(tx)).replace(minute=0, second=0, microsecond=0) + timedelta(hours=3)
    hours = {"from": start.strftime("%H:%M"), "to": (start + timedelta(hours=2)).strftime("%H:%M")}
    freeze = {
        "name": "release",
        "tz": "UTC",
        "from": (start + timedelta(hours=1)).isoformat(timespec="seconds"),
        "to": (start + timedelta(hours=9)).isoformat(timespec="seconds"),
    }
    schedule = {"windows": [{"tz": "UTC", **hours}], "freezes": [freeze]}
    await only.publish(document(schedule=schedule, break_glass=GLASS, **approvals(REVIEW)))
    request = await asked(only, **LONG)
    await vote(only, request, "ben", "reviewers")
    async with only.db.snapshot() as tx:
        only.clock.ahead += start + timedelta(minutes=10) - await only.clock(tx)
    await only.sweep()
    assert (await decided(only, request))[1] == start + timedelta(hours=1)
    # What was decided without regard to windows and votes rests on the emergency alone.
    await only.later(hours=3)
    second = await asked(only, 2, **LONG)
    glass = (await breaks(only, second)).glass
    assert glass is not None
    assert (await decided(only, second))[1] == glass.until
