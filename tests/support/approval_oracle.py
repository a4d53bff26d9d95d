"""What policies allow, by a second and naive implementation: the verdict at a time, and what people may do."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from tests.support.approval_facts import Actor, Asked, Cast, Doc, Glass, least, plain, span
from tests.support.approval_reading import GOOD, NOBODY, Docs, Reading, Said, delegable, entitled, people, pieces

HELD = ("promotion", "alias")  # what a frozen model may not have
WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Oracle(Reading):
    # -- the verdict ----------------------------------------------------------------------------------------------

    def verdict(self, a: Asked, at: datetime) -> str | None:
        """What a decision at that time has to be; None: there must be none."""
        docs = self.docs(a)
        sure = any(about for _, _, about in self.about(a))
        if at >= min(self.limit(a), *a.limits[:1]) or not sure or self._mistakes(a, docs) or self._denied(a):
            return "rejected"
        gates, held = list(self.gates(a, at)), a.kind in HELD and self.frozen(a.model, at)
        if not held and self._emergency(a, docs, gates, at):
            return "approved"
        failed = [gate for gate in gates if gate.blocks and gate.result not in (*GOOD, "pending") and not gate.passers]
        if any(gate.never or "gates" not in _skips(docs) for gate in failed):
            return "rejected"
        ready = self._checked(a, docs, gates) and self._quorum(a, at) and self._in_time(a, docs, at)
        return "approved" if ready and not held and self._turn(a, at) else None

    def _turn(self, a: Asked, at: datetime) -> bool:
        """Whether nothing else that is approved is on its way to the same place."""
        others = [
            b for b in self.asked.values() if b.status == "approved" and (b.model, b.target) == (a.model, a.target)
        ]
        under_way = [b for b in others if b.holds_until is not None and at < b.holds_until and not b.told]
        return not under_way or bool(self.inputs(a)["request"].get("beforehand"))

    def holds(self, a: Asked, at: datetime) -> bool:
        """Whether an approval may still be carried out at that time: its people, its time and its emergency."""
        skips = a.glass.skips if a.glass and a.glass.basis == self.basis(a) and at < a.glass.until else NOBODY
        people_agree = "approvals" in skips or self._quorum(a, at)
        return at < self.limit(a) and people_agree and ("schedule" in skips or self._in_time(a, self.docs(a), at))

    def by_people(self, a: Asked, at: datetime) -> bool:
        """Whether a decision at that time is that of people: some are asked, and there is no emergency."""
        emergency = self._emergency(a, self.docs(a), list(self.gates(a, at)), at)
        return bool(self.rules(a)) and not emergency

    def _mistakes(self, a: Asked, docs: Docs) -> bool:
        if self.inputs(a)["request"].get("beforehand") or a.by == "hallmark/registry":
            return False
        for request in (spec.get("request", {}) for _, spec in docs):
            if len(a.reason.strip()) < request.get("reason", {}).get("min_length", 1):
                return True
            for name, wanted in request.get("fields", {}).items():
                value = a.fields.get(name, "")
                number = wanted.get("type") == "model_version"
                like = "[1-9][0-9]*" if number else wanted.get("pattern", ".*").strip("^$")
                if not re.fullmatch(like, value) if value else wanted.get("required", False):
                    return True
        return False

    def _checked(self, a: Asked, docs: Docs, gates: list[Said]) -> bool:
        """Whether the evidence is there and every blocking gate is good."""
        version = self.inputs(a)["candidate"] or {"evidence": []}
        wanted = {kind for _, spec in docs for kind in spec.get("request", {}).get("evidence", ())}
        there = wanted <= {kind for kind, one in pieces(version).items() if one["result"] != "fail"}
        return there and all(gate.result in GOOD for gate in gates if gate.blocks)

    def _emergency(self, a: Asked, docs: Docs, gates: list[Said], at: datetime) -> bool:
        glass = a.glass
        if glass is None or glass.basis != self.basis(a) or at >= glass.until or self._left(docs, glass):
            return False
        return (
            all(gate.result in GOOD for gate in gates if gate.never)
            and ("gates" in glass.skips or self._checked(a, docs, gates))
            and ("approvals" in glass.skips or self._quorum(a, at))
            and ("schedule" in glass.skips or self._in_time(a, docs, at))
        )

    def _left(self, docs: Docs, glass: Glass) -> bool:
        """Whether whoever broke the glass could do it no more."""
        member = self.members[glass.by]
        return not member.person or not all(member.groups & plain(spec["break_glass"]["allowed"]) for _, spec in docs)

    def _in_time(self, a: Asked, docs: Docs, at: datetime) -> bool:
        schedules = [spec.get("schedule", {}) for _, spec in docs]
        return bool(self.inputs(a)["request"].get("beforehand")) or all(
            at >= a.opened_at + span(one.get("min_wait", "0s"))
            and (not one.get("windows") or any(_within(window, at) for window in one["windows"]))
            and not any(
                datetime.fromisoformat(freeze["from"]) <= at < datetime.fromisoformat(freeze["to"])
                for freeze in one.get("freezes", ())
            )
            for one in schedules
        )

    def _quorum(self, a: Asked, at: datetime) -> bool:
        have = self.have(a, at)
        return all(have[rule] >= count for rule, (_, count) in self.rules(a).items())

    def _denied(self, a: Asked) -> bool:
        """By people who may still reject; for whom they did, tells what they were when they did."""
        anybody = NOBODY.union(*(allowed for allowed, _ in self.deniers(a)))
        against = [
            vote
            for vote in a.votes
            if vote.choice == "reject" and self.known(vote.whose)[0] & anybody and self.counts(a, vote, vote.at)
        ]
        return any(
            len({self.one(vote.whose) for vote in against if vote.groups & allowed}) >= count
            for allowed, count in self.deniers(a)
        )

    # -- what people may do ---------------------------------------------------------------------------------------

    def may_vote(
        self, a: Asked, who: Actor, choice: str, comment: str, rule: str | None, behalf: str | None, at: datetime
    ) -> bool:
        """That the request is open, and the one they saw, is for the caller to know."""
        docs, rules = self.docs(a), self.rules(a)
        if behalf is None:
            groups, person = entitled(who.groups), who.person
        elif self.lent(a, behalf, who.name, at):
            groups, person = self.known(behalf)
        else:
            return False
        if choice == "approve":
            allowed = NOBODY.union(*(groups for key, (groups, _) in rules.items() if rule in (None, key)))
        else:
            allowed = NOBODY.union(*(groups for groups, _ in self.deniers(a)))
        stand = [vote for vote in a.votes if self._stands(a, docs, vote, at)]
        heard = {name for vote in stand for name in (vote.who, self.one(vote.who), vote.whose)}
        return (
            (who.person and person and bool(groups & allowed) and self._stepped_up(docs, who, at))
            and not self.excluded(a, who.name)
            and not (behalf and self.excluded(a, behalf))
            and not {who.name, self.one(who.name), *((behalf, self.one(behalf)) if behalf else ())} & heard
            and bool(entitled(who.groups))
            and (choice == "approve" or bool(comment.strip()))
        )

    def lent(self, a: Asked, delegator: str, delegate: str, at: datetime) -> bool:
        """Whether a delegation of that time lets the one vote for the other."""
        longest = delegable(self.docs(a))
        return delegator in self.members and any(
            longest is not None and (one, other) == (delegator, delegate) and since <= at < until <= since + longest
            for one, other, since, until in self.delegations.values()
        )

    def _stands(self, a: Asked, docs: Docs, vote: Cast, at: datetime) -> bool:
        """Whether it stands in the way of another vote: who has left a group since has to withdraw first."""
        valid = least(people(spec).get("valid_for") for _, spec in docs)
        old = vote.choice == "approve" and valid is not None and at - vote.at > valid
        return vote.basis == self.basis(a) and not old

    def _stepped_up(self, docs: Docs, who: Actor, at: datetime) -> bool:
        signatures = [people(spec).get("signature", {}) for _, spec in docs]
        within = least(one.get("reauthenticate_within") for one in signatures)
        methods = all(who.method in one["methods"] for one in signatures if one.get("methods"))
        return methods and (within is None or at - who.auth_at <= within)

    def may_waive(self, a: Asked, who: Actor, gate_id: str, at: datetime) -> bool:
        gate, groups = next((gate for gate in self.gates(a, at) if gate.id == gate_id), None), entitled(who.groups)
        return (
            gate is not None
            and gate.result not in ("pass", "waived", "pending")
            and (who.person and bool(gate.passers) and all(groups & one for one in gate.passers))
            and not self.excluded(a, who.name)
            and self._stepped_up(self.docs(a), who, at)
        )

    def breaks(self, a: Asked, who: Actor, reason: str, at: datetime) -> Glass | None:
        """The emergency that they may begin, or the one that is on."""
        docs, skips = self.docs(a), _skips(self.docs(a))
        if not skips:
            return None
        glasses = [spec["break_glass"] for _, spec in docs]
        within = least(one.get("reauthenticate_within", "5m") for one in glasses if one.get("reauthenticate", True))
        may = (
            (who.person and all(who.groups & plain(one["allowed"]) for one in glasses))
            and len(reason.strip()) >= max(one.get("reason", {}).get("min_length", 1) for one in glasses)
            and (within is None or at - who.auth_at <= within)
            and self._stepped_up(docs, who, at)
            and not (a.kind in HELD and self.frozen(a.model, at))
            and all(gate.result in GOOD for gate in self.gates(a, at) if gate.never)
        )
        if a.glass is not None and a.glass.basis == self.basis(a) and not self._left(docs, a.glass):
            return a.glass if may and at < a.glass.until else None
        reviews = [one["review"] for one in glasses]
        each = [plain(one["from"]) for one in reviews]
        glass = Glass(
            by=who.name,
            basis=self.basis(a),
            until=at + min(span(one.get("grants_for", "4h")) for one in glasses),
            skips=skips,
            review=frozenset.intersection(*each) or NOBODY.union(*each),
            count=max(one.get("count", 1) for one in reviews),
            review_by=at + min(span(one["within"]) for one in reviews),
            freezes=any("freeze_model" in one.get("on_overdue", ("freeze_model",)) for one in reviews),
        )
        return glass if may else None

    def may_review(self, a: Asked, who: Actor, at: datetime) -> bool:
        """An emergency that let the request pass."""
        glass = a.glass
        return (
            (glass is not None and who.person and bool(entitled(who.groups) & glass.review))
            and self.one(who.name) != self.one(glass.by)
            and not self.excluded(a, who.name)
            and self._stepped_up(self.docs(a), who, at)
        )

    def accepted(self, a: Asked) -> bool:
        """Whether enough people find the emergency justified, of those who may still say so."""
        assert a.glass is not None
        good = {who for who, justified, _ in a.standing_reviews if justified and not self.excluded(a, who)}
        able = {self.one(who) for who in good if self.known(who)[1] and self.known(who)[0] & a.glass.review}
        return len(able) >= a.glass.count


def _skips(docs: Docs) -> frozenset[str]:
    """What an emergency skips: what all policies allow."""
    each = [
        frozenset(spec.get("break_glass", {"skips": ()}).get("skips", ("approvals", "schedule"))) for _, spec in docs
    ]
    return frozenset[str].intersection(*each) if each else NOBODY


def _within(window: Doc, at: datetime) -> bool:
    """Whether the clock on the wall shows these hours of these days."""
    wall = at.astimezone(ZoneInfo(window["tz"]))
    clock, today, yesterday = wall.strftime("%H:%M"), WEEK[wall.weekday()], WEEK[wall.weekday() - 1]
    if window["from"] < window["to"]:
        return _day(today, window["days"]) and window["from"] <= clock < window["to"]
    late, early = clock >= window["from"], clock < window["to"]
    return (_day(today, window["days"]) and late) or (_day(yesterday, window["days"]) and early)


def _day(day: str, days: str) -> bool:
    for part in days.split(","):
        first, last = WEEK.index(part[:3]), WEEK.index(part[-3:])
        if (WEEK.index(day) - first) % 7 <= (last - first) % 7:
            return True
    return False
