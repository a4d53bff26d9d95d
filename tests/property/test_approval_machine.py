"""Whoever does what, and when: no request is ever decided as the text of the policies forbids.

Each vote, waiver, emergency and decision of the real use cases, on a real database, is compared with a second, naive
reading of the policies (`tests.support.approval_oracle`). HALLMARK_MACHINE_EXAMPLES=300 walks longer than CI.
"""

import os
import re
from collections.abc import Callable, Iterator
from datetime import timedelta, timezone
from pprint import pformat
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.support.approval_facts import Actor, Asked, Cast, Member, Waived
from tests.support.approval_oracle import Oracle
from tests.support.approval_policies import GROUPS, RETIRED, Writer, text
from tests.support.approval_walk import COMMITTERS, EMAILS, METRICS, PEOPLE, Ground, Steps, groups_of

from approval import views
from approval.answers import Answers, Said
from approval.answers import Asked as Question
from approval.domain import Request
from approval.evidence import Attachments, Piece, Version
from approval.keyring import Keyring, published
from approval.revisions import shipped
from approval.tables import RequestRow, of
from contracts.approval import Choice, RequestDecided
from contracts.lifecycle import Stage, TransitionKind
from contracts.model import Dataset, Evaluation, Finding, Inspection, Severity
from contracts.registry import (
    ModelUpdated,
    StageChanged,
    StageRefused,
    StageRequested,
    Tags,
    VersionEvaluated,
    VersionRevoked,
    VersionTagged,
    VersionVerified,
)
from embedded.fixtures import new_database
from kit.auth import Principal
from policy.judge import judge
from policy.people import Ballot

EXAMPLES = int(os.environ.get("HALLMARK_MACHINE_EXAMPLES", "10"))
STEPS = 40
MOST = 4  # open requests
ENDED = ("request-closed", "request-expired")

EVERYBODY = sorted(PEOPLE)
APT = "somebody who is asked"
VOTERS = ["ben", "bo", "rita", "rolf", "lea", "lou", "olga"]
NTH = range(4)
MODELS = ["risky", "plain"]
VERSIONS = [1, 2]
FIELDS = [
    *({}, {"change_class": "standard"}, {"change_ticket": "CHG123", "rollback_to": "1"}),
    *({"change_ticket": "none"}, {"rollback_to": "first", "change_ticket": "CHG123"}),
]
SETS: list[set[str]] = [set(), set(), *({one} for one in GROUPS), {"reviewers", "risk"}, {"leads", "oncall"}]
SEEDS = st.integers(0, 2**63)
step_of = Steps()


class Machine(RuleBasedStateMachine):
    ground: Ground

    def __init__(self) -> None:
        super().__init__()
        self.scene, self.facts = self.ground.fresh(), Oracle()
        self.direct, self.counts = self.scene.direct, self.ground.counts
        self.parts, self.registry = self.direct.parts, self.direct.registry
        self.tokens = {name: groups_of(name) for name in PEOPLE}
        self.first: dict[str, tuple[str, str]] = {}  # of each request: its first digest, and what it rested on
        self.steps = 0
        self.read: dict[str, Any] = {}  # of each request: the row of its state, as it was read last
        self.facts.policies = {policy.name: (policy.text, "hallmark/approval") for policy in shipped()}

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        random = Random(seed)
        if random.randrange(3):
            self._publish("production", RETIRED)
        self._publish("one", Writer(random, gentle=True).spec(wide=True))
        if random.randrange(2):
            self._publish("two", Writer(random, gentle=bool(random.randrange(3))).spec(wide=False))
        for model, version in (("risky", 1), ("risky", 2), ("plain", 1), ("plain", 2)):
            metrics = METRICS[version]
            work = self.registry.register(model, version, by="carl", committers=COMMITTERS, **metrics)
            self.scene.run(work)
            self.facts.models[model] = {"name": model, "tags": {}}
            self.facts.versions[model, version] = {
                "author": "carl",
                "committers": COMMITTERS,
                "metrics": metrics,
                "tags": {},
                "evaluations": [],
                "evidence": [],
                "stages": [],
                "unsafe": False,
                "revoked": False,
            }

    @rule(seed=SEEDS)
    def step(self, seed: int) -> None:
        """By a seed that differs in each step: what Hypothesis samples itself is less even, and walks are few."""
        self.steps += 1
        self.random = Random(f"{seed}/{self.steps}")
        name, given = step_of.draw(self.random)
        self.counts[f"step: {name}"] += 1
        getattr(self, name)(**given)

    # -- requests -------------------------------------------------------------------------------------------------

    @step_of(
        14,
        model=MODELS,
        version=VERSIONS,
        kind=["promotion"] * 18 + ["rollback", "alias"],
        target=["Production"] * 9 + ["Staging"],
        by=["ana", "ana", "ben", "lea"],
        fields=FIELDS,
        reason=["better on every slice", "better on every slice", "test"],
        hours=[240] * 5 + [2],
    )
    def ask(self, model: str, version: int, kind: str, target: str, by: str, hours: int, **given: Any) -> None:
        if sum(a.status == "open" for a in self.facts.asked.values()) >= MOST:
            return
        target, expires_at = "@champion" if kind == "alias" else target, self.scene.now() + timedelta(hours=hours)
        transition = self.registry.transition(model, version, Stage.STAGING, Stage.PRODUCTION, TransitionKind(kind))
        message = StageRequested(
            **{**transition.model_dump(), "to_stage": target}, requested_by=by, expires_at=expires_at, **given
        )
        self.scene.run(self.registry.publish(message, model, version))
        self._asked(message.transition_id, kind, model, version, "Staging", target, by, expires_at, **given)

    def _asked(
        self,
        request_id: str,
        kind: str,
        model: str,
        version: int,
        origin: str,
        target: str,
        by: str,
        expires_at: Any,
        **given: Any,
    ) -> Asked:
        request = self.scene.request(request_id)
        moments = {"opened_at": request.opened_at, "expires_at": expires_at, "bound_at": request.bound_at}
        a = Asked(request_id, kind, model, version, origin, target, by, **moments, **given)
        self.facts.asked[a.id] = a
        a.limits.append(self.facts.limit(a))
        self.first[a.id] = (request.opened.request_digest, self.facts.basis(a))
        return a

    def _nth(self, nth: int, *statuses: str) -> Asked | None:
        """The latest are asked for most; open ones by default."""
        found = [a for a in self.facts.asked.values() if a.status in (statuses or ("open",))]
        return found[-1 - nth % len(found)] if found else None

    def _aimed(self, nth: int, likely: Callable[[Asked], Any]) -> Asked | None:
        """Rather one of which this is likely."""
        found = [a for a in self.facts.asked.values() if a.status == "open" and likely(a)]
        return found[-1 - nth % len(found)] if found else self._nth(nth)

    def _shown(self, a: Asked, *facts: Any) -> str:
        names = [name for name, _ in self.facts.docs(a)]
        texts = {name: self.facts.policies[name] for name in names}
        hidden = {"opened", "rebound", "decision", "jws", "refusals", "comments"}
        state = self.scene.request(a.id).model_dump(exclude=hidden, exclude_defaults=True)
        moments = {"begun": self.scene.since, "now": self.scene.now()}
        return pformat([facts, a, texts, state, self.facts.members, self.facts.delegations, moments], width=200)

    # -- votes ----------------------------------------------------------------------------------------------------

    @step_of(
        12,
        nth=NTH,
        who=EVERYBODY + [APT] * 30,
        choice=["approve"] * 3 + ["reject"],
        comment=["because", "because", " "],
        saw=[None, None, "first"],
        chosen=range(8),
        minutes=[0, 0, 0, 10],
        method=["webauthn", "webauthn", "token"],
    )
    def vote(self, nth: int, who: str, chosen: int, saw: str | None, minutes: int, method: str, **given: Any) -> None:
        if (a := self._nth(nth)) is not None:
            rules = self.facts.rules(a)
            named = sorted(rules)[chosen] if chosen < len(rules) else None
            asked = [one for one in PEOPLE if any(self.tokens[one] & groups for groups, _ in rules.values())]
            who = (self.random.choice(asked) if asked else "ben") if who == APT else who
            self._vote(a, self._actor(who, minutes, method), rule=named, saw=self.first[a.id] if saw else None, **given)

    @step_of(5, nth=NTH, choice=["approve", "approve", "reject"], which=NTH, who=EVERYBODY)
    def vote_for_another(self, nth: int, choice: str, which: int, who: str) -> None:
        lent = sorted(self.facts.delegations.values(), key=lambda one: (one[2] > self.scene.now(), -one[3].timestamp()))
        delegator, delegate = lent[which % min(len(lent), 2)][:2] if lent else ("ben", "dora")
        delegate = who if nth == 3 and who != delegator else delegate
        if a := self._aimed(nth, lambda a: self.facts.lent(a, delegator, delegate, self.scene.now())):
            self._vote(a, self._actor(delegate, method="webauthn"), choice, behalf=delegator)

    def _vote(
        self,
        a: Asked,
        actor: Actor,
        choice: str = "approve",
        comment: str = "because",
        rule: str | None = None,
        behalf: str | None = None,
        saw: tuple[str, str] | None = None,
    ) -> None:
        had = {vote.at for vote in self.scene.request(a.id).votes}
        digest, basis = saw or (None, "")
        ballot = Ballot(Choice(choice), comment, digest, rule)
        refused = self.scene.refused(self.parts.people.vote(a.id, self.scene.person(actor), ballot, behalf))
        acts, stale = self.facts.acts(actor), saw is not None and basis != self.facts.basis(a)
        new = [vote for vote in self.scene.request(a.id).votes if vote.voter == actor.name and vote.at not in had]
        if refused in ENDED or (refused is None and not new):
            return  # it is over, or a double click
        may = self.scene.ever(lambda at: self.facts.may_vote(a, acts, choice, comment, rule, behalf, at))
        if refused is not None:
            assert refused == "request-changed" if stale else False in may, self._shown(a, refused, actor, choice)
            return
        [vote] = new
        assert True in may, self._shown(a, actor, vote)
        assert not stale, self._shown(a, actor, vote)
        assert (vote.on_behalf_of, str(vote.choice)) == (behalf, choice)
        assert choice == "reject" or vote.rule in self.facts.rules(a)
        assert rule in (None, vote.rule) or choice == "reject"
        a.votes.append(Cast(actor.name, behalf, choice, vote.rule, vote.at, actor.email, self.facts.basis(a)))
        self.counts[f"vote: {choice}{' for another' if behalf else ''}"] += 1

    @step_of(2, nth=NTH, who=VOTERS)
    def withdraw(self, nth: int, who: str) -> None:
        if (a := self._aimed(nth, lambda a: a.votes)) is None:
            return
        who = a.votes[-1].who if a.votes and nth else who
        person = self.scene.person(self._actor(who))
        if self.scene.refused(self.parts.people.withdraw(a.id, person, "I was wrong")) is None:
            self.counts["withdrawn"] += any(vote.who == who for vote in a.votes)
            a.votes = [vote for vote in a.votes if vote.who != who]

    @step_of(1, nth=NTH, who=EVERYBODY)
    def comment(self, nth: int, who: str) -> None:
        if a := self._nth(nth, "open", "approved", "rejected"):
            assert self.scene.refused(self.parts.people.comment(a.id, who, "I wonder")) is None

    # -- gates ----------------------------------------------------------------------------------------------------

    @step_of(4, nth=NTH, which=NTH, who=EVERYBODY + ["lea", "lou", "rita", "sue"] * 5)
    def waive(self, nth: int, which: int, who: str) -> None:
        bad = ("fail", "error", "inconclusive")
        if a := self._aimed(nth, lambda a: any(g.result in bad for g in self.facts.gates(a, self.scene.now()))):
            gates = [gate for gate in self.facts.gates(a, self.scene.now()) if gate.result != "pass"]
            if gates:
                self._waive(a, gates[which % len(gates)].id, self._actor(who, method="webauthn"))

    def _waive(self, a: Asked, gate: str, actor: Actor) -> None:
        had = self.scene.request(a.id).waivers
        work = self.parts.people.waive(a.id, self.scene.person(actor), gate, "it is known", None)
        refused, acts = self.scene.refused(work), self.facts.acts(actor)
        request = self.scene.request(a.id)
        if refused in ENDED or (refused is None and request.waivers == had):
            return
        a.bound_at = request.bound_at
        may = self.scene.ever(lambda at: self.facts.may_waive(a, acts, gate, at))
        assert (refused is None) in may, self._shown(a, refused, actor, gate)
        if refused is None:
            a.waivers.append(Waived(gate, actor.name, self.facts.basis(a)))
            self.counts["waived"] += 1

    @step_of(3, nth=NTH, result=["pass", "pass", "fail", "inconclusive", "error"])
    def answer(self, nth: int, result: Any) -> None:
        if (a := self._nth(nth)) is None:
            return
        gates = [(name, gate) for name, spec in self.facts.docs(a) for gate in spec.get("gates", ())]
        answers = Answers(self.parts.desk, {})
        for hook in [f"{name}/{gate['id']}" for name, gate in gates if "webhook" in gate]:
            question = Question(a.id, hook, self.scene.request(a.id).request_digest)
            if self.scene.refused(answers.record(question, Said(result, "it says so"))) is None:
                a.answers.append((hook, self.facts.basis(a), result))
                self.counts["answered"] += 1

    # -- emergencies ----------------------------------------------------------------------------------------------

    @step_of(
        7,
        nth=NTH,
        who=["otto", "otto", "olga", "ben", "bot"],
        why=["production is down", "production is down", "now"],
        minutes=[0, 0, 10],
    )
    def break_the_glass(self, nth: int, who: str, why: str, minutes: int) -> None:
        actor = self._actor(who, minutes)
        if (a := self._aimed(nth, lambda a: self.facts.breaks(a, actor, why, self.scene.now()))) is None:
            return
        refused = self.scene.refused(self.parts.emergencies.break_glass(a.id, self.scene.person(actor), why))
        acts, request = self.facts.acts(actor), self.scene.request(a.id)
        if refused in ENDED:
            return
        a.bound_at = request.bound_at
        may = self.scene.ever(lambda at: self.facts.breaks(a, acts, why, at))
        assert (refused is None) in may, self._shown(a, refused, actor)
        if refused is None:
            given = request.glass
            assert given is not None
            glass = a.glass = self.facts.breaks(a, acts, why, given.at)
            assert glass is not None
            assert (given.until, given.review_by) == (glass.until, glass.review_by)
            assert (given.review_count, {*given.review}, {*given.skips}) == (glass.count, glass.review, glass.skips)
            self.counts["glass"] += 1

    @step_of(4, nth=NTH, who=["rita", "rolf", "lou", "lea", "olga", "otto", "bot"])
    def review(self, nth: int, who: str) -> None:
        broken = [a for a in self.facts.asked.values() if a.glass is not None and a.status not in ("open", "cancelled")]
        if not broken:
            return
        a, actor = broken[-1 - nth % len(broken)], self._actor(who)
        work = self.parts.emergencies.review(a.id, self.scene.person(actor), justified=True, comment="I looked")
        refused, acts = self.scene.refused(work), self.facts.acts(actor)
        glass = a.glass
        assert glass is not None
        if self.scene.request(a.id).decision is not None:
            may = acts.person and who not in (glass.by, a.by) and bool(acts.groups & glass.review)
            assert (refused is None) == (may or who in a.reviews), self._shown(a, refused, actor)
        if refused is None:
            a.reviews.add(who)
            self.counts["reviewed"] += a.reviewed

    # -- what requests rest on ------------------------------------------------------------------------------------

    @step_of(
        2,
        nth=NTH,
        dataset=["may", "june"],
        auc=[0.9, 0.9, 0.8],
        age=[0, 1, 60],
        offset=[0, 5, -7],
    )
    def evaluate(self, nth: int, dataset: str, auc: float, age: int, offset: int) -> None:
        model, version = self._place(nth)
        at = (self.scene.now() - timedelta(hours=age)).astimezone(timezone(timedelta(hours=offset)))
        evaluation = Evaluation(dataset=Dataset(name=dataset), metrics={"auc": auc}, evaluated_at=at)
        event = VersionEvaluated(workspace="default", model=model, version=version, evaluation=evaluation)
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.versions[model, version]["evaluations"].append({"dataset": dataset, "auc": auc, "at": at})

    @step_of(1, nth=NTH, team=["red", "blue", None])
    def tag_a_version(self, nth: int, team: str | None) -> None:
        model, version = self._place(nth)
        tags = Tags(set={"team": team}) if team else Tags(remove=("team",))
        event = VersionTagged(workspace="default", model=model, version=version, tags=tags)
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.versions[model, version]["tags"] = {"team": team} if team else {}

    @step_of(1, model=MODELS, risk=["high", "low", None])
    def tag_a_model(self, model: str, risk: str | None) -> None:
        tags = Tags(set={"risk": risk}) if risk else Tags(remove=("risk",))
        self.scene.run(self.registry.publish(ModelUpdated(workspace="default", model=model, tags=tags), model))
        self.facts.models[model]["tags"] = {"risk": risk} if risk else {}

    @step_of(1, nth=NTH, unsafe=[True, False, False])
    def inspect(self, nth: int, unsafe: bool) -> None:
        model, version = self._place(nth)
        known = self.registry.versions[model, version]
        found = (Finding(severity=Severity.UNSAFE, code="pickle", detail="it runs code"),) if unsafe else ()
        event = VersionVerified(
            **known.model_dump(include={"workspace", "model", "version", "digest"}),
            artifact_digest=known.content.artifact.digest,
            inspection=Inspection(scanner="test", findings=found),
        )
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.versions[model, version]["unsafe"] = unsafe

    @step_of(
        3,
        nth=NTH,
        kind=["model_card", "ci", "ci"],
        by=["ci", "ci", "ana"],
        result=["pass", "pass", "fail", "inconclusive"],
    )
    def attach(self, nth: int, kind: str, by: str, result: Any) -> None:
        model, version = self._place(nth)
        said = result if kind == "ci" else None
        piece = Piece(kind, f"a {kind}", url="https://example.org/1", result=said)
        principal = Principal(by, frozenset({"ml-engineers"}), "service" if by == "ci" else "person", 0, "token")
        attachments = Attachments(self.parts.desk, self.parts.commands, None)
        attached = self.scene.run(attachments.attach(Version("default", model, version), piece, principal))
        if attached.new:
            self.facts.versions[model, version]["evidence"].append({"type": kind, "result": said, "by": by})

    @step_of(3, nth=NTH)
    def carry_out(self, nth: int) -> None:
        a = self._nth(nth, "approved")
        if a is None or a.policy is not None or a.kind == "alias":
            return
        self.scene.run(self.registry.publish(StageChanged(**self._transition(a)), a.model, a.version))
        self.facts.stays = [stay for stay in self.facts.stays if stay[:2] != (a.model, a.version)]
        self.facts.stays.append((a.model, a.version, a.target))
        version = self.facts.versions[a.model, a.version]
        version["stages"] = sorted({*version["stages"], a.target})
        self.counts["carried out"] += 1

    @step_of(1, nth=NTH)
    def cancel(self, nth: int) -> None:
        a = self._nth(nth)
        if a is not None and a.policy is None:
            event = StageRefused(**self._transition(a), code="cancelled", detail="not any more")
            self.scene.run(self.registry.publish(event, a.model, a.version))

    def _transition(self, a: Asked) -> dict[str, Any]:
        transition = self.registry.transition(a.model, a.version, Stage.STAGING, Stage.STAGING, TransitionKind(a.kind))
        given = {**transition.model_dump(), "transition_id": a.id, "to_stage": a.target}
        return {**given, "requested_by": a.by, "reason": a.reason}

    @step_of(1, nth=NTH, sure=NTH)
    def revoke(self, nth: int, sure: int) -> None:
        model, version = self._place(nth)
        if sure or self.facts.versions[model, version]["revoked"]:
            return
        work = self.parts.revocations.revoke("default", model, version, by="otto", reason="it leaks")
        ordered = self.scene.run(work)
        names = {"workspace", "model", "version", "digest", "revoked_by", "reason"}
        event = VersionRevoked(**ordered.revocation.model_dump(include=names), revocation=ordered.jws)
        self.scene.run(self.registry.publish(event, model, version))
        self.facts.versions[model, version]["revoked"] = True

    # -- people and policies --------------------------------------------------------------------------------------

    @step_of(4, who=EVERYBODY, groups=SETS, odd=range(6))
    def the_directory_tells(self, who: str, groups: set[str], odd: int) -> None:
        now_in, person = frozenset(groups) or groups_of(who), who != "bot" and odd != 1
        self.scene.refused(self.parts.directory.tell(who, now_in, person=person, by="the directory"))
        known = self.facts.members.get(who)
        if known is None or (known.groups, known.person) != (now_in, person):
            self.facts.members[who] = Member(now_in, person, self.scene.result.at)
        if odd > 2:
            self.tokens[who] = now_in

    @step_of(3, nth=NTH, who=VOTERS, groups=SETS)
    def vote_with_a_token_from_before(self, nth: int, who: str, groups: set[str]) -> None:
        self.the_directory_tells(who, groups, odd=0)
        if (a := self._nth(nth)) is not None:
            self._vote(a, self._actor(who, minutes=10, method="webauthn"))

    @step_of(2, who=EVERYBODY, groups=SETS)
    def a_new_token(self, who: str, groups: set[str]) -> None:
        self.tokens[who] = frozenset(groups) or groups_of(who)

    @step_of(
        4,
        delegator=VOTERS,
        delegate=["dora"] * 5 + ["ben", "rita", "ana", "bot"],
        starts=[0, 0, 3],
        days=[1, 1, 7, 30],
    )
    def delegate(self, delegator: str, delegate: str, starts: int, days: int) -> None:
        self.scene.run(self._seen(self._actor(delegator)))
        since = self.scene.now() + timedelta(hours=starts)
        dates = (since if starts else None, since + timedelta(days=days))
        if self.scene.refused(self.parts.directory.grant(delegator, delegate, *dates, "away", by=delegator)) is None:
            row = self.scene.result
            self.facts.delegations[row.delegation_id] = (delegator, delegate, row.starts, row.ends)

    def _place(self, nth: int) -> tuple[str, int]:
        """A version, rather of an open request."""
        a = self._nth(nth) if nth else None
        return (
            (self.random.choice(MODELS), self.random.choice(VERSIONS))
            if a is None or a.policy
            else (a.model, a.version)
        )

    async def _seen(self, actor: Actor) -> None:
        """As the HTTP API notes who calls."""
        async with self.direct.db.transaction() as tx:
            await self.parts.directory.seen(tx, self.scene.person(actor), await self.direct.clock(tx))
        self.facts.acts(actor)

    @step_of(1, nth=NTH)
    def end_a_delegation(self, nth: int) -> None:
        if self.facts.delegations:
            found = sorted(self.facts.delegations)[-1 - nth % len(self.facts.delegations)]
            self.scene.run(self.parts.directory.end(found, "root", anybodys=True))
            del self.facts.delegations[found]

    @step_of(4, name=["one", "one", "two", "three"], leave=NTH, gentle=[True, True, False])
    def edit_a_policy(self, name: str, leave: int, gentle: bool) -> None:
        spec = Writer(self.random, gentle=gentle).spec(wide=name == "one")
        self._publish(name, RETIRED if name != "one" and self.random.randrange(2) else spec, agreed=leave != 3)

    @step_of(1, count=[1, 2], wait=[None, "30m"])
    def edit_the_policy_about_policies(self, count: int, wait: str | None) -> None:
        rules = [{"id": "agree", "meaning": "I agree", "from": ["group:admins"], "count": count}]
        spec = {"match": {"transition": {"kind": "policy"}}, "approvals": {"rules": rules}}
        self._publish("policy-changes", {**spec, "schedule": {"min_wait": wait}} if wait else spec)

    def _publish(self, name: str, spec: dict[str, Any], *, agreed: bool = True) -> None:
        document = text(name, spec, self.scene.now())
        if self.scene.refused(self.parts.revisions.propose(document, "root", "we learnt")) is not None:
            return
        request = self.scene.result.request
        if request is None or request.request_id in self.facts.asked:
            return
        to, origin = request.inputs["request"]["to"], request.inputs["request"]["from"]
        until = request.opened_at + timedelta(days=30)
        given = {"reason": "we learnt", "fields": {}, "policy": document}
        a = self._asked(request.request_id, "policy", name, 0, origin, to, "root", until, **given)
        if agreed:
            self._vote(a, self._actor("vera"))
            self.compare()

    # -- time -----------------------------------------------------------------------------------------------------

    @step_of(7, minutes=[1, 10, 45, 200, 400, 1500, 4000])
    def jump(self, minutes: int) -> None:
        self.direct.clock.ahead += timedelta(minutes=minutes)
        self.sweep()

    @step_of(3)
    def sweep(self) -> None:
        """Time leaves nothing open that is to be approved."""
        self.scene.since = self.scene.now()
        self.scene.run(self.direct.sweep())
        self.compare()
        for a in self.facts.asked.values():
            if a.status == "open":
                assert False in self.scene.ever(lambda at, a=a: self.facts.verdict(a, at) == "approved"), self._shown(a)

    @step_of(12, nth=NTH, short=[0, 0, 1, 1, 2], then=[None] * 6 + [30, 400, 1500])
    def help(self, nth: int, short: int, then: int | None) -> None:
        """What a request waits for, or almost: random steps alone seldom go the whole way."""
        if (a := self._nth(nth)) is None:
            return
        for gate in list(self.facts.gates(a, self.scene.now())):
            able = [who for who in ("lea", "lou", "rita", "sue") if all(self.tokens[who] & one for one in gate.passers)]
            if gate.blocks and gate.result not in ("pass", "waived", "pending") and gate.passers and able:
                self._waive(a, gate.id, self._actor(able[0], method="webauthn"))
        self.compare()
        rules = [(key, groups, count) for key, (groups, count) in self.facts.rules(a).items()]
        rules[-1:] = [(key, groups, max(count - short, 0)) for key, groups, count in rules[-1:]]
        for key, groups, count in rules:
            heard = {name for vote in a.votes for name in (vote.who, vote.whose)} | {a.by, "carl", "cem", "bot"}
            able = [who for who in PEOPLE if self.tokens[who] & groups and who not in heard]
            for who in able[:count]:
                if a.status == "open":
                    self._vote(a, self._actor(who, method="webauthn"), rule=key)
                    self.compare()
        if then is not None:
            self.jump(then)

    def _actor(self, name: str, minutes: int = 0, method: str = "token") -> Actor:
        """Somebody who has signed in so long ago."""
        at = self.scene.now() - timedelta(minutes=minutes)
        return Actor(name, self.tokens[name], at, name != "bot", method, EMAILS.get(name))

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def compare(self) -> None:
        for request in self.scene.run(self._changed()):
            a = self.facts.asked.get(request.request_id)
            if a is None:
                continue
            if a.status == "open":
                self._escalated(a, request)
                self._ended(a, request) if request.status != "open" else self._bound(a, request)
            else:
                assert request.status == a.status, "what is decided is final"
            if request.overdue is not None and not a.overdue:
                assert a.glass is not None
                assert not a.reviewed
                assert self.scene.now() >= a.glass.review_by
                assert request.overdue.frozen == a.glass.freezes
                a.overdue = True
                self.counts["overdue"] += 1

    async def _changed(self) -> list[Request]:
        """The requests that have changed since they were read last; those that have ended first, in that order."""
        table = of(RequestRow)
        async with self.direct.db.snapshot() as tx:
            query = sa.select(table.c.request_id, table.c.state).order_by(table.c.opened_at)
            rows = {row.request_id: row.state for row in await tx.execute(query)}
        changed = [state for request_id, state in rows.items() if self.read.get(request_id) != state]
        self.read = rows
        requests = [Request.model_validate_json(state) for state in changed]
        return sorted(requests, key=lambda request: (request.ended_at is None, request.ended_at or request.opened_at))

    def _escalated(self, a: Asked, request: Request) -> None:
        """Whom escalations let vote is taken from the service, and must have been due."""
        for step in request.escalated:
            if step.rule is not None and step.rule not in a.added:
                assert self.scene.now() >= a.opened_at + timedelta(hours=5)
                a.added[step.rule] = {one.removeprefix("group:") for one in step.to}
                self.counts["escalated"] += 1

    def _bound(self, a: Asked, request: Request) -> None:
        gone = {past.vote.at for past in request.past_votes}
        self.counts["void"] += sum(vote.at in gone for vote in a.votes)
        a.votes = [vote for vote in a.votes if vote.at not in gone]
        a.bound_at = request.bound_at
        a.limits.append(self.facts.limit(a))

    def _ended(self, a: Asked, request: Request) -> None:
        decision, a.status, a.bound_at = request.decision, request.status, request.bound_at
        emergency = " in an emergency" if decision and decision.break_glass else ""
        self.counts[f"{a.kind}: {request.status}{emergency}"] += 1
        if request.status == "cancelled":
            return
        at, given = decision.decided_at if decision else self.scene.now(), "rejected"
        if request.status == "approved":
            given = "approved"
        elif decision is not None:
            self.counts[f"why: {re.sub('[^a-z ].*', '', decision.reason)[:30]}"] += 1
        late = given == "rejected" and at >= min(a.limits)
        assert self.facts.verdict(a, at) == given or late, self._shown(a, given, at)
        if a.policy is not None and given == "approved":
            self.facts.policies[a.model] = (a.policy, a.by)
        if decision is not None and given == "approved":
            assert {(v.voter, v.at) for v in decision.votes} <= {(v.who, v.at) for v in a.votes}, self._shown(a)
            if not emergency:
                counted = sum(self.facts.have(a, at).values())
                assert counted >= sum(count for _, count in self.facts.rules(a).values()), self._shown(a)

    def teardown(self) -> None:
        self.scene.run(self._judged())
        self.scene.run(self._folded())
        self.scene.run(self.direct.db.close())

    async def _judged(self) -> None:
        """Every record of a decision is good for whoever judges it again."""
        keys = published(Keyring(self.direct.settings.decision_key))
        async with self.direct.db.snapshot() as tx:
            events = [event async for event in self.parts.desk.log.read(tx) if event.type == RequestDecided.TYPE]
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


@pytest.fixture(scope="module")
def ground(infra_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with new_database(infra_postgres) as template:
        ground = Ground(infra_postgres, template, tmp_path_factory.mktemp("machine"))
        yield ground
        ground.close()


@pytest.mark.timeout(7200)
def test_no_decision_that_the_policies_forbid(ground: Ground) -> None:
    walk = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # A walk takes seconds: it is told from its steps, without looking for a shorter one.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    run_state_machine_as_test(type("Walk", (Machine,), {"ground": ground}), settings=walk)
    print(dict(sorted(ground.counts.items())))
