"""What people do with requests in a random walk: ask, vote, waive, break the glass, review."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from tests.support.approval_facts import Actor, Asked, Cast, Waived
from tests.support.approval_walk import EMAILS, EVERYBODY, MODELS, NTH, OPEN_AT_MOST, PEOPLE, VERSIONS, VOTERS, step_of
from tests.support.approval_watch import Watch

from approval.answers import Answers, Said
from approval.answers import Asked as Question
from contracts.approval import Choice
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import StageRequested
from policy.case import Ballot

ENDED = ("request-closed", "request-expired")
BAD = ("fail", "error", "inconclusive")
APT = "somebody who is asked"
PASSERS = ["lea", "lou", "rita", "sue"]  # who may let gates pass
GOOD_FIELDS = {"change_ticket": "CHG123", "rollback_to": "1"}
FIELDS: list[dict[str, str]] = [
    *([GOOD_FIELDS] * 4 + [{**GOOD_FIELDS, "change_class": "standard"}] * 2),
    *({}, {"change_ticket": "none"}, {"rollback_to": "first", "change_ticket": "CHG123"}),
]


class Acts(Watch):
    def actor(self, name: str, minutes: int = 0, method: str = "webauthn") -> Actor:
        """Somebody who has signed in so long ago."""
        at = self.scene.now() - timedelta(minutes=minutes)
        return Actor(name, self.tokens[name], at, name != "bot", method, EMAILS.get(name))

    # -- requests -------------------------------------------------------------------------------------------------

    @step_of(
        8,
        model=MODELS,
        version=VERSIONS,
        kind=["promotion"] * 12 + ["rollback"] * 5 + ["alias"],
        target=["Production"] * 9 + ["Staging"],
        by=["ana", "ana", "ben", "lea"],
        fields=FIELDS,
        reason=["better on every slice"] * 5 + ["test"],
        hours=[240] * 5 + [2],
    )
    def ask(self, model: str, version: int, kind: str, target: str, by: str, hours: int, **given: Any) -> None:
        if sum(a.status == "open" for a in self.facts.asked.values()) >= OPEN_AT_MOST:
            return
        if kind == "rollback" and (ways := self._ways_back(target)):
            model, version = self.random.choice(ways)
            by, given["fields"] = self.random.choice([("hallmark/registry", {}), ("otto", {}), (by, given["fields"])])
        elif kind == "rollback" and self.random.randrange(6):
            kind = "promotion"
        target, expires_at = "@champion" if kind == "alias" else target, self.scene.now() + timedelta(hours=hours)
        transition = self.registry.transition(model, version, Stage.STAGING, Stage.PRODUCTION, TransitionKind(kind))
        message = StageRequested(
            **{**transition.model_dump(), "to_stage": target}, requested_by=by, expires_at=expires_at, **given
        )
        self.scene.run(self.registry.publish(message, model, version))
        self.asked(message.transition_id, kind, model, version, "Staging", target, by, expires_at, **given)

    def _ways_back(self, target: str) -> list[tuple[str, int]]:
        """The versions that have been there where another one is now."""
        there = {model: version for model, version, stage in self.facts.stays if stage == target}
        known = self.facts.versions.items()
        return [(m, v) for (m, v), facts in known if target in facts["stages"] and there.get(m, v) != v]

    def asked(
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
        self.touched.add(a.id)
        return a

    # -- votes ----------------------------------------------------------------------------------------------------

    @step_of(
        10,
        nth=NTH,
        who=EVERYBODY + [APT] * 30,
        choice=["approve"] * 3 + ["reject"] * 2,
        comment=["because"] * 5 + [" "],
        saw=[None, None, None, "first"],
        chosen=range(8),
        minutes=[0, 0, 0, 10],
        method=["webauthn", "webauthn", "token"],
    )
    def vote(self, nth: int, who: str, chosen: int, saw: str | None, minutes: int, method: str, **given: Any) -> None:
        if (a := self.nth(nth)) is not None:
            rules = self.facts.rules(a)
            named = sorted(rules)[chosen] if chosen < len(rules) else None
            if who == APT:
                asked = [one for one in PEOPLE if self.tokens[one] & self._asks(a, given["choice"])]
                who = self.random.choice(asked or ["ben"])
            self.cast(a, self.actor(who, minutes, method), rule=named, saw=self.first[a.id] if saw else None, **given)

    def _asks(self, a: Asked, choice: str) -> frozenset[str]:
        """The groups of which somebody may approve, or reject."""
        rules, deniers = self.facts.rules(a).values(), self.facts.deniers(a)
        return frozenset[str]().union(*(groups for groups, _ in (rules if choice == "approve" else deniers)))

    @step_of(6, nth=NTH, choice=["approve", "approve", "reject"], who=["dora"] * 6 + ["ben", "rita", "ana", "sue"])
    def vote_for_another(self, nth: int, choice: str, who: str) -> None:
        """Of somebody who is asked and has mostly just lent their vote."""
        if a := self.nth(nth):
            able = [one for one in VOTERS if self.tokens[one] & self._asks(a, choice) and one not in (who, a.by)]
            whose = self.random.choice(able or ["bo"])
            if not self.facts.lent(a, whose, who, self.scene.now()) and self.random.randrange(4):
                self.lend(whose, who, timedelta(0), timedelta(days=self.random.choice([1, 1, 7])))
            self.cast(a, self.actor(who), choice, behalf=whose)

    def lend(self, delegator: str, delegate: str, since: timedelta, lasts: timedelta) -> None:
        self.scene.run(self._seen(self.actor(delegator)))
        starts = self.scene.now() + since
        dates = (starts if since else None, starts + lasts)
        if self.scene.refused(self.parts.directory.grant(delegator, delegate, *dates, "away", by=delegator)) is None:
            row = self.scene.result
            self.facts.delegations[row.delegation_id] = (delegator, delegate, row.starts, row.ends)
            self.facts.granted.append((delegator, delegate))

    async def _seen(self, actor: Actor) -> None:
        """As the HTTP API notes who calls."""
        async with self.direct.db.transaction() as tx:
            await self.parts.directory.seen(tx, self.scene.person(actor), await self.direct.clock(tx))
        self.facts.acts(actor)

    @step_of(8, nth=NTH, choice=["approve", "approve", "reject"])
    def vote_though_forbidden(self, nth: int, choice: str) -> None:
        """By somebody whose groups would do, and who must not for another reason."""
        if a := self.nth(nth):
            for who, behalf, rule in self._tries(a, choice):
                actor = self.actor(who)
                acts = self.facts.counting(actor)
                if not self.facts.may_vote(a, acts, choice, "because", rule, behalf, self.scene.now()):
                    self.cast(a, actor, choice, behalf=behalf, rule=rule)
                    return

    def _tries(self, a: Asked, choice: str) -> Iterator[tuple[str, str | None, str | None]]:
        asked, rules = self._asks(a, choice), [None, *self.facts.rules(a)]
        pairs = [(one, None) for one in PEOPLE] + [(delegate, one) for one, delegate in set(self.facts.granted)]
        for who, behalf in self.random.sample(pairs, len(pairs)):
            if self.tokens[behalf or who] & asked:
                yield who, behalf, self.random.choice(rules) if choice == "approve" else None

    def cast(
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
        request = self.scene.request(a.id)
        if refused in ENDED:
            assert request.status != "open"
            return
        self.follow(a, request)
        self.touched.add(a.id)
        new = [vote for vote in request.votes if vote.voter == actor.name and vote.at not in had]
        if refused is None and not new:
            votes = [(self.facts.one(v.who), v.behalf, v.choice) for v in a.votes if v.basis == self.facts.basis(a)]
            assert (self.facts.one(actor.name), behalf, choice) in votes, self.shown(a, "not taken", actor)
            self.counts["vote: a double click"] += 1
            return
        may = self.scene.ever(lambda at: self.facts.may_vote(a, acts, choice, comment, rule, behalf, at))
        if refused is not None:
            assert refused == "request-changed" if stale else False in may, self.shown(a, refused, actor, choice)
            return
        [vote] = new
        assert True in may, self.shown(a, actor, vote)
        assert not stale, self.shown(a, actor, vote)
        assert (vote.on_behalf_of, str(vote.choice)) == (behalf, choice)
        assert choice == "reject" or vote.rule in self.facts.rules(a)
        assert rule in (None, vote.rule) or choice == "reject"
        groups = self.facts.known(behalf)[0] if behalf else acts.groups
        a.votes.append(Cast(actor.name, behalf, choice, vote.rule, vote.at, self.facts.basis(a), groups))
        self.counts[f"vote: {choice}{' for another' if behalf else ''}"] += 1

    @step_of(2, nth=NTH, who=VOTERS)
    def withdraw(self, nth: int, who: str) -> None:
        if (a := self.aimed(nth, lambda a: a.votes)) is None:
            return
        who = self.random.choice([a.votes[-1].who, a.votes[-1].whose]) if a.votes and nth else who
        person = self.scene.person(self.actor(who))
        if self.scene.refused(self.parts.people.withdraw(a.id, person, "I was wrong")) is None:
            kept = [vote for vote in a.votes if who not in (vote.who, vote.whose)]
            self.counts["withdrawn"] += len(kept) < len(a.votes)
            a.votes = kept
            self.touched.add(a.id)

    @step_of(1, nth=NTH, who=EVERYBODY)
    def comment(self, nth: int, who: str) -> None:
        if a := self.nth(nth, ("open", "approved", "rejected")):
            assert self.scene.refused(self.parts.people.comment(a.id, who, "I wonder")) is None

    # -- gates ----------------------------------------------------------------------------------------------------

    @step_of(
        4, nth=NTH, which=NTH, who=EVERYBODY + ["lea", "lou", "rita", "sue"] * 5, method=["webauthn"] * 3 + ["token"]
    )
    def waive(self, nth: int, which: int, who: str, method: str) -> None:
        if a := self._blocked(nth):
            gates = [gate for gate in self.facts.gates(a, self.scene.now()) if gate.result != "pass"]
            if gates:
                self.let_pass(a, gates[which % len(gates)].id, self.actor(who, method=method))

    def _blocked(self, nth: int) -> Asked | None:
        return self.aimed(nth, lambda a: any(g.result in BAD for g in self.facts.gates(a, self.scene.now())))

    @step_of(3, nth=NTH)
    def waive_though_forbidden(self, nth: int) -> None:
        """By somebody who is in one of the groups, or who could vote."""
        if a := self._blocked(nth):
            now = self.scene.now()
            bad = [gate for gate in self.facts.gates(a, now) if gate.result in BAD]
            for who in self.random.sample(EVERYBODY, len(EVERYBODY)) if bad else ():
                gate, actor = self.random.choice(bad), self.actor(who)
                asked = frozenset[str]().union(*gate.passers) or {"leads", "risk"}
                if actor.groups & asked and not self.facts.may_waive(a, self.facts.counting(actor), gate.id, now):
                    self.let_pass(a, gate.id, actor)
                    return

    def let_pass(self, a: Asked, gate: str, actor: Actor) -> None:
        had = self.scene.request(a.id).waivers
        work = self.parts.people.waive(a.id, self.scene.person(actor), gate, "it is known", None)
        refused, acts = self.scene.refused(work), self.facts.acts(actor)
        request = self.scene.request(a.id)
        if refused in ENDED:
            assert request.status != "open"
            return
        self.follow(a, request)
        self.touched.add(a.id)
        if refused is None and request.waivers == had:
            waived = [(w.gate, w.by, w.basis) for w in a.waivers]
            assert (gate, actor.name, self.facts.basis(a)) in waived, self.shown(a, "not taken", actor, gate)
            return
        may = self.scene.ever(lambda at: self.facts.may_waive(a, acts, gate, at))
        assert (refused is None) in may, self.shown(a, refused, actor, gate)
        if refused is None:
            a.waivers.append(Waived(gate, actor.name, self.facts.basis(a), acts.groups))
            self.counts["waived"] += 1

    @step_of(3, nth=NTH, result=["pass", "pass", "fail", "inconclusive", "error"])
    def answer(self, nth: int, result: Any) -> None:
        if a := self.nth(nth):
            self.answered(a, result)

    def answered(self, a: Asked, result: Any) -> None:
        gates = [(name, gate) for name, spec in self.facts.docs(a) for gate in spec.get("gates", ())]
        answers = Answers(self.parts.desk, {})
        for hook in [f"{name}/{gate['id']}" for name, gate in gates if "webhook" in gate]:
            question = Question(a.id, hook, self.scene.request(a.id).request_digest)
            if self.scene.refused(answers.record(question, Said(result, "it says so"))) is None:
                self.follow(a, self.scene.request(a.id))
                a.answers.append((hook, self.facts.basis(a), result))
                self.touched.add(a.id)
                self.counts["answered"] += 1

    # -- emergencies ----------------------------------------------------------------------------------------------

    @step_of(
        6,
        nth=NTH,
        who=["otto", "otto", "olga", "ben", "bot"],
        why=["production is down", "production is down", "now"],
        minutes=[0, 0, 10],
        looked=range(4),
    )
    def break_the_glass(self, nth: int, who: str, why: str, minutes: int, looked: int) -> None:
        actor = self.actor(who, minutes)
        if a := self.aimed(nth, lambda a: self.facts.breaks(a, actor, why, self.scene.now())):
            self._break(a, actor, why)
            self.compare()
            for _ in range(looked if a.status == "approved" and a.glass is not None else 0):
                able = [one for one in EVERYBODY if a.glass is not None and self.tokens[one] & a.glass.review]
                self._reviewed(a, self.actor(self.random.choice(able or ["bot"])), self.random.randrange(5) > 0)

    def _break(self, a: Asked, actor: Actor, why: str) -> None:
        refused = self.scene.refused(self.parts.emergencies.break_glass(a.id, self.scene.person(actor), why))
        acts, request = self.facts.acts(actor), self.scene.request(a.id)
        if refused in ENDED:
            assert request.status != "open"
            return
        self.follow(a, request)
        self.touched.add(a.id)
        may = self.scene.ever(lambda at: self.facts.breaks(a, acts, why, at))
        assert (refused is None) in may, self.shown(a, refused, actor)
        if refused is None:
            given = request.glass
            assert given is not None
            glass = a.glass = self.facts.breaks(a, acts, why, given.at)
            assert glass is not None
            assert given.by == glass.by
            assert (given.until, given.review_by) == (glass.until, glass.review_by)
            assert (given.review_count, frozenset(given.review)) == (glass.count, glass.review)
            assert frozenset[str](given.skips) == glass.skips
            self.counts["glass"] += 1

    @step_of(
        4,
        nth=NTH,
        who=["rita", "rolf", "lou", "lea", "olga", "otto", "max", "carl", "bot"],
        justified=[True, True, True, False],
        minutes=[0, 0, 10],
        method=["webauthn", "webauthn", "token"],
    )
    def review(self, nth: int, who: str, justified: bool, minutes: int, method: str) -> None:
        broken = [a for a in self.facts.asked.values() if a.glass is not None and a.status == "approved"]
        if not broken:
            return
        self._reviewed(broken[-1 - nth % len(broken)], self.actor(who, minutes, method), justified)

    def _reviewed(self, a: Asked, actor: Actor, justified: bool) -> None:
        who = actor.name
        had = self.scene.request(a.id).reviews
        work = self.parts.emergencies.review(a.id, self.scene.person(actor), justified=justified, comment="I looked")
        refused, acts = self.scene.refused(work), self.facts.acts(actor)
        given = [justified for name, justified, _ in a.standing_reviews if name == who]
        if refused is None and given[-1:] == [justified]:
            return
        may = self.scene.ever(lambda at: self.facts.may_review(a, acts, at))
        assert (refused is None) in may, self.shown(a, refused, actor)
        if refused is None:
            [review] = self.scene.request(a.id).reviews[len(had) :]
            a.reviews.append((who, justified, review.at))
            a.reviewed = justified and (a.reviewed or self.facts.accepted(a))
            assert review.closes == a.reviewed, self.shown(a, actor)
            self.counts["reviewed" if a.reviewed else f"review: {justified}"] += 1
