"""What must hold of every request after each step of a random walk."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pprint import pformat
from random import Random
from typing import Any

import sqlalchemy as sa
from hypothesis.stateful import RuleBasedStateMachine, invariant
from tests.support.approval_facts import Asked, plain
from tests.support.approval_oracle import Oracle
from tests.support.approval_walk import EMAILS, PEOPLE, Ground, groups_of

from approval import views
from approval.domain import Request
from approval.keyring import Keyring, published
from approval.revisions import shipped
from approval.tables import RequestRow, of
from contracts.approval import RequestDecided
from policy.judge import judge

OPEN = ("open",)


class Watch(RuleBasedStateMachine):
    """`touched`: the requests that the service has looked at in this step."""

    ground: Ground

    def __init__(self) -> None:
        super().__init__()
        self.scene, self.facts = self.ground.fresh(), Oracle()
        self.direct, self.counts = self.scene.direct, self.ground.counts
        self.parts, self.registry = self.direct.parts, self.direct.registry
        self.tokens = {name: groups_of(name) for name in PEOPLE}
        self.first: dict[str, tuple[str, str]] = {}  # of each request: its first digest, and what it rested on
        self.random = Random()
        self.touched: set[str] = set()
        self.read: dict[str, Any] = {}  # of each request: the row of its state, as it was read last
        self.read_at = self.scene.now()
        self.facts.emails = EMAILS
        self.facts.policies = {policy.name: (policy.text, "hallmark/approval") for policy in shipped()}

    # -- finding and showing requests -----------------------------------------------------------------------------

    def nth(self, nth: int, statuses: tuple[str, ...] = OPEN) -> Asked | None:
        """Open ones by default, the latest first."""
        found = [a for a in self.facts.asked.values() if a.status in statuses]
        return found[-1 - nth % len(found)] if found else None

    def aimed(self, nth: int, likely: Callable[[Asked], Any]) -> Asked | None:
        """Rather one of which this is likely."""
        found = [a for a in self.facts.asked.values() if a.status == "open" and likely(a)]
        return found[-1 - nth % len(found)] if found else self.nth(nth)

    def shown(self, a: Asked, *facts: Any) -> str:
        names = [name for name, _ in self.facts.docs(a)]
        texts = {name: self.facts.policies[name] for name in names}
        hidden = {"opened", "rebound", "decision", "jws", "refusals", "comments"}
        state = self.scene.request(a.id).model_dump(exclude=hidden, exclude_defaults=True)
        moments = {"begun": self.scene.since, "now": self.scene.now()}
        return pformat([facts, a, texts, state, self.facts.members, self.facts.delegations, moments], width=200)

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def compare(self) -> None:
        before, requests = self.read_at, self.scene.run(self._changed())
        for request in requests:
            if (a := self.facts.asked.get(request.request_id)) is not None:
                self._compared(a, request, before)
        for a in map(self.facts.asked.__getitem__, self.touched):
            assert a.status != "open" or self._may_wait(a), self.shown(a, "left open")
        self.touched.clear()

    def _may_wait(self, a: Asked) -> bool:
        waits = self.scene.ever(lambda at: self.facts.verdict(a, at) is None)
        return True in waits

    async def _changed(self) -> list[Request]:
        """The requests that have changed since they were read last; those that have ended first, in that order."""
        table = of(RequestRow)
        async with self.direct.db.snapshot() as tx:
            query = sa.select(table.c.request_id, table.c.state).order_by(table.c.opened_at)
            rows = {row.request_id: row.state for row in await tx.execute(query)}
        changed = [state for request_id, state in rows.items() if self.read.get(request_id) != state]
        self.read, self.read_at = rows, self.scene.now()
        requests = [Request.model_validate_json(state) for state in changed]
        return sorted(requests, key=lambda request: (request.ended_at is None, request.ended_at or request.opened_at))

    def _compared(self, a: Asked, request: Request, before: datetime) -> None:
        if a.status != "open":
            assert request.status == a.status, "what is decided is final"
        elif request.status == "open":
            self._bound(a, request)
        else:
            self._ended(a, request, before)
        if request.overdue is not None and not a.overdue:
            assert self.review_is_overdue(a), self.shown(a)
            a.overdue = True
            self.counts["overdue"] += 1

    def review_is_overdue(self, a: Asked) -> bool:
        return a.glass is not None and not a.reviewed and self.scene.now() >= a.glass.review_by

    def _bound(self, a: Asked, request: Request) -> None:
        self.follow(a, request)
        gone = {past.vote.at for past in request.past_votes}
        void = [vote for vote in a.votes if vote.at in gone]
        assert all(vote.basis != self.facts.basis(a) for vote in void), self.shown(a, void, "void for nothing")
        self.counts["void"] += len(void)
        a.votes = [vote for vote in a.votes if vote.at not in gone]
        assert [vote.at for vote in request.votes] == [vote.at for vote in a.votes], self.shown(a)
        a.limits.append(self.facts.limit(a))

    def follow(self, a: Asked, request: Request) -> None:
        """What is taken from the service: when it bound the request, and which steps of an escalation it took; each
        must have been due. What was said before is void, though what it rests on may change back."""
        if request.bound_at != a.bound_at:
            basis = self.facts.basis(a)
            said = [one.basis for one in a.waivers] + ([a.glass.basis] if a.glass else [])
            assert basis not in said, self.shown(a, "void for nothing")
            self.counts["void: waivers"] += len(a.waivers)
            self.counts["void: emergencies"] += a.glass is not None
            a.bound_at, a.waivers, a.answers, a.glass = request.bound_at, [], [], None
        taken = {(step.rule, plain(step.to)) for step in request.escalated if step.rule is not None}
        for one in taken - a.escalated:
            due = [since for rule, groups, since in self.facts.steps(a) if (rule, groups) == one]
            assert due, self.shown(a, one, "no policy says so")
            assert self.scene.now() >= min(due), self.shown(a, one, "too early")
            self.counts["escalated"] += 1
        a.escalated = taken

    def _ended(self, a: Asked, request: Request, before: datetime) -> None:
        decision, a.status = request.decision, request.status
        self.follow(a, request)
        emergency = " in an emergency" if decision and decision.break_glass else ""
        self.counts[f"{a.kind}: {request.status}{emergency}"] += 1
        if request.status == "cancelled":
            return
        assert request.ended_at is not None
        at, given = decision.decided_at if decision else request.ended_at, "rejected"
        assert before <= at <= self.scene.now(), "it is decided when it is decided"
        if request.status == "approved":
            given = "approved"
        elif decision is not None:
            self.counts[f"why: {re.sub('[^a-z ].*', '', decision.reason)[:30]}"] += 1
        late = given == "rejected" and at >= min(a.limits)
        assert self.facts.verdict(a, at) == given or late, self.shown(a, given, at)
        if a.policy is not None and given == "approved":
            self.facts.policies[a.model] = (a.policy, a.by)
        a.by_people = given == "approved" and self.facts.by_people(a, at)
        self.counts["beforehand"] += given == "approved" and bool(self.facts.inputs(a)["request"].get("beforehand"))
        if a.glass is not None and given == "approved":
            self.facts.seal(a)
        if decision is not None and given == "approved":
            a.holds_until = decision.expires_at
            assert self._holds(a, at, decision.expires_at), self.shown(a, "holds too long", decision.expires_at)
            assert {(v.voter, v.at) for v in decision.votes} <= {(v.who, v.at) for v in a.votes}, self.shown(a)
            if not emergency:
                counted = sum(self.facts.have(a, at).values())
                assert counted >= sum(count for _, count in self.facts.rules(a).values()), self.shown(a)

    def _holds(self, a: Asked, since: datetime, until: datetime) -> bool:
        """Whether an approval rests on something as long as it can be carried out."""
        moments = [since + (until - since) * self.random.random() for _ in range(3)]
        return all(self.facts.holds(a, at) for at in (*moments, until - timedelta(microseconds=1)))

    def teardown(self) -> None:
        self.scene.run(self._in_force())
        self.scene.run(self._judged())
        self.scene.run(self._folded())
        self.scene.run(self.direct.db.close())

    async def _in_force(self) -> None:
        """The policies in force are those that were approved."""
        async with self.direct.db.snapshot() as tx:
            current = await views.current_policies(tx)
        assert {ref.name: policy.text for ref, policy in current} == {n: t for n, (t, _) in self.facts.policies.items()}

    async def _judged(self) -> None:
        """Every record of a decision is good for whoever judges it again."""
        keys = published(Keyring(self.direct.settings.decision_key))
        async with self.direct.db.snapshot() as tx:
            events = [event async for event in self.parts.desk.log.read(tx, type_=RequestDecided.TYPE)]
        for event in events:
            decided = event.payload(RequestDecided)
            found = judge(decided, keys)
            assert found.ok, ([(check.name, check.text) for check in found.failed], decided.model_dump())

    async def _folded(self) -> None:
        """The views are what their events make of them."""
        async with self.direct.db.transaction() as tx:
            before = [sorted(map(repr, (await tx.execute(sa.select(table))).all())) for table in views.VIEWS]
            await views.rebuild(tx, self.parts.desk.log)
            assert [sorted(map(repr, (await tx.execute(sa.select(table))).all())) for table in views.VIEWS] == before
