"""Anybody, at any time: no request is ever decided as the text of the policies forbids.

The verdicts, votes, waivers and emergencies of the real use cases, on a real database, are compared with a second and
naive reading of the policies (`tests.support.approval_oracle`). HALLMARK_MACHINE_EXAMPLES=200 walks longer than CI.
"""

import asyncio
import os
import re
from collections import Counter
from collections.abc import Coroutine, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from pydantic import SecretStr
from tests.integration.approval.conftest import Direct, make_direct, make_settings, service_url
from tests.support.approval_oracle import Actor, Asked, Cast, Facts, Waived
from tests.support.approval_policies import GROUPS, documents, text

from approval import views
from approval.answers import Answers, Said
from approval.answers import Asked as Question
from approval.domain import Request
from approval.evidence import Attachments, Piece, Version
from approval.keyring import Keyring, published
from approval.revisions import shipped
from contracts.approval import Choice, RequestDecided
from contracts.lifecycle import TransitionKind
from contracts.model import Dataset, Evaluation, Finding, Inspection, Severity
from contracts.payload import Message
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
from embedded.fixtures import new_database, run
from kit.auth import Principal
from kit.problems import Problem
from policy.judge import judge
from policy.people import Ballot, Person

EXAMPLES = int(os.environ.get("HALLMARK_MACHINE_EXAMPLES", "10"))
STEPS = 40
T = TypeVar("T")

PEOPLE = {
    "ana": "ml-engineers",
    "ben": "reviewers",
    "bo": "reviewers",
    "rita": "risk",
    "rolf": "risk",
    "lea": "leads reviewers",
    "lou": "leads",
    "sue": "security",
    "otto": "oncall",
    "olga": "oncall risk",
    "carl": "reviewers ml-engineers",  # the author of versions
    "cem": "reviewers risk",  # whose commits are in them
    "dora": "",
    "bot": "reviewers risk leads oncall",  # no person
    "root": "admins",
    "vera": "admins",
    "adam": "admins",
}
EMAILS = {"cem": "Cem@Example.org", "dora": "dora@example.org"}
EVERYBODY = st.sampled_from(sorted(PEOPLE))
VOTERS = st.sampled_from(["ben", "bo", "rita", "rolf", "lea", "lou", "olga"])
NTH = st.integers(0, 3)
MODELS = st.sampled_from(["risky", "plain"])
VERSIONS = st.sampled_from([1, 2])
WHY = "production is down"


ACTIONS: dict[str, tuple[int, dict[str, Any]]] = {}


def act(weight: int, **given: Any) -> Any:
    """A step of the walk, as likely as its weight."""

    def noted(function: Any) -> Any:
        ACTIONS[function.__name__] = (weight, given)
        return function

    return noted


class Machine(RuleBasedStateMachine):
    base: "Base"

    def __init__(self) -> None:
        super().__init__()
        self.facts = Facts()
        self.tokens = {name: frozenset(groups.split()) for name, groups in PEOPLE.items()}
        self.seen: dict[str, tuple[str, str]] = {}  # the digest of each request, and its basis, when it was opened
        self.decided: dict[str, Any] = {}
        self.envelopes: dict[str, Any] = {}
        self.direct = self.base.fresh()
        self.desk, self.parts = self.direct.parts.desk, self.direct.parts
        self.attachments = Attachments(self.desk, self.parts.commands, None)
        self.answers = Answers(self.desk, {})
        for policy in shipped():
            self.facts.policies[policy.name] = (policy.text, "hallmark/approval")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.base.loop.run_until_complete(work)

    # -- what is there at first -----------------------------------------------------------------------------------

    @initialize(
        first=documents(gentle=True),
        second=st.none() | documents(),
        shipped_too=st.booleans(),
        accuracy=st.sampled_from([0.95, 0.85]),
    )
    def begin(self, first: dict[str, Any], second: dict[str, Any] | None, shipped_too: bool, accuracy: float) -> None:
        if not shipped_too:
            self._publish("production", {"match": {"transition": {"to": "Production"}, "models": ["nothing"]}})
        self._publish("one", first)
        if second:
            self._publish("two", second)
        for model in ("risky", "plain"):
            self.facts.models[model] = {"name": model, "tags": {}}
            for version, metrics in ((1, {"accuracy": 0.95, "p95": 80.0}), (2, {"accuracy": accuracy, "auc": 0.9})):
                self.run(
                    self.direct.registry.register(
                        model, version, by="carl", committers=("cem@example.org", "CEM"), **metrics
                    )
                )
                self.facts.versions[model, version] = {
                    "metrics": metrics,
                    "tags": {},
                    "evaluations": [],
                    "evidence": [],
                    "unsafe": False,
                    "revoked": False,
                    "author": "carl",
                    "committers": ["cem@example.org", "CEM"],
                    "stages": [],
                }

    # -- requests -------------------------------------------------------------------------------------------------

    @act(
        8,
        model=MODELS,
        version=VERSIONS,
        kind=st.sampled_from(["promotion"] * 6 + ["rollback", "alias"]),
        by=st.sampled_from(["ana", "ana", "ben", "lea"]),
        fields=st.fixed_dictionaries(
            {},
            optional={
                "change_ticket": st.sampled_from(["CHG123", "CHG123", "none"]),
                "rollback_to": st.sampled_from(["1", "1", "first"]),
                "change_class": st.just("standard"),
            },
        ),
        reason=st.sampled_from(["better on every slice", "better on every slice", "test"]),
        hours=st.sampled_from([240, 240, 2]),
        staging=st.integers(1, 8),
    )
    def ask(
        self, model: str, version: int, kind: str, by: str, fields: dict[str, str], reason: str, hours: int, staging: int
    ) -> None:
        target = "@champion" if kind == "alias" else "Staging" if staging == 8 else "Production"
        now = self._now()
        transition = self.direct.registry.transition(model, version, "Staging", target, TransitionKind(kind))  # type: ignore[arg-type]
        expires_at = now + timedelta(hours=hours)
        asked = StageRequested(
            **transition.model_dump(), requested_by=by, reason=reason, expires_at=expires_at, fields=fields
        )
        self.envelopes[asked.transition_id] = self.run(self.direct.registry.publish(asked, model, version))
        request = self._request(asked.transition_id)
        self._asked(
            request, Asked(
                id=asked.transition_id,
                kind=kind,
                model=model,
                version=version,
                origin="Staging",
                target=target,
                by=by,
                reason=reason,
                fields=fields,
                opened_at=request.opened_at,
                expires_at=expires_at,
                bound_at=request.bound_at,
            )
        )

    def _asked(self, request: Request, a: Asked) -> None:
        self.facts.asked[a.id] = a
        a.limits.append(self.facts.limit(a))
        self.seen[a.id] = (request.opened.request_digest, self.facts.basis(a))

    def _nth(self, nth: int, *, open_only: bool = True) -> Asked | None:
        """The latest requests are asked about most."""
        found = [a for a in self.facts.asked.values() if not open_only or a.status == "open"]
        return found[-1 - nth % len(found)] if found else None

    # -- votes ----------------------------------------------------------------------------------------------------

    @act(
        14,
        nth=NTH,
        who=EVERYBODY | VOTERS,
        choice=st.sampled_from(["approve"] * 4 + ["reject"]),
        comment=st.sampled_from(["because", "because", " "]),
        saw=st.sampled_from([None, None, "first", "now"]),
        chosen=st.integers(0, 7),
        behalf=st.none() | st.none() | VOTERS,
        old=st.integers(1, 8),
        method=st.sampled_from(["webauthn", "webauthn", "token"]),
    )
    def vote(
        self,
        nth: int,
        who: str,
        choice: str,
        comment: str,
        saw: str | None,
        chosen: int,
        behalf: str | None,
        old: int,
        method: str,
    ) -> None:
        if (a := self._nth(nth)) is None:
            return
        rules = sorted(self.facts.rules(a, self.facts.applying(a)))
        named = rules[chosen] if chosen < len(rules) else None
        behalf = None if behalf == who else behalf
        before = self.facts.basis(a)
        digest, basis = self._request(a.id).request_digest if saw == "now" else None, before
        if saw == "first":
            digest, basis = self.seen[a.id]
        elif saw == "now" and self._request(a.id).bound_at != a.bound_at:
            return
        self._vote(a, self._actor(who, old=old == 8, method=method), choice, comment, named, behalf, digest, basis)

    def _vote(
        self,
        a: Asked,
        actor: Actor,
        choice: str,
        comment: str = "because",
        named: str | None = None,
        behalf: str | None = None,
        digest: str | None = None,
        basis: str | None = None,
    ) -> None:
        had = {vote.at for vote in self._request(a.id).votes}
        ballot = Ballot(Choice(choice), comment, digest, named)
        refused = self._act(self.parts.people.vote(a.id, self._person(actor), ballot, behalf))
        self._told(actor)
        request = self._request(a.id)
        new = [vote for vote in (*request.votes, *(p.vote for p in request.past_votes)) if vote.at not in had]
        new = [vote for vote in new if (vote.voter, str(vote.choice)) == (actor.name, choice)]
        known = [vote for vote in a.votes if (vote.who, vote.behalf, vote.choice) == (actor.name, behalf, choice)]
        may = self._may(lambda: self.facts.may_vote(a, actor, choice, comment, named, behalf))
        stale = digest is not None and basis != self.facts.basis(a)
        if refused is None and known and known[-1].at in had:
            return  # a double click
        if refused is None:
            assert True in may, (a, actor, choice, named, behalf, self._shown(a))
            assert not stale, (a, actor)
            [vote] = new[-1:]
            assert (vote.on_behalf_of, named in (None, vote.rule, "deny")) == (behalf, True) or choice == "reject"
            a.votes.append(Cast(actor.name, behalf, choice, vote.rule, vote.at, actor.email, self.facts.basis(a)))
            self.base.counts[f"vote {choice}{' for another' if behalf else ''}"] += 1
            return
        self.base.counts[f"refused {refused}"] += 1
        if refused in ("request-closed", "request-expired"):
            return
        assert refused == "request-changed" if stale else False in may, (refused, a, actor, choice, self._shown(a))

    @act(2, nth=NTH, who=VOTERS)
    def withdraw(self, nth: int, who: str) -> None:
        if (a := self._nth(nth)) is None:
            return
        if self._act(self.parts.people.withdraw(a.id, self._person(self._actor(who)), "I was wrong")) is None:
            a.votes = [vote for vote in a.votes if vote.who != who]

    @act(1, nth=NTH, who=EVERYBODY)
    def comment(self, nth: int, who: str) -> None:
        if (a := self._nth(nth, open_only=False)) is not None:
            assert self._act(self.parts.people.comment(a.id, who, "I wonder")) is None

    # -- gates ----------------------------------------------------------------------------------------------------

    @act(4, nth=NTH, gate=st.integers(0, 3), who=EVERYBODY | st.sampled_from(["lea", "lou", "rita", "sue"]))
    def waive(self, nth: int, gate: int, who: str) -> None:
        a = self._nth(nth)
        gates = [g for g in self.facts.gates(a, self._now()) if g.result != "pass"] if a else []
        if a is not None and gates:
            self._waive(a, gates[gate % len(gates)].id, self._actor(who, method="webauthn"))

    def _waive(self, a: Asked, gate: str, actor: Actor) -> None:
        had = len(self._request(a.id).waivers)
        may_before = self._may(lambda: self.facts.may_waive(a, actor, gate))
        refused = self._act(self.parts.people.waive(a.id, self._person(actor), gate, "it is known", None))
        self._told(actor)
        may = may_before | self._may(lambda: self.facts.may_waive(a, actor, gate))
        if refused is None:
            if len(self._request(a.id).waivers) > had:
                assert True in may, (a, actor, gate)
                a.waivers.append(Waived(gate, actor.name, self.facts.basis(a)))
                self.base.counts["waived"] += 1
        elif refused not in ("request-closed", "request-expired"):
            assert False in may, (refused, a, actor, gate, self._shown(a))

    @act(4, nth=NTH, result=st.sampled_from(["pass", "pass", "fail", "inconclusive", "error"]))
    def answer(self, nth: int, result: Any) -> None:
        if (a := self._nth(nth)) is None:
            return
        hooks = [
            f"{name}/{gate['id']}"
            for name, spec, _ in self.facts.applying(a)
            for gate in spec.get("gates", ())
            if "webhook" in gate
        ]
        for hook in hooks[:1]:
            question = Question(a.id, hook, self._request(a.id).request_digest)
            if self._act(self.answers.record(question, Said(result, "it says so"))) is None:
                a.answers.append((hook, self.facts.basis(a), result))

    # -- emergencies ----------------------------------------------------------------------------------------------

    @act(5, nth=NTH, who=st.sampled_from(["otto", "olga", "ben", "bot"]), why=st.sampled_from([WHY, WHY, "now"]), old=NTH)
    def break_glass(self, nth: int, who: str, why: str, old: int) -> None:
        if (a := self._nth(nth)) is not None:
            self._break(a, self._actor(who, old=old == 3), why)

    def _break(self, a: Asked, actor: Actor, why: str) -> None:
        refused = self._act(self.parts.emergencies.break_glass(a.id, self._person(actor), why))
        self._told(actor)
        found = self._may(lambda: self.facts.may_break(a, actor, why) is not None)
        if refused is None:
            assert True in found, (a, actor, self._shown(a))
            glass = self._request(a.id).glass
            assert glass is not None
            self.facts.now = glass.at
            a.glass = self.facts.may_break(a, actor, why)
            assert a.glass is not None
            assert (glass.until, glass.review_by, {*glass.skips}) == (a.glass.until, a.glass.review_by, a.glass.skips)
            assert ({*glass.review}, glass.review_count) == (a.glass.review, a.glass.count)
            self.base.counts["glass"] += 1
        elif refused not in ("request-closed", "request-expired"):
            assert False in found, (refused, a, actor, self._shown(a))

    @act(3, nth=NTH, who=st.sampled_from(["rita", "rolf", "lou", "lea", "olga", "otto", "bot"]), justified=st.booleans())
    def review(self, nth: int, who: str, justified: bool) -> None:
        broken = [a for a in self.facts.asked.values() if a.glass is not None and a.status != "open"]
        if not broken:
            return
        a, actor = broken[-1 - nth % len(broken)], self._actor(who)
        work = self.parts.emergencies.review(a.id, self._person(actor), justified=justified, comment="I looked")
        refused = self._act(work)
        self._told(actor)
        assert a.glass is not None
        may = actor.person and who not in (a.glass.by, a.by) and bool(actor.groups & a.glass.review)
        if self.decided[a.id] is not None:
            assert (refused is None) == (may or who in a.reviews), (refused, a, actor)
        if refused is None:
            a.reviews.add(who)

    # -- what requests rest on ------------------------------------------------------------------------------------

    @act(
        2,
        model=MODELS,
        version=VERSIONS,
        dataset=st.sampled_from(["may", "june"]),
        auc=st.sampled_from([0.9, 0.8]),
        age=st.sampled_from([0, 1, 60]),
        offset=st.sampled_from([0, 5, -7]),
    )
    def evaluate(self, model: str, version: int, dataset: str, auc: float, age: int, offset: int) -> None:
        zone = timedelta(hours=offset)
        at = (self._now() - timedelta(hours=age)).astimezone(__import__("datetime").timezone(zone))
        evaluation = Evaluation(dataset=Dataset(name=dataset), metrics={"auc": auc}, evaluated_at=at)
        self._event(VersionEvaluated(workspace="default", model=model, version=version, evaluation=evaluation), version)
        self._version(model, version)["evaluations"].append({"dataset": dataset, "auc": auc, "at": at})

    @act(1, model=MODELS, version=VERSIONS, team=st.sampled_from(["red", "blue", None]))
    def tag_version(self, model: str, version: int, team: str | None) -> None:
        tags = Tags(set={"team": team}) if team else Tags(remove=("team",))
        self._event(VersionTagged(workspace="default", model=model, version=version, tags=tags), version)
        self._tag(self._version(model, version)["tags"], "team", team)

    @act(1, model=MODELS, risk=st.sampled_from(["high", "low", None]))
    def tag_model(self, model: str, risk: str | None) -> None:
        tags = Tags(set={"risk": risk}) if risk else Tags(remove=("risk",))
        self._event(ModelUpdated(workspace="default", model=model, tags=tags), None)
        self._tag(self.facts.models[model]["tags"], "risk", risk)

    @staticmethod
    def _tag(tags: dict[str, str], name: str, value: str | None) -> None:
        tags.pop(name, None)
        if value is not None:
            tags[name] = value

    @act(1, model=MODELS, version=VERSIONS, unsafe=st.booleans())
    def verify(self, model: str, version: int, unsafe: bool) -> None:
        known = self.direct.registry.versions[model, version]
        found = (Finding(severity=Severity.UNSAFE, code="pickle", detail="it runs code"),) if unsafe else ()
        inspection = Inspection(scanner="test", findings=found)
        artifact = known.content.artifact.digest
        event = VersionVerified(
            workspace="default",
            model=model,
            version=version,
            digest=known.digest,
            artifact_digest=artifact,
            inspection=inspection,
        )
        self._event(event, version)
        self._version(model, version)["unsafe"] = unsafe

    @act(
        2,
        model=MODELS,
        version=VERSIONS,
        kind=st.sampled_from(["model_card", "ci", "ci"]),
        by=st.sampled_from(["ci", "ci", "ana"]),
        result=st.sampled_from(["pass", "pass", "fail", "inconclusive"]),
    )
    def attach(self, model: str, version: int, kind: str, by: str, result: Any) -> None:
        said = result if kind == "ci" else None
        piece = Piece(kind, f"a {kind}", url="https://example.org/1", result=said)
        principal = Principal(by, frozenset({"ml-engineers"}), "service" if by == "ci" else "person", 0, "token")
        attached = self.run(self.attachments.attach(Version("default", model, version), piece, principal))
        if attached.new:
            self._version(model, version)["evidence"].append({"type": kind, "result": said, "by": by})

    @act(3, nth=NTH)
    def carry_out(self, nth: int) -> None:
        done = [a for a in self.facts.asked.values() if a.status == "approved" and a.policy is None]
        done = [a for a in done if a.kind != "alias"]
        if not done:
            return
        a = done[-1 - nth % len(done)]
        asked = self.envelopes[a.id].payload(StageRequested)
        fields = asked.model_dump(exclude={"expires_at", "expected", "fields"})
        self._event(StageChanged(**fields), a.version)
        self.facts.stays = [s for s in self.facts.stays if s[:2] != (a.model, a.version)]
        self.facts.stays.append((a.model, a.version, a.target))
        stages = self._version(a.model, a.version)["stages"]
        stages[:] = sorted({*stages, a.target})
        self.base.counts["carried out"] += 1

    @act(1, nth=NTH)
    def cancel(self, nth: int) -> None:
        a = self._nth(nth)
        if a is None or nth or a.policy is not None:
            return
        asked = self.envelopes[a.id].payload(StageRequested)
        fields = asked.model_dump(exclude={"expires_at", "expected", "fields"})
        self._event(StageRefused(**fields, code="cancelled", detail="not any more"), a.version)
        a.status = "cancelled"

    @act(1, model=MODELS, version=VERSIONS, sure=NTH)
    def revoke(self, model: str, version: int, sure: int) -> None:
        if sure or self._version(model, version)["revoked"]:
            return
        work = self.parts.revocations.revoke("default", model, version, by="otto", reason="it leaks")
        ordered = self.run(work)
        event = VersionRevoked(
            **ordered.revocation.model_dump(include={"workspace", "model", "version", "digest", "revoked_by", "reason"}),
            revocation=ordered.jws,
        )
        self._event(event, version)
        self._version(model, version)["revoked"] = True

    def _event(self, message: Message, version: int | None) -> None:
        self.run(self.direct.registry.publish(message, message.model, version))  # type: ignore[attr-defined]

    def _version(self, model: str, version: int) -> dict[str, Any]:
        return self.facts.versions[model, version]

    # -- people and policies --------------------------------------------------------------------------------------

    @act(4, who=EVERYBODY, groups=st.sets(st.sampled_from(GROUPS), max_size=2), person=st.integers(1, 6))
    def the_directory_tells(self, who: str, groups: set[str], person: int) -> None:
        found = frozenset(groups) if groups else frozenset(PEOPLE[who].split())
        person_now = who != "bot" and person != 6
        self.run(self.parts.directory.tell(who, found, person=person_now, by="the directory"))
        self.facts.people[who] = (found, person_now)
        self.tokens[who] = found

    @act(2, who=EVERYBODY, groups=st.sets(st.sampled_from(GROUPS), max_size=2))
    def a_new_token(self, who: str, groups: set[str]) -> None:
        self.tokens[who] = frozenset(groups) if groups else frozenset(PEOPLE[who].split())

    @act(
        4,
        delegator=VOTERS,
        delegate=st.sampled_from(["dora", "ben", "rita", "ana"]),
        starts=st.sampled_from([0, 0, 3]),
        days=st.sampled_from([1, 1, 7, 30]),
    )
    def delegate(self, delegator: str, delegate: str, starts: int, days: int) -> None:
        since = self._now() + timedelta(hours=starts)
        until = since + timedelta(days=days)
        work = self.parts.directory.grant(delegator, delegate, since if starts else None, until, "away", by=delegator)
        if self._act(work) is None:
            row = self.result
            self.facts.delegations[row.delegation_id] = (delegator, delegate, row.starts, row.ends)

    @act(1, nth=NTH)
    def end_delegation(self, nth: int) -> None:
        if self.facts.delegations:
            found = sorted(self.facts.delegations)[-1 - nth % len(self.facts.delegations)]
            self.run(self.parts.directory.end(found, "root", anybodys=True))
            del self.facts.delegations[found]

    @act(4, name=st.sampled_from(["one", "two", "three"]), spec=documents() | documents(gentle=True), leave=NTH)
    def edit_a_policy(self, name: str, spec: dict[str, Any], leave: int) -> None:
        self._publish(name, spec, agreed=leave != 3)

    @act(1, count=st.sampled_from([1, 2]), wait=st.sampled_from([None, "30m"]))
    def edit_the_policy_about_policies(self, count: int, wait: str | None) -> None:
        rules = [{"id": "agree", "meaning": "I agree", "from": ["group:admins"], "count": count}]
        spec = {"match": {"transition": {"kind": "policy"}}, "approvals": {"rules": rules}}
        self._publish("policy-changes", {**spec, "schedule": {"min_wait": wait}} if wait else spec)

    def _publish(self, name: str, spec: dict[str, Any], *, agreed: bool = True) -> None:
        document = text(name, spec, self._now())
        if self._act(self.parts.revisions.propose(document, "root", "we learnt")) is not None:
            return
        request = self.result.request
        if request is None or request.request_id in self.facts.asked:
            return
        asked = Asked(
            id=request.request_id,
            kind="policy",
            model=name,
            version=request.opened.policy.revision,
            origin=request.inputs["request"]["from"],
            target=request.inputs["request"]["to"],
            by="root",
            reason="we learnt",
            fields={},
            opened_at=request.opened_at,
            expires_at=request.opened_at + timedelta(days=30),
            bound_at=request.bound_at,
            policy=document,
        )
        self._asked(request, asked)
        if agreed:
            self._vote(asked, self._actor("vera"), "approve")
            self.compare()

    # -- time -----------------------------------------------------------------------------------------------------

    @act(7, minutes=st.sampled_from([1, 10, 45, 200, 400, 1500, 4000]))
    def jump(self, minutes: int) -> None:
        self.direct.clock.ahead += timedelta(minutes=minutes)
        self.run(self.direct.sweep())

    @act(1)
    def sweep(self) -> None:
        self.run(self.direct.sweep())

    @act(14, nth=NTH, then=st.none() | st.none() | st.none() | st.sampled_from([30, 400, 1500]))
    def help(self, nth: int, then: int | None) -> None:
        """Does what a request waits for: random steps alone seldom go the whole way."""
        a = self._nth(nth)
        if a is None:
            return
        gates = [g for g in self.facts.gates(a, self._now()) if g.blocks and g.result not in ("pass", "waived")]
        for gate in gates:
            able = [w for w in ("lea", "lou", "rita", "sue") if all(self._groups(w) & one for one in gate.passers)]
            if gate.passers and able:
                self._waive(a, gate.id, self._actor(able[0], method="webauthn"))
        self.compare()
        for key, (groups, count) in self.facts.rules(a, self.facts.applying(a)).items():
            heard = {name for vote in a.votes for name in (vote.who, vote.whose)} | {a.by}
            able = [w for w in PEOPLE if self._groups(w) & groups and w not in (*heard, "carl", "cem", "bot")]
            for who in able[:count]:
                if a.status == "open":
                    self._vote(a, self._actor(who, method="webauthn"), "approve", named=key)
                    self.compare()
        if then is not None:
            self.jump(then)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        names = [name for name, (weight, _) in ACTIONS.items() for _ in range(weight)]
        name = data.draw(st.sampled_from(names))
        getattr(self, name)(**data.draw(st.fixed_dictionaries(ACTIONS[name][1])))

    # -- people as they act ---------------------------------------------------------------------------------------

    def _groups(self, name: str) -> frozenset[str]:
        return self.tokens[name]

    def _actor(self, name: str, *, old: bool = False, method: str = "token") -> Actor:
        at = self._now() - timedelta(minutes=10 if old else 0)
        return Actor(name, self._groups(name), at, name != "bot", method, EMAILS.get(name))

    def _person(self, actor: Actor) -> Person:
        principal = Principal(actor.name, actor.groups, "person" if actor.person else "service", 0, actor.method)
        may = self.desk.access.allows(principal, __import__("contracts.access").access.Action.VOTE, "default", "risky")
        return Person(actor.name, actor.groups, actor.person, may, actor.method, actor.auth_at, actor.email)

    def _told(self, actor: Actor) -> None:
        """Their groups are known by what they came with."""
        self.facts.people[actor.name] = (actor.groups, actor.person)

    def _act(self, work: Coroutine[Any, Any, Any]) -> str | None:
        """The code of the refusal, if there is one."""
        self.before = self._now()
        try:
            self.result = self.run(work)
        except Problem as problem:
            return problem.code
        return None

    def _may(self, says: Any) -> set[bool]:
        """What the oracle says of the time before the act and after it: it may have come in between."""
        found = set()
        for moment in (self.before, self._now()) if hasattr(self, "before") else (self._now(),):
            self.facts.now = moment
            found.add(bool(says()))
        return found

    def _now(self) -> datetime:
        async def work() -> datetime:
            async with self.direct.db.snapshot() as tx:
                return await self.direct.clock(tx)

        return self.run(work())

    def _request(self, request_id: str) -> Request:
        return self.run(self.direct.request(request_id))

    def _shown(self, a: Asked) -> Any:
        request = self._request(a.id)
        return (
            [policy for policy in self.facts.policies.items() if policy[0] in {n for n, _, _ in self.facts.applying(a)}],
            request.model_dump(exclude={"opened", "rebound"}),
            self.facts.people,
        )

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def compare(self) -> None:
        for request in self.run(self._requests()):
            a = self.facts.asked.get(request.request_id)
            if a is None:
                continue
            if a.status == "open":
                self._compare(a, request)
            assert self.decided.setdefault(a.id, request.decision) == request.decision or a.status == "open"
            self._look(a, request)

    def _look(self, a: Asked, request: Request) -> None:
        """Takes up what time has done."""
        if request.overdue is not None and not a.overdue:
            assert a.glass is not None
            assert not a.reviewed
            assert self._now() >= a.glass.review_by
            a.overdue = True
            assert request.overdue.frozen == a.glass.freezes

    def _compare(self, a: Asked, request: Request) -> None:
        for step in request.escalated:
            if step.rule is not None:
                a.added.setdefault(step.rule, set()).update(one.removeprefix("group:") for one in step.to)
        if request.status == "open":
            self._rebound(a, request)
            return
        a.status = request.status
        if request.status == "cancelled":
            return
        decision = request.decision
        at = decision.decided_at if decision else self._now()
        expected = self.facts.verdict(a, at)
        given = "approved" if request.status == "approved" else "rejected"
        self.base.counts[f"{a.kind} {request.status}{' in an emergency' if decision and decision.break_glass else ''}"] += 1
        late = given == "rejected" and at >= min(a.limits)
        assert given == expected or late, (given, expected, a, self._shown(a))
        if a.policy is not None and given == "approved":
            self.facts.policies[a.model] = (a.policy, a.by)
        self.base.counts["because " + re.sub("[^a-z ].*", "", decision.reason)[:30] if decision else "closed"] += 1
        self.decided[a.id] = decision
        if decision is not None and given == "approved":
            self._record(a, request)

    def _record(self, a: Asked, request: Request) -> None:
        """What the decision says of itself."""
        decision = request.decision
        assert decision is not None
        held = {(vote.who, vote.at) for vote in a.votes}
        assert all((vote.voter, vote.at) in held for vote in decision.votes), (a, decision)
        assert (decision.version, str(decision.to_stage), decision.requested_by) == (a.version, a.target, a.by)
        assert all(gate.result in ("pass", "waived") for gate in decision.gates if gate.gate in self._never(a))

    def _never(self, a: Asked) -> set[str]:
        return {gate.id for gate in self.facts.gates(a, self._now()) if gate.never}

    def _rebound(self, a: Asked, request: Request) -> None:
        """Votes are void when, and only when, what the request rests on has changed."""
        a.bound_at = request.bound_at
        a.limits.append(self.facts.limit(a))
        gone = {vote.vote.at for vote in request.past_votes}
        basis = self.facts.basis(a)
        kept = []
        for vote in a.votes:
            if vote.at in gone:
                self.base.counts["vote void"] += 1
            else:
                kept.append(vote)
        a.votes = kept
        del basis

    async def _requests(self) -> list[Request]:
        async with self.direct.db.snapshot() as tx:
            return [request async for request in views.requests(tx, after=None)]

    def teardown(self) -> None:
        try:
            self.run(self._judged())
            self.run(self._folded())
        finally:
            self.run(self.direct.db.close())
            self.base.drop()

    async def _judged(self) -> None:
        """Every record of a decision is good for whoever judges it again."""
        keys = published(Keyring(self.direct.settings.decision_key))
        async with self.direct.db.snapshot() as tx:
            events = [e async for e in self.desk.log.read(tx) if e.type == RequestDecided.TYPE]
        for event in events:
            found = judge(event.payload(RequestDecided), keys)
            assert found.ok, [(check.name, check.text) for check in found.failed]

    async def _folded(self) -> None:
        """The views are what their events make of them."""
        before = await self._views()
        async with self.direct.db.transaction() as tx:
            await views.rebuild(tx, self.desk.log)
        assert await self._views() == before

    async def _views(self) -> list[Any]:
        async with self.direct.db.snapshot() as tx:
            return [sorted(map(repr, (await tx.execute(sa.select(table))).all())) for table in views.VIEWS]


class Base:
    """A database that is ready, and copies of it: one for each walk."""

    def __init__(self, postgres: str, template: str, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.counts: Counter[str] = Counter()
        self._postgres, self._template, self._directory = postgres, template, directory
        self._url = service_url(template)
        self._copies: list[Any] = []
        direct = make_direct(make_settings(self._url, directory))
        self.loop.run_until_complete(direct.parts.revisions.bootstrap())
        self.loop.run_until_complete(direct.db.close())

    def fresh(self) -> Direct:
        name = f"{urlsplit(self._template).path.strip('/')}_{len(self._copies)}"
        source = urlsplit(self._template).path.strip("/")
        run(_execute(self._postgres, f"create database {name} template {source}"))
        self._copies.append(name)
        url = urlsplit(self._url)._replace(path=f"/{name}").geturl()
        settings = make_settings(url, self._directory, settle_seconds=0.0)
        return make_direct(settings.model_copy(update={"database_url": SecretStr(url)}))

    def drop(self) -> None:
        run(_execute(self._postgres, f"drop database if exists {self._copies[-1]} with (force)"))


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def base(infra_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    with new_database(infra_postgres) as template:
        base = Base(infra_postgres, template, tmp_path_factory.mktemp("machine"))
        yield base
        base.loop.close()


@pytest.mark.timeout(3600)
def test_no_decision_that_the_policies_forbid(base: Base) -> None:
    walk = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    run_state_machine_as_test(type("Walk", (Machine,), {"base": base}), settings=walk)
    print(dict(sorted(base.counts.items())))
