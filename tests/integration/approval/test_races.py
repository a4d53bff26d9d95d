"""Acts that come at the same moment, through the real use cases on a real database.

HALLMARK_RACES=1000 races approve and deny as often as the issue says; CI does fewer.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from tests.integration.approval.conftest import Direct, Registry, transition_id
from tests.support.waiting import until

from approval import views
from approval.app import assemble
from approval.clock import Clock
from approval.consumers import RegistryEvents
from approval.domain import Request
from approval.keyring import Keyring
from contracts.approval import Choice
from contracts.envelope import Envelope, now
from contracts.model import Dataset, Evaluation
from contracts.registry import VersionEvaluated
from kit.auth import Access
from kit.db import Database
from kit.problems import Problem
from policy.case import Ballot, Person

RACES = int(os.environ.get("HALLMARK_RACES", "50"))
SETTLE = 0.25
LANES = 8  # models, each with a stream of its own
APPROVE, REJECT = Ballot(Choice.APPROVE), Ballot(Choice.REJECT, "no")
WHY = "production is down"
REVIEW = {"id": "review", "meaning": "I reviewed it", "from": ["group:reviewers"], "count": 1}
WAIVABLE = {"id": "good", "cel": "candidate.metrics.accuracy >= 0.9", "waivable_by": ["group:leads"]}
GLASS = {
    "allowed": ["group:oncall"],
    "skips": ["approvals", "schedule"],
    "page": ["service:oncall"],
    "review": {"from": ["group:risk"], "within": "2d"},
}


def policy(name: str = "here", **spec: Any) -> str:
    given = {"match": {"transition": {"to": "Production"}}, **spec}
    return json.dumps({"kind": "PromotionPolicy", "metadata": {"name": name}, "spec": given})


def rules(*given: dict[str, Any]) -> dict[str, Any]:
    return {"approvals": {"rules": given}}


@pytest_asyncio.fixture
async def racing(direct: Direct) -> AsyncIterator[Direct]:
    """With a connection for everybody who acts at once: what waits for one has not arrived."""
    db = Database(direct.settings.database_url.get_secret_value(), name="approval", pool=4 * LANES)
    settings, clock = direct.settings.model_copy(update={"settle_seconds": SETTLE}), Clock()
    parts = assemble(settings, db, Access.load(settings.access_file), Keyring(settings.decision_key), clock)
    apply = RegistryEvents(parts.commands)

    async def send(envelope: Envelope) -> None:
        async with db.transaction() as tx:
            await apply(tx, envelope)

    found = Direct(settings, db, clock, parts, Registry(send, clock=clock))
    retired = {"match": {"transition": {"to": "Production"}, "models": ["nothing"]}}
    await found.publish(policy("production", **retired))
    await found.publish(policy(**rules(REVIEW)))
    yield found
    await db.close()


async def asked(direct: Direct, model: str = "m", **given: Any) -> str:
    return transition_id(await direct.registry.request(model, **given))


async def ben_of(direct: Direct) -> Person:
    return await direct.person("ben", "reviewers")


async def together(*acts: Awaitable[Any]) -> list[Any]:
    """What each came to; a refusal is given, anything else that is raised fails the test."""
    outcomes = await asyncio.gather(*acts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Problem):
            raise outcome
    return [outcome.code if isinstance(outcome, Problem) else outcome for outcome in outcomes]


async def waiting(direct: Direct, number: int) -> None:
    """Until so many wait for a lock."""
    query = sa.text(
        "select count(*) from pg_locks join pg_database on pg_database.oid = database "
        "where locktype = 'advisory' and not granted and datname = current_database()"
    )

    async def so_many() -> bool:
        async with direct.db.snapshot() as tx:
            return bool(await tx.scalar(query) == number)

    await until(so_many)


async def approves_cast(direct: Direct, request_id: str) -> None:
    async def cast() -> bool:
        return len((await direct.request(request_id)).votes) == 1

    await until(cast)


@pytest.mark.timeout(3600)
async def test_approve_and_deny_at_once_are_never_an_approval(racing: Direct) -> None:
    approvals: list[str] = []

    async def lane(model: str) -> None:
        await racing.registry.register(model, accuracy=0.95)
        for turn in range(RACES // LANES):
            request = await asked(racing, model)
            ben, bo = await racing.person("ben", "reviewers"), await racing.person("bo", "reviewers")
            votes = [racing.parts.people.vote(request, ben, APPROVE), racing.parts.people.vote(request, bo, REJECT)]
            outcomes = await together(*(votes if turn % 2 else reversed(votes)))
            found = await racing.request(request)
            if found.status != "rejected":
                approvals.append(f"{request} is {found.status}: {outcomes}")
            assert "request-closed" not in outcomes or found.decision is not None

    await asyncio.gather(*(lane(f"m{n}") for n in range(LANES)))
    assert approvals == []


async def test_a_denial_that_has_come_is_waited_for(racing: Direct) -> None:
    """It waits for its turn behind the one who would approve, though the settling time is over."""
    await racing.registry.register("m", accuracy=0.95)
    request = await asked(racing)
    people, bo = racing.parts.people, await racing.person("bo", "reviewers")
    async with racing.db.transaction() as tx:
        await racing.parts.desk.log.lock(tx, "default/m")
        approves = asyncio.create_task(people.vote(request, await ben_of(racing), APPROVE))
        await waiting(racing, 1)
    await approves_cast(racing, request)
    racing.clock.ahead += timedelta(minutes=1)
    async with racing.db.transaction() as tx:
        await racing.parts.desk.log.lock(tx, "default/m")
        looks = asyncio.create_task(people.look(request))
        await waiting(racing, 1)
        denies = asyncio.create_task(people.vote(request, bo, REJECT))
        await waiting(racing, 2)
    assert (await looks).decision is None
    await asyncio.gather(approves, denies)
    found = await racing.request(request)
    assert (found.status, [vote.voter for vote in found.votes]) == ("rejected", ["ben", "bo"])


async def test_an_act_that_comes_to_nothing_does_not_hold_the_approval_up(racing: Direct) -> None:
    await racing.registry.register("m", accuracy=0.95)
    request = await asked(racing)
    async with racing.db.transaction() as tx:
        await racing.parts.desk.log.announce(tx, request)
        await racing.parts.people.vote(request, await ben_of(racing), APPROVE)
        racing.clock.ahead += timedelta(minutes=1)
        await racing.sweep()
        assert (await racing.request(request)).decision is None
    racing.clock.ahead += timedelta(minutes=1)
    await racing.sweep()
    assert (await racing.request(request)).status == "approved"


async def test_a_double_click_is_one_act(racing: Direct) -> None:
    """Of everything that people do."""
    await racing.publish(policy(gates=[WAIVABLE], break_glass=GLASS, **rules(REVIEW)))
    for turn in range(5):
        await racing.registry.register("m", turn + 1, accuracy=0.5)
        request = await asked(racing, version=turn + 1)
        ben, lea = await racing.person("ben", "reviewers"), await racing.person("lea", "leads")
        otto, rita = await racing.person("otto", "oncall"), await racing.person("rita", "risk")
        waive, review = racing.parts.people.waive, racing.parts.emergencies.review
        await together(*(waive(request, lea, "here/good", "known", None) for _ in range(5)))
        if turn % 2:
            await together(*(racing.parts.people.vote(request, ben, APPROVE) for _ in range(5)))
        else:
            breaks = racing.parts.emergencies.break_glass
            outcomes = await together(*(breaks(request, otto, "it is down") for _ in range(5)))
            assert sorted(map(str, outcomes))[1:] == ["request-closed"] * 4 or outcomes.count("request-closed") == 4
            await together(*(review(request, rita, justified=True, comment="so it was") for _ in range(5)))
        found = await racing.request(request)
        assert (found.status, len(found.waivers)) == ("approved", 1)
        assert (len(found.votes), len(found.reviews)) == ((1, 0) if turn % 2 else (0, 1))
        await racing.not_carried_out(request)
    types = await racing.types("default/m")
    assert {kind: types.count(kind) for kind in ("gate.waived", "vote.cast", "glass.broken", "review.given")} == {
        "gate.waived": 5,
        "vote.cast": 2,
        "glass.broken": 3,
        "review.given": 3,
    }


async def test_what_is_sent_again_is_done_once(racing: Direct) -> None:
    await racing.registry.register("m", 1, accuracy=0.95)
    await racing.registry.register("m", 2, accuracy=0.95)
    request, parts, ends = await asked(racing), racing.parts, now() + timedelta(days=3)
    await together(*(parts.people.comment(request, "ana", "please") for _ in range(5)))
    await parts.people.comment(request, "ben", "soon")
    await parts.people.comment(request, "ana", "please")
    assert [c.author for c in (await racing.request(request)).comments] == ["ana", "ben", "ana"]
    grant, revoke = parts.directory.grant, parts.revocations.revoke
    lent = await together(*(grant("ben", "bo", None, ends, "away", by="ben") for _ in range(5)))
    assert len({row.delegation_id for row in lent}) == 1
    others = [
        await grant("ben", who, since, ends, "", by="ben")
        for who, since in (("bea", None), ("bo", ends - ends.resolution))
    ]
    assert len({row.delegation_id for row in (*lent, *others)}) == 3
    orders = await together(*(revoke("default", "m", 2, by="olga", reason="it leaks") for _ in range(5)))
    orders.append(await revoke("default", "m", 2, by="olga", reason="it leaks", fallback=1))
    assert [len({order.jws for order in orders[:n]}) for n in (5, 6)] == [1, 2]


async def test_a_vote_and_its_withdrawal_at_once(racing: Direct) -> None:
    await racing.registry.register("m", accuracy=0.95)
    statuses = []
    for turn in range(20):
        request, ben = await asked(racing), await racing.person("ben", "reviewers")
        acts = [racing.parts.people.vote(request, ben, APPROVE), racing.parts.people.withdraw(request, ben, "no, wait")]
        await together(*(acts if turn % 2 else reversed(acts)))
        found = await racing.request(request)
        statuses.append(found.status)
        withdrawn = [past.vote.voter for past in found.past_votes]
        assert (found.status, len(found.votes), withdrawn) in (("open", 0, ["ben"]), ("approved", 1, []))
        await racing.not_carried_out(request)
    assert "approved" in statuses


async def test_a_vote_and_a_change_of_what_it_is_about_at_once(racing: Direct) -> None:
    await racing.registry.register("m", accuracy=0.95)
    for turn in range(20):
        request, ben = await asked(racing), await racing.person("ben", "reviewers")
        before = await racing.request(request)
        evaluation = Evaluation(dataset=Dataset(name="may"), metrics={"auc": turn / 100}, evaluated_at=now())
        event = VersionEvaluated(workspace="default", model="m", version=1, evaluation=evaluation)
        saw = Ballot(Choice.APPROVE, request_digest=before.request_digest if turn % 4 else None)
        acts: list[Any] = [racing.parts.people.vote(request, ben, saw), racing.registry.publish(event, "m", 1)]
        outcomes = await together(*(acts if turn % 2 else reversed(acts)))
        found = await racing.request(request)
        if found.decision is not None:
            [vote] = found.decision.votes
            assert vote.request_digest == found.decision.request_digest == found.request_digest
            assert (vote.request_digest == before.request_digest) or not turn % 4
        else:
            assert ("request-changed" in outcomes) != (len(found.past_votes) == 1)
            assert (found.votes, found.request_digest != before.request_digest) == ((), True)
        await racing.not_carried_out(request)


async def test_several_sweepers_at_once_do_everything_once(racing: Direct) -> None:
    ladder = [{"after": "1h", "do": "remind"}, {"after": "2h", "do": "notify", "to": ["group:leads"]}]
    await racing.publish(policy(schedule={"min_wait": "3h"}, escalation=ladder, **rules(REVIEW)))
    models = [f"m{n}" for n in range(12)]
    for model in models:
        await racing.registry.register(model, accuracy=0.95)
    requests = [await asked(racing, model, expires_in=80 * 3600) for model in models]
    for hour in (1, 2, 3):
        if hour == 3:  # nobody is reminded of what is approved and waits for its time
            ben = await ben_of(racing)
            await asyncio.gather(*(racing.parts.people.vote(request, ben, APPROVE) for request in requests))
        racing.clock.ahead += timedelta(hours=1, minutes=1)

        async def sweep() -> int:
            done = 0
            while some := await racing.parts.sweeper.once():
                done += some
            return done

        assert sum(await together(*(sweep() for _ in range(4)))) == len(requests)
    types = [kind for model in models for kind in await racing.types(f"default/{model}")]
    assert (types.count("request.escalated"), types.count("request.decided")) == (2 * len(requests), len(requests))
    assert {(await racing.request(request)).status for request in requests} == {"approved"}


async def test_an_emergency_and_a_denial_at_once(racing: Direct) -> None:
    """One of them ends it; the other is told so."""
    await racing.publish(policy(break_glass=GLASS, **rules(REVIEW)))
    await racing.registry.register("m", accuracy=0.95)
    statuses = set()
    for turn in range(20):
        request, ben, otto = await asked(racing), await ben_of(racing), await racing.person("otto", "oncall")
        acts = [
            racing.parts.people.vote(request, ben, REJECT),
            racing.parts.emergencies.break_glass(request, otto, WHY),
        ]
        outcomes = await together(*(acts if turn % 2 else reversed(acts)))
        found = await racing.request(request)
        statuses.add(found.status)
        assert outcomes.count("request-closed") == 1
        assert (found.status, found.glass is None, len(found.votes)) in (("rejected", True, 1), ("approved", False, 0))
        assert found.decision is not None
        assert (found.decision.break_glass is None) == (found.status == "rejected")
    assert statuses == {"approved", "rejected"}


# -- policies ----------------------------------------------------------------------------------------------------


async def agree(direct: Direct, request_id: str, who: str = "vera", ballot: Ballot = APPROVE) -> Request:
    return await direct.parts.people.vote(request_id, await direct.person(who, "admins"), ballot)


async def proposed(direct: Direct, text: str, by: str = "root") -> str:
    found = await direct.parts.revisions.propose(text, by, "we learnt")
    assert found.request is not None
    return found.request.request_id


async def test_two_admins_change_one_policy_at_once(racing: Direct) -> None:
    for turn in range(10):
        texts = [policy(**rules({**REVIEW, "meaning": f"I read {turn}, by {who}"})) for who in ("root", "rose")]
        propose = racing.parts.revisions.propose
        outcomes = await together(propose(texts[0], "root"), propose(texts[1], "rose"))
        [winner] = [outcome for outcome in outcomes if outcome != "change-pending"]
        voting = [agree(racing, winner.request.request_id, who) for who in ("vera", "adam", "vera")]
        await together(*voting)
        async with racing.db.snapshot() as tx:
            revisions = await views.policies(tx, name="here")
        assert ([row.revision for row in revisions], revisions[0].digest) == (
            [*range(turn + 2, 0, -1)],
            winner.ref.digest,
        )


async def test_two_policies_are_published_at_once(racing: Direct) -> None:
    """While requests that they are about are open, and their model changes."""
    for n in range(4):
        await racing.registry.register(f"m{n}", accuracy=0.95)
        for _ in range(4):
            await asked(racing, f"m{n}")
    for turn in range(8):
        meant = rules({**REVIEW, "meaning": f"I read {turn}"})
        texts = [policy(name, **meant) for name in ("here", "there", "elsewhere")]
        ids = [await proposed(racing, text) for text in texts]
        evaluation = Evaluation(dataset=Dataset(name="may"), metrics={"auc": turn / 100}, evaluated_at=now())
        events = [
            racing.registry.publish(
                VersionEvaluated(workspace="default", model=f"m{n}", version=1, evaluation=evaluation), f"m{n}", 1
            )
            for n in range(4)
        ]
        tells = [
            racing.parts.directory.tell(who, frozenset({"reviewers", f"g{turn}"}), person=True, by="the directory")
            for who in ("ben", "bo")
        ]
        acts: list[Any] = [agree(racing, request_id) for request_id in ids]
        acts += [*events, *tells, racing.sweep(), racing.sweep()]
        random.Random(turn).shuffle(acts)
        await together(*acts)
        for request_id in ids:
            assert (await racing.request(request_id)).published is not None


async def test_two_changes_never_leave_no_policy_about_policies(racing: Direct) -> None:
    """Each would be fine alone."""
    about = {"match": {"transition": {"kind": "policy"}}}
    await racing.publish(policy("also", **about, **rules({**REVIEW, "from": ["group:admins"]})))
    narrow = {"match": {"transition": {"kind": "policy"}, "models": ["nothing"]}}
    texts = [
        policy(name, **narrow, **rules({**REVIEW, "from": ["group:admins"]})) for name in ("also", "policy-changes")
    ]
    outcomes = await together(*(proposed(racing, text) for text in texts))
    ids = [outcome for outcome in outcomes if outcome != "policies-locked"]
    await together(*(agree(racing, request_id, who) for request_id in ids for who in ("vera", "adam", "eve")))
    async with racing.db.snapshot() as tx:
        current = {ref.name: known.spec for ref, known in await views.current_policies(tx)}
    assert not (current["also"].match.models and current["policy-changes"].match.models)


# -- people ------------------------------------------------------------------------------------------------------


async def test_people_join_and_leave_while_they_act_on_many_requests(racing: Direct) -> None:
    """By tokens and by the directory's word, while the policies change. Nothing waits in a circle."""
    await racing.publish(policy(**rules({**REVIEW, "count": 9, "from": ["group:reviewers", "group:admins"]})))
    requests = []
    for n in range(4):
        await racing.registry.register(f"m{n}", accuracy=0.95)
        requests += [await asked(racing, f"m{n}") for _ in range(3)]
    for turn in range(8):
        proposal = await proposed(racing, policy("there", **rules({**REVIEW, "meaning": f"I read {turn}"})))
        acts: list[Any] = [agree(racing, proposal, "adam"), racing.sweep(), racing.sweep()]
        for who in ("ben", "bo", "vera"):
            acts.append(racing.parts.directory.tell(who, frozenset({"x"}), person=True, by="the directory"))
            for request in random.Random(f"{turn} {who}").sample(requests, 5):
                group = random.Random(f"{turn} {who} {request}").choice(["reviewers", "staff"])
                acts.append(racing.parts.people.vote(request, await racing.person(who, group, "admins"), APPROVE))
        random.Random(turn).shuffle(acts)
        await together(*acts)


async def test_the_directory_and_the_last_vote_at_once(racing: Direct) -> None:
    """Ben leaves as bo completes the quorum: what is looked at after the directory had its answer is decided without
    him. A decision that was being made at that moment may still rest on his vote."""

    async def leaves(turn: int) -> datetime:
        """When the directory had its answer."""
        gone = frozenset({f"elsewhere{turn}"})
        await racing.parts.directory.tell("ben", gone, person=True, by="the directory")
        async with racing.db.snapshot() as tx:
            return await racing.clock(tx)

    await racing.publish(policy(**rules({**REVIEW, "count": 2})))
    await racing.registry.register("m", accuracy=0.95)
    approved_early = 0
    for turn in range(20):
        request = await asked(racing)
        await racing.parts.people.vote(request, await ben_of(racing), APPROVE)
        bo = await racing.person("bo", "reviewers")
        left = asyncio.create_task(leaves(turn))
        acts: list[Any] = [racing.parts.people.vote(request, bo, APPROVE), left]
        await together(*(acts if turn % 2 else reversed(acts)))
        await racing.sweep()
        found = await racing.request(request)
        if found.decision is None:
            bea = await racing.person("bea", "reviewers")
            found = await racing.parts.people.vote(request, bea, APPROVE)
            assert found.decision is not None
            assert [vote.voter for vote in found.decision.votes] == ["bo", "bea"]
        else:
            approved_early += 1
            assert found.decision.decided_at < left.result()
        await racing.not_carried_out(request)
    assert approved_early < 20
