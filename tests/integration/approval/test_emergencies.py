"""Emergencies on a real database: who may break the glass, who may look at it, and what a freeze holds and lets go."""

from datetime import timedelta
from typing import Any

import pytest
from tests.integration.approval.conftest import Direct
from tests.integration.approval.crowd import waiting_for
from tests.integration.approval.test_features import GLASS, REVIEW, approvals, asked, document, only, vote

from approval import standing
from approval.domain import Request
from kit.problems import Problem

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
DOWN = "production is down"
LONG: dict[str, Any] = {"expires_in": 800 * 3600}
ASKS: dict[str, Any] = {"from": ["group:risk"], "within": "2d", "on_overdue": ["page", "freeze_model"]}
ONE, TWO = ({**GLASS, "review": {**ASKS, "count": count}} for count in (1, 2))
PAGED = {**GLASS, "review": {**ASKS, "count": 1, "on_overdue": ["page"]}}
# It lets the request pass an hour after that was opened.
WAITS: dict[str, Any] = {"break_glass": {**GLASS, "skips": ["approvals"]}, "schedule": {"min_wait": "1h"}}
# The gate is not among what it skips, so that the request stays open.
HELD: dict[str, Any] = {
    "gates": [{"id": "latency", "cel": "candidate.metrics.p95 < 1.0", "waivable_by": ["group:leads"]}],
    "break_glass": {**GLASS, "skips": ["approvals"]},
}


async def breaks(direct: Direct, request: str, who: str = "otto", *groups: str, **given: Any) -> Request:
    person = await direct.person(who, *(groups or ("oncall",)), **given)
    return await direct.parts.emergencies.break_glass(request, person, DOWN)


async def reviews(
    direct: Direct, request: str, who: str, *groups: str, justified: bool = True, **given: Any
) -> Request:
    person = await direct.person(who, *(groups or ("risk",)), **given)
    return await direct.parts.emergencies.review(request, person, justified=justified, comment="I looked")


async def code(work: Any) -> str:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value.code


async def emergency(direct: Direct, glass: dict[str, Any] = ONE, **asks: Any) -> str:
    """Version 1 of m is let in by otto. Gives the request."""
    await direct.publish(document(break_glass=glass, **approvals(REVIEW, **asks)))
    request = await asked(direct, **LONG)
    assert (await breaks(direct, request)).status == "approved"
    return request


async def stored(direct: Direct, request: str) -> tuple[str, list[str]]:
    """The phase that is noted of a request, and what reviewers find in their inbox."""
    async with direct.db.snapshot() as tx:
        row = (await standing.of_requests(tx, [request]))[request]
        inbox = await waiting_for(tx, ["reviewers"], "ben", limit=10)
    return row.phase, [request_id for _, request_id in inbox]


# -- a freeze ------------------------------------------------------------------------------------------------------


async def test_requests_go_on_when_a_freeze_is_lifted(only: Direct) -> None:
    first = await emergency(only)
    early = await asked(only, 2, **LONG)
    assert await stored(only, early) == ("people", [early])
    await only.later(days=2, hours=1)
    late = await asked(only, 3, **LONG)
    assert await stored(only, early) == ("frozen", [])  # asked for before the freeze began
    assert await stored(only, late) == ("frozen", [])
    assert (await vote(only, late, "ben", "reviewers")).status == "open"
    assert (await reviews(only, first, "rita")).reviewed
    await only.later(seconds=5)
    assert await stored(only, early) == ("people", [early])
    assert (await only.request(late)).status == "approved"


async def test_a_deadline_freezes_before_anybody_notes_it(only: Direct) -> None:
    first = await emergency(only)
    only.clock.ahead += timedelta(days=3)  # nothing was swept: the service was down
    late = await asked(only, 2, **LONG)
    assert (await vote(only, late, "ben", "reviewers")).status == "open"
    assert (await stored(only, late))[0] == "frozen"
    assert (await only.request(first)).overdue is None
    await only.sweep()
    overdue = (await only.request(first)).overdue
    assert overdue is not None
    assert (overdue.frozen, overdue.page) == (True, ("service:oncall", "group:risk"))


async def test_a_policy_that_only_pages_freezes_nothing(only: Direct) -> None:
    first = await emergency(only, PAGED)
    await only.later(days=3)
    overdue = (await only.request(first)).overdue
    assert overdue is not None
    assert (overdue.frozen, overdue.page) == (False, ("service:oncall", "group:risk"))
    assert (await vote(only, await asked(only, 2, **LONG), "ben", "reviewers")).status == "approved"


async def test_an_emergency_that_was_none_freezes_at_once(only: Direct) -> None:
    first = await emergency(only, TWO)
    held = await asked(only, 2, **LONG)
    assert not (await reviews(only, first, "rita")).reviewed
    found = await reviews(only, first, "rolf", justified=False)
    assert not found.reviewed
    assert found.reviews[-1].page == ("service:oncall", "group:risk")
    await only.sweep()
    assert await stored(only, held) == ("frozen", [])
    # Two people have to accept it from now on: what Rita said before does not count.
    assert not (await reviews(only, first, "rolf")).reviewed
    assert (await reviews(only, first, "rita")).reviewed
    await only.sweep()
    assert await stored(only, held) == ("people", [held])
    # Somebody objects later: it is looked at again.
    found = await reviews(only, first, "rosa", justified=False)
    await only.sweep()
    assert (found.reviewed, await stored(only, held)) == (False, ("frozen", []))


# -- who breaks the glass ------------------------------------------------------------------------------------------


async def test_the_requester_may_break_the_glass(only: Direct) -> None:
    """It is an emergency: others look at it afterwards."""
    await only.publish(document(break_glass=GLASS, **approvals(REVIEW)))
    request = await asked(only, by="otto")
    assert (await breaks(only, request)).status == "approved"


async def test_breaking_the_glass_needs_a_role(only: Direct) -> None:
    glass = {**GLASS, "allowed": ["group:oncall", "group:staff"]}
    await only.publish(document(break_glass=glass, **approvals(REVIEW)))
    request = await asked(only)
    for groups in (("staff",), ("staff", "reviewers"), ("staff", "ml-engineers")):
        assert await code(breaks(only, request, "vic", *groups)) == "not-entitled"
    # The directory has taken the role since this token was made.
    old = await only.person("olaf", "oncall")
    await only.later(minutes=1)
    await only.parts.directory.tell("olaf", frozenset({"staff"}), person=True, by="the directory")
    assert await code(only.parts.emergencies.break_glass(request, old, DOWN)) == "not-entitled"
    assert (await breaks(only, request, "vic", "staff", "admins")).status == "approved"


async def test_breaking_the_glass_is_a_signature(only: Direct) -> None:
    signature = {"reauthenticate_within": "5m", "methods": ["webauthn"]}
    await only.publish(document(break_glass=TWO, **approvals(REVIEW, signature=signature)))
    request = await asked(only)
    assert await code(breaks(only, request)) == "authentication-too-weak"
    assert (await breaks(only, request, method="webauthn")).status == "approved"
    assert await code(reviews(only, request, "rita")) == "authentication-too-weak"
    async with only.db.snapshot() as tx:
        old = await only.clock(tx) - timedelta(minutes=6)
    late = reviews(only, request, "rita", method="webauthn", authenticated_at=old)
    assert await code(late) == "authentication-too-old"
    assert len((await reviews(only, request, "rita", method="webauthn")).reviews) == 1


async def test_the_glass_is_broken_once(only: Direct) -> None:
    await only.publish(document(**HELD, **approvals(REVIEW)))
    request = await asked(only, **LONG)
    glass = (await breaks(only, request)).glass
    await only.later(minutes=5)
    assert (await breaks(only, request)).glass == glass
    assert (await breaks(only, request, "olaf")).glass == glass
    await only.later(hours=5)
    assert await code(breaks(only, request)) == "emergency-over"
    assert (await only.types("default/m")).count("glass.broken") == 1
    # Another request, as it were: people may judge it anew.
    await only.publish(document(**HELD, **approvals({**REVIEW, "count": 2})))
    await only.sweep()
    again = (await breaks(only, request)).glass
    assert again is not None
    assert again != glass


# -- an emergency that waits ---------------------------------------------------------------------------------------


async def test_an_emergency_that_waits_is_looked_at_in_time(only: Direct) -> None:
    await only.publish(document(**WAITS, **approvals(REVIEW)))
    request = await asked(only, **LONG)
    assert (await breaks(only, request)).status == "open"
    await only.later(minutes=59)
    assert (await only.request(request)).status == "open"
    await only.later(minutes=2)
    assert (await only.request(request)).status == "approved"


async def test_an_emergency_that_waits_for_too_long_is_over(only: Direct) -> None:
    await only.publish(document(**{**WAITS, "schedule": {"min_wait": "5h"}}, **approvals(REVIEW)))
    request = await asked(only, **LONG)
    await breaks(only, request)
    await only.later(hours=6)
    assert (await only.request(request)).status == "open"
    assert await code(breaks(only, request)) == "emergency-over"


@pytest.mark.parametrize(("groups", "person"), [((), False), (("oncall",), False), (("staff",), True)])
async def test_an_emergency_of_somebody_who_has_left_is_none(
    only: Direct, groups: tuple[str, ...], person: bool
) -> None:
    glass = {**GLASS, "skips": ["approvals"], "allowed": ["group:oncall", "group:staff"]}
    await only.publish(document(**{**WAITS, "break_glass": glass}, **approvals(REVIEW)))
    request = await asked(only, **LONG)
    otto = ("oncall", "staff")
    await breaks(only, request, "otto", *otto)
    await only.later(minutes=5)
    await only.parts.directory.tell("otto", frozenset(groups), person=person, by="the directory")
    await only.later(hours=1)
    found = await only.request(request)
    assert (found.status, found.glass is not None) == ("open", True)
    assert (await only.parts.people.look(request)).status == "open"
    # Somebody else is still there.
    found = await breaks(only, request, "olaf", *otto)
    assert (found.status, [past.emergency.by for past in found.past_emergencies]) == ("approved", ["otto"])
    assert found.past_emergencies[0].why == "olaf broke the glass anew"
    assert found.decision is not None
    assert found.decision.break_glass == found.glass


async def test_who_comes_back_in_time_has_broken_the_glass(only: Direct) -> None:
    await only.publish(document(**WAITS, **approvals(REVIEW)))
    request = await asked(only, **LONG)
    await breaks(only, request)
    for groups in ((), ("oncall",)):
        await only.later(minutes=5)
        await only.parts.directory.tell("otto", frozenset(groups), person=True, by="the directory")
    await only.later(hours=1)
    assert (await only.request(request)).status == "approved"


# -- who reviews it ------------------------------------------------------------------------------------------------


async def test_who_took_part_does_not_review(only: Direct) -> None:
    separation = {"separation_of_duties": {"exclude": ["requester", "version.author", "version.committers"]}}
    await only.publish(document(break_glass=ONE, **approvals(REVIEW, **separation)))
    await only.registry.register("m", 1, by="carl", committers=("cora@example.org",), accuracy=0.95)
    request = await asked(only, **LONG)
    await breaks(only, request, "otto", "oncall", "risk")
    for who, email, why in (
        ("otto", None, "own-request"),
        ("Otto", None, "own-request"),
        ("x", "OTTO", "own-request"),
        ("ana", None, "own-request"),
        ("carl", None, "own-version"),
        ("cora", "cora@example.org", "own-commits"),
    ):
        assert await code(reviews(only, request, who, email=email)) == why, who
    async with only.db.snapshot() as tx:
        inbox = {
            who: await waiting_for(tx, ["risk"], who, limit=10)
            for who in ("otto", "ana", "carl", "cora@example.org", "rita")
        }
    assert [who for who, found in inbox.items() if found] == ["rita"]


async def test_reviewing_needs_a_role(only: Direct) -> None:
    glass = {**GLASS, "review": {**ASKS, "from": ["group:risk", "group:staff"]}}
    request = await emergency(only, glass)
    assert await code(reviews(only, request, "vic", "staff", may_vote=False)) == "not-an-approver"
    assert await code(reviews(only, request, "vic", "others")) == "not-an-approver"
    assert await code(reviews(only, request, "bot", "risk", person=False)) == "service-account"


async def test_a_reviewer_who_has_left_counts_no_more(only: Direct) -> None:
    request = await emergency(only, TWO)
    await reviews(only, request, "rita")
    await only.later(minutes=1)
    await only.parts.directory.tell("rita", frozenset({"others"}), person=True, by="the directory")
    assert not (await reviews(only, request, "rolf")).reviewed
    assert len((await reviews(only, request, "rolf")).reviews) == 2  # again does nothing
    assert (await reviews(only, request, "rosa")).reviewed


@pytest.mark.parametrize(("never", "status"), [(False, "open"), (True, "rejected")])
async def test_what_an_emergency_may_skip_stays_open(only: Direct, never: bool, status: str) -> None:
    gate = {"id": "latency", "cel": "candidate.metrics.p95 < 1.0", "never_skip": never}
    glass = {**GLASS, "skips": ["approvals", "schedule", "gates"]}
    await only.publish(document(gates=[gate], break_glass=glass, **approvals(REVIEW)))
    request = await asked(only)
    held = await only.request(request)
    assert held.status == status
    if status == "open":
        assert (await stored(only, request)) == ("gates", [])
        assert (await breaks(only, request)).status == "approved"
