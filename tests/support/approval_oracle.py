"""What policies allow, read a second time and naively: from their text as plain YAML, and from what has happened.

Nothing of the library `policy` is used. The expressions of generated policies are written again in Python.
"""

import fnmatch
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from zoneinfo import ZoneInfo

from tests.support.approval_facts import Actor, Asked, Cast, Doc, Facts, Glass, canonical, least, plain, read, span

GOOD = ("pass", "waived")
HELD = ("promotion", "alias")  # what a frozen model may not have
UNSAFE = "registry/unsafe-artifact"
VOTERS = {"reviewers", "risk", "leads", "security", "admins"}  # whom the access file lets vote
WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
NOBODY: frozenset[str] = frozenset()
Docs = list[tuple[str, Doc]]


def _latest(version: Doc) -> list[Doc]:
    """The last evaluation on each data set."""
    ordered = sorted(version["evaluations"], key=lambda one: one["at"])
    return list({one["dataset"]: one for one in ordered}.values())


def _evaluated_at(version: Doc) -> datetime:
    if not version["evaluations"]:
        raise KeyError("evaluated_at")
    return max(one["at"] for one in version["evaluations"])


# Each raises KeyError where CEL has an error: a field or a metric that is not there.
EXPRESSIONS: dict[str, Callable[[Doc, datetime], bool]] = {
    "candidate.metrics.accuracy >= 0.9": lambda i, _: i["candidate"]["metrics"]["accuracy"] >= 0.9,
    "candidate.metrics.p95 < 100.0": lambda i, _: i["candidate"]["metrics"]["p95"] < 100,
    "candidate.metrics.accuracy >= baseline.metrics.accuracy": lambda i, _: (
        i["candidate"]["metrics"]["accuracy"] >= i["baseline"]["metrics"]["accuracy"]
    ),
    "candidate.slices.all(s, s.metrics.auc >= 0.85)": lambda i, _: all(
        one["auc"] >= 0.85 for one in _latest(i["candidate"])
    ),
    'now - candidate.evaluated_at < duration("48h")': lambda i, now: (
        now - _evaluated_at(i["candidate"]) < timedelta(hours=48)
    ),
    'candidate.attestations.exists(a, a.type == "ci" && a.verified)': lambda i, _: any(
        (one["type"], one["result"]) == ("ci", "pass") for one in i["candidate"]["evidence"]
    ),
    "has(candidate.evidence.model_card)": lambda i, _: any(
        one["type"] == "model_card" for one in i["candidate"]["evidence"]
    ),
    "request.to in candidate.stages": lambda i, _: i["request"]["to"] in i["candidate"]["stages"],
    'model.tags.risk == "high"': lambda i, _: i["model"]["tags"]["risk"] == "high",
    'candidate.tags.team == "red"': lambda i, _: i["candidate"]["tags"]["team"] == "red",
    'model.name.startsWith("risky")': lambda i, _: i["model"]["name"].startswith("risky"),
    'request.change_class != "standard"': lambda i, _: i["request"]["fields"].get("change_class") != "standard",
}


@dataclass(frozen=True)
class Said:
    """A gate now. `passers`: of each of these sets somebody who lets it pass must be."""

    id: str
    result: str
    blocks: bool
    never: bool
    passers: tuple[frozenset[str], ...]


class Oracle(Facts):
    # -- which policies, and what votes bind to -------------------------------------------------------------------

    def _about(self, a: Asked) -> list[tuple[str, Doc, bool | None]]:
        """The policies about the request; the last is None where a policy applies since nobody can tell."""
        found = [(name, read(text)) for name, (text, _) in sorted(self.policies.items())]
        return [(name, spec, about) for name, spec in found if (about := self._matches(a, spec["match"])) is not False]

    def docs(self, a: Asked) -> Docs:
        return [(name, spec) for name, spec, _ in self._about(a)]

    def _matches(self, a: Asked, match: Doc) -> bool | None:
        transition, inputs = match["transition"], self.inputs(a)
        kind, tags = transition.get("kind", "promotion"), inputs["model"]["tags"]
        if not (
            (kind == a.kind or (kind == "any" and a.kind != "policy"))
            and transition.get("to") in (None, a.target)
            and (not match.get("models") or any(fnmatch.fnmatchcase(a.model, glob) for glob in match["models"]))
            and all(tags.get(name) == value for name, value in match.get("tags", {}).items())
        ):
            return False
        return True if "when" not in match else self._holds(match["when"], inputs)

    def _holds(self, condition: str, inputs: Doc) -> bool | None:
        """None: it has no value."""
        try:
            return EXPRESSIONS[condition](inputs, datetime.max)
        except KeyError:
            return None

    def basis(self, a: Asked) -> str:
        """What votes bind to: another version, policy, input or target makes another."""
        names = [name for name, _ in self.docs(a)]
        editors = sorted({self.policies[name][1] for name in names})
        texts = sorted(canonical(self.policies[name][0]) for name in names)
        whole = json.dumps([texts, editors, self.inputs(a)], sort_keys=True, default=str)
        return sha256(whole.encode()).hexdigest()[:12]

    def limit(self, a: Asked) -> datetime:
        """When it expires, by the policies of now."""
        after = least(spec.get("request", {}).get("expires_after") for _, spec in self.docs(a))
        return min(a.expires_at, a.opened_at + after) if after else a.expires_at

    # -- the verdict ----------------------------------------------------------------------------------------------

    def verdict(self, a: Asked, at: datetime) -> str | None:
        """What a decision at that time has to be; None: there must be none."""
        docs = self.docs(a)
        sure = any(about for _, _, about in self._about(a))
        if at >= min(self.limit(a), *a.limits[:1]) or not sure or self._mistakes(a, docs) or self._denied(a, docs):
            return "rejected"
        gates, held = list(self.gates(a, at)), a.kind in HELD and self.frozen(a.model)
        if not held and self._emergency(a, docs, gates, at):
            return "approved"
        if any(gate.blocks and gate.result not in (*GOOD, "pending") and not gate.passers for gate in gates):
            return "rejected"
        ready = self._checked(a, docs, gates) and self._quorum(a, docs, at) and self._in_time(a, docs, at)
        return "approved" if ready and not held else None

    def _mistakes(self, a: Asked, docs: Docs) -> bool:
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
        there = wanted <= {one["type"] for one in version["evidence"]}
        return there and all(gate.result in GOOD for gate in gates if gate.blocks)

    def _emergency(self, a: Asked, docs: Docs, gates: list[Said], at: datetime) -> bool:
        glass = a.glass
        if glass is None or glass.basis != self.basis(a) or at >= glass.until:
            return False
        return (
            all(gate.result in GOOD for gate in gates if gate.never)
            and ("gates" in glass.skips or self._checked(a, docs, gates))
            and ("approvals" in glass.skips or self._quorum(a, docs, at))
            and ("schedule" in glass.skips or self._in_time(a, docs, at))
        )

    def _in_time(self, a: Asked, docs: Docs, at: datetime) -> bool:
        schedules = [spec.get("schedule", {}) for _, spec in docs]
        return all(
            at >= a.opened_at + span(one.get("min_wait", "0s"))
            and (not one.get("windows") or any(_within(window, at) for window in one["windows"]))
            and not any(
                datetime.fromisoformat(freeze["from"]) <= at < datetime.fromisoformat(freeze["to"])
                for freeze in one.get("freezes", ())
            )
            for one in schedules
        )

    # -- gates ----------------------------------------------------------------------------------------------------

    def gates(self, a: Asked, at: datetime) -> Iterator[Said]:
        docs, inputs = self.docs(a), self.inputs(a)
        for name, spec in docs:
            defaults = spec.get("gate_defaults", {})
            for gate in spec.get("gates", ()):
                never = gate.get("never_skip", False)
                level = gate.get("level") or ("block" if never else defaults.get("level", "block"))
                result = self._said(a, f"{name}/{gate['id']}", {**defaults, **gate}, inputs, at)
                asks = plain(() if never else gate.get("asks", defaults.get("asks")))
                waivers = plain(gate.get("waivable_by"))
                wide = asks | waivers if result == "inconclusive" and asks else waivers
                said = Said(f"{name}/{gate['id']}", result, level == "block", never, (wide,) if wide else ())
                yield self._passed(a, said)
        if inputs["candidate"] and inputs["candidate"]["unsafe"]:
            each = [plain(spec.get("unsafe_artifact", {}).get("waivable_by")) for _, spec in docs]
            yield self._passed(a, Said(UNSAFE, "fail", True, True, tuple(each) if all(each) else ()))

    def _said(self, a: Asked, gate_id: str, gate: Doc, inputs: Doc, at: datetime) -> str:
        error = "inconclusive" if gate.get("on_error") == "inconclusive" else "error"
        if "cel" in gate:
            if "baseline" in gate["cel"] and inputs["baseline"] is None:
                return str(gate.get("on_no_baseline", "inconclusive"))
            try:
                return "pass" if EXPRESSIONS[gate["cel"]](inputs, at) else "fail"
            except KeyError:
                return error
        if "webhook" in gate:
            basis = self.basis(a)
            said = [result for name, on, result in a.answers if (name, on) == (gate_id, basis)]
        else:
            kind, posters = gate["attestation"]["type"], gate["attestation"]["from"]
            there = [one for one in inputs["candidate"]["evidence"] if one["type"] == kind and one["result"]]
            said = [one["result"] for one in there if f"user:{one['by']}" in posters]
        if said:
            return error if said[-1] == "error" else said[-1]
        return "pending" if at < a.bound_at + span(gate.get("timeout", "24h")) else error

    def _passed(self, a: Asked, said: Said) -> Said:
        if said.result in ("pass", "pending") or not said.blocks or not said.passers:
            return said
        basis = self.basis(a)
        for waiver in a.waivers:
            groups, person = self.known(waiver.by)
            theirs = (waiver.gate, waiver.basis) == (said.id, basis) and all(groups & one for one in said.passers)
            if theirs and person and not self.excluded(a, waiver.by, None):
                return Said(said.id, "waived", said.blocks, said.never, said.passers)
        return said

    # -- people ---------------------------------------------------------------------------------------------------

    def known(self, name: str) -> tuple[frozenset[str], bool]:
        """Their groups now, none when they let nobody vote, and whether they are a person."""
        member = self.members[name]
        return (_entitled(member.groups), member.person)

    def excluded(self, a: Asked, name: str, email: str | None, *, veto: bool = False) -> bool:
        """`veto`: what policies exclude beyond four eyes does not silence a rejection that was taken."""
        docs, version = self.docs(a), self.inputs(a)["candidate"] or {}
        kinds = {k for _, spec in docs for k in _people(spec).get("separation_of_duties", {}).get("exclude", ())}
        out = {a.by, version.get("author", a.by)}
        if "version.committers" in kinds and not veto:
            out |= set(version.get("committers", ()))
        if "policy.last_editor" in kinds and not veto:
            out |= {self.policies[policy][1] for policy, _ in docs}
        return bool({name.lower(), (email or name).lower()} & {one.lower() for one in out})

    def rules(self, a: Asked) -> dict[str, tuple[frozenset[str], int]]:
        """The groups that may vote for each rule, with those of escalations, and how many must."""
        inputs, found = self.inputs(a), {}
        for name, spec in self.docs(a):
            for rule in _people(spec).get("rules", ()):
                if "when" not in rule or self._holds(rule["when"], inputs) is not False:
                    key = f"{name}/{rule['id']}"
                    found[key] = (plain(rule["from"]) | a.added.get(key, set()), rule.get("count", 1))
        return found

    def have(self, a: Asked, at: datetime) -> dict[str, int]:
        """How many approvals count for each rule; one person counts for one."""
        docs, rules, counted = self.docs(a), self.rules(a), set[str]()
        have = dict.fromkeys(rules, 0)
        for vote in a.votes:
            people = {vote.who, vote.whose}
            if vote.choice == "approve" and vote.rule in rules and not people & counted:
                groups, _ = self.known(vote.whose)
                if groups & rules[vote.rule][0] and self._counts(a, docs, vote, at):
                    counted |= people
                    have[vote.rule] += 1
        return have

    def _quorum(self, a: Asked, docs: Docs, at: datetime) -> bool:
        have = self.have(a, at)
        return all(have[rule] >= count for rule, (_, count) in self.rules(a).items())

    def _counts(self, a: Asked, docs: Docs, vote: Cast, at: datetime) -> bool:
        """Whether a vote may count, its voter's groups apart."""
        veto = vote.choice == "reject"
        valid = least(_people(spec).get("valid_for") for _, spec in docs)
        fresh = veto or not valid or at - vote.at <= valid
        leave = veto or vote.behalf is None or _delegable(docs) is not None
        people = all(self.known(who)[1] for who in (vote.who, vote.whose))
        out = self.excluded(a, vote.who, vote.email, veto=veto) or self.excluded(a, vote.whose, None, veto=veto)
        return vote.basis == self.basis(a) and fresh and leave and people and not out

    def _denied(self, a: Asked, docs: Docs) -> bool:
        for allowed, count in self._deniers(a, docs):
            against = {
                vote.whose
                for vote in a.votes
                if vote.choice == "reject"
                and self.known(vote.whose)[0] & allowed
                and self._counts(a, docs, vote, vote.at)
            }
            if len(against) >= count:
                return True
        return False

    def _deniers(self, a: Asked, docs: Docs) -> Iterator[tuple[frozenset[str], int]]:
        anybody = NOBODY.union(*(groups for groups, _ in self.rules(a).values()))
        for _, spec in docs:
            deny = _people(spec).get("deny", {})
            yield (plain(deny.get("from")) or anybody).union(*a.added.values()), deny.get("count", 1)

    # -- what people may do ---------------------------------------------------------------------------------------

    def may_vote(
        self, a: Asked, who: Actor, choice: str, comment: str, rule: str | None, behalf: str | None, at: datetime
    ) -> bool:
        """That the request is open, and the one they saw, is for the caller to know."""
        docs, rules = self.docs(a), self.rules(a)
        if behalf is None:
            groups, person = _entitled(who.groups), who.person
        elif self.lent(a, behalf, who.name, at):
            groups, person = self.known(behalf)
        else:
            return False
        if choice == "approve":
            allowed = NOBODY.union(*(groups for key, (groups, _) in rules.items() if rule in (None, key)))
        else:
            allowed = NOBODY.union(*(groups for groups, _ in self._deniers(a, docs)))
        heard = {name for vote in a.votes if self._stands(a, docs, vote, at) for name in (vote.who, vote.whose)}
        return (
            (who.person and person and bool(groups & allowed) and self._stepped_up(docs, who, at))
            and not self.excluded(a, who.name, who.email)
            and not (behalf and self.excluded(a, behalf, None))
            and not {who.name, behalf} & heard
            and (choice == "approve" or bool(comment.strip()))
        )

    def lent(self, a: Asked, delegator: str, delegate: str, at: datetime) -> bool:
        """Whether a delegation of that time lets the one vote for the other."""
        longest = _delegable(self.docs(a))
        return delegator in self.members and any(
            longest is not None and (one, other) == (delegator, delegate) and since <= at < until <= since + longest
            for one, other, since, until in self.delegations.values()
        )

    def _stands(self, a: Asked, docs: Docs, vote: Cast, at: datetime) -> bool:
        """Whether it stands in the way of another vote: who has left a group since has to withdraw first."""
        valid = least(_people(spec).get("valid_for") for _, spec in docs)
        old = vote.choice == "approve" and valid is not None and at - vote.at > valid
        return vote.basis == self.basis(a) and not old

    def _stepped_up(self, docs: Docs, who: Actor, at: datetime) -> bool:
        signatures = [_people(spec).get("signature", {}) for _, spec in docs]
        within = least(one.get("reauthenticate_within") for one in signatures)
        methods = all(who.method in one["methods"] for one in signatures if one.get("methods"))
        return methods and (within is None or at - who.auth_at <= within)

    def may_waive(self, a: Asked, who: Actor, gate_id: str, at: datetime) -> bool:
        gate, groups = next((gate for gate in self.gates(a, at) if gate.id == gate_id), None), _entitled(who.groups)
        return (
            gate is not None
            and gate.result not in ("pass", "waived", "pending")
            and (who.person and bool(gate.passers) and all(groups & one for one in gate.passers))
            and not self.excluded(a, who.name, who.email)
            and self._stepped_up(self.docs(a), who, at)
        )

    def breaks(self, a: Asked, who: Actor, reason: str, at: datetime) -> Glass | None:
        """The emergency that they may begin."""
        docs = self.docs(a)
        glasses = [spec["break_glass"] for _, spec in docs if "break_glass" in spec]
        if not glasses or len(glasses) < len(docs):
            return None
        skips = frozenset.intersection(*(frozenset(one.get("skips", ("approvals", "schedule"))) for one in glasses))
        within = least(one.get("reauthenticate_within", "5m") for one in glasses if one.get("reauthenticate", True))
        may = (
            (bool(skips) and who.person and all(who.groups & plain(one["allowed"]) for one in glasses))
            and len(reason.strip()) >= max(one.get("reason", {}).get("min_length", 1) for one in glasses)
            and (within is None or at - who.auth_at <= within)
            and not (a.kind in HELD and self.frozen(a.model))
            and all(gate.result in GOOD for gate in self.gates(a, at) if gate.never)
        )
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


def _entitled(groups: frozenset[str]) -> frozenset[str]:
    return groups if groups & VOTERS else NOBODY


def _people(spec: Doc) -> Doc:
    found: Doc = spec.get("approvals", {})
    return found


def _delegable(docs: Docs) -> timedelta | None:
    """For how long a delegation may be made at most; None: nobody may vote for another."""
    asked = [_people(spec).get("delegation", {}) for _, spec in docs if _people(spec).get("rules")]
    allowed = bool(asked) and all(one.get("allowed") for one in asked)
    return min(span(one.get("max", "14d")) for one in asked) if allowed else None


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
