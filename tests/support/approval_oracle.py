"""What policies allow, read a second time and naively: from their text as plain YAML, and from what has happened.

Nothing of the library `policy` is used. An expression that generated policies use is written again in Python.
"""

import fnmatch
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import yaml

Doc = dict[str, Any]
GOOD = ("pass", "waived")
HELD = ("promotion", "alias")
VOTERS = {"reviewers", "risk", "leads", "security", "admins"}  # whom the access file lets vote
WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
UNSAFE = "registry/unsafe-artifact"


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
        one["type"] == "ci" and one["result"] == "pass" for one in i["candidate"]["evidence"] if one["result"]
    ),
    "has(candidate.evidence.model_card)": lambda i, _: (
        any(one["type"] == "model_card" for one in i["candidate"]["evidence"])
    ),
    "request.to in candidate.stages": lambda i, _: i["request"]["to"] in i["candidate"]["stages"],
    'model.tags.risk == "high"': lambda i, _: i["model"]["tags"]["risk"] == "high",
    'candidate.tags.team == "red"': lambda i, _: i["candidate"]["tags"]["team"] == "red",
    'model.name.startsWith("risky")': lambda i, _: i["model"]["name"].startswith("risky"),
    'request.change_class != "standard"': lambda i, _: i["request"]["fields"].get("change_class") != "standard",
}


def span(text: str) -> timedelta:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text).groups()  # type: ignore[union-attr]
    name = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[unit]
    return timedelta(**{name: int(number)})


def least(texts: Any) -> timedelta | None:
    return min((span(text) for text in texts if text), default=None)


def groups_of(names: Any) -> frozenset[str]:
    return frozenset(name.removeprefix("group:") for name in names or ())


@dataclass(frozen=True)
class Actor:
    """Somebody who acts, as their token tells. `auth_at`: when they signed in."""

    name: str
    groups: frozenset[str]
    auth_at: datetime
    person: bool = True
    method: str = "token"
    email: str | None = None


@dataclass(frozen=True)
class Cast:
    """A vote that was taken. `basis`: all that the request rested on then."""

    who: str
    behalf: str | None
    choice: str
    rule: str
    at: datetime
    email: str | None
    basis: str

    @property
    def whose(self) -> str:
        return self.behalf or self.who


@dataclass(frozen=True)
class Waived:
    gate: str
    by: str
    basis: str


@dataclass(frozen=True)
class Glass:
    by: str
    basis: str
    until: datetime
    skips: frozenset[str]
    review: frozenset[str]
    count: int
    review_by: datetime
    freezes: bool


@dataclass
class Asked:
    """A request, and what has happened to it. `limits`: every moment at which it should have expired so far."""

    id: str
    kind: str
    model: str
    version: int
    origin: str
    target: str
    by: str
    reason: str
    fields: dict[str, str]
    opened_at: datetime
    expires_at: datetime
    bound_at: datetime
    policy: str | None = None
    limits: list[datetime] = field(default_factory=list)
    votes: list[Cast] = field(default_factory=list)
    waivers: list[Waived] = field(default_factory=list)
    answers: list[tuple[str, str, str]] = field(default_factory=list)  # gate, basis, result
    added: dict[str, set[str]] = field(default_factory=dict)
    glass: Glass | None = None
    reviews: set[str] = field(default_factory=set)
    status: str = "open"
    overdue: bool = False

    @property
    def reviewed(self) -> bool:
        return self.glass is not None and len(self.reviews) >= self.glass.count


@dataclass(frozen=True)
class Said:
    """A gate now. `passers`: of each of these sets somebody who lets it pass must be."""

    id: str
    result: str
    blocks: bool
    never: bool
    passers: tuple[frozenset[str], ...]


@dataclass
class Facts:
    """All that has happened."""

    policies: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: text, who published it
    models: dict[str, Doc] = field(default_factory=dict)
    versions: dict[tuple[str, int], Doc] = field(default_factory=dict)
    stays: list[tuple[str, int, str]] = field(default_factory=list)  # the latest entry last
    people: dict[str, tuple[frozenset[str], bool]] = field(default_factory=dict)
    delegations: dict[str, tuple[str, str, datetime, datetime]] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)

    # -- what a request rests on ----------------------------------------------------------------------------------

    def inputs(self, a: Asked) -> Doc:
        request = {"to": a.target, "from": a.origin, "kind": a.kind, "fields": a.fields}
        if a.policy is not None:
            return {"candidate": None, "baseline": None, "model": {"name": a.model, "tags": {}}, "request": request}
        others = [v for m, v, stage in self.stays if (m, stage) == (a.model, a.target) and v != a.version]
        return {
            "candidate": self.versions[a.model, a.version],
            "baseline": self.versions[a.model, others[-1]] if others else None,
            "model": self.models[a.model],
            "request": request,
        }

    def applying(self, a: Asked) -> list[tuple[str, Doc, bool]]:
        """Name, spec, and whether it applies only because nobody can tell."""
        found = []
        for name, (text, _) in self.policies.items():
            spec = yaml.safe_load(text)["spec"]
            about = self._about(a, spec["match"])
            if about is not False:
                found.append((name, spec, about is None))
        return sorted(found, key=lambda one: one[0])

    def _about(self, a: Asked, match: Doc) -> bool | None:
        transition, inputs = match["transition"], self.inputs(a)
        kind = transition.get("kind", "promotion")
        tags = inputs["model"]["tags"]
        if not (
            (kind == a.kind or (kind == "any" and a.kind != "policy"))
            and transition.get("to") in (None, a.target)
            and transition.get("from") in (None, a.origin)
            and (not match.get("models") or any(fnmatch.fnmatchcase(a.model, glob) for glob in match["models"]))
            and all(tags.get(name) == value for name, value in match.get("tags", {}).items())
        ):
            return False
        return True if "when" not in match else self._holds(match["when"], inputs)

    def _holds(self, expression: str, inputs: Doc) -> bool | None:
        """None: it has no value."""
        try:
            return EXPRESSIONS[expression](inputs, datetime.max)
        except KeyError:
            return None

    def basis(self, a: Asked) -> str:
        """What votes on it bind to: another version, policy, input or target makes another."""
        names = [name for name, _, _ in self.applying(a)]
        texts = sorted(json.dumps(yaml.safe_load(self.policies[name][0]), sort_keys=True) for name in names)
        editors = sorted({self.policies[name][1] for name in names})
        return json.dumps([texts, editors, self.inputs(a)], sort_keys=True, default=str)

    def limit(self, a: Asked) -> datetime:
        """When it expires, by the policies of now."""
        after = least(spec.get("request", {}).get("expires_after") for _, spec, _ in self.applying(a))
        return min(a.expires_at, a.opened_at + after) if after else a.expires_at

    # -- the verdict ----------------------------------------------------------------------------------------------

    def verdict(self, a: Asked, at: datetime) -> str | None:
        """What a decision at that time has to be; None: there must be none."""
        docs = self.applying(a)
        specs = [spec for _, spec, _ in docs]
        if at >= min(self.limit(a), *a.limits[:1]):
            return "rejected"
        if not any(not doubt for _, _, doubt in docs) or self._mistakes(a, specs) or self._denied(a, docs):
            return "rejected"
        gates = list(self.gates(a, at))
        held = a.kind in HELD and self.frozen(a.model)
        if not held and self._emergency(a, docs, gates, at):
            return "approved"
        if any(g.blocks and g.result not in (*GOOD, "pending") and not g.passers for g in gates):
            return "rejected"
        ready = self._checked(a, specs, gates) and self._quorum(a, docs, at) and self._in_time(a, specs, at)
        return "approved" if ready and not held else None

    def frozen(self, model: str) -> bool:
        """Whether nobody looked at an emergency of the model in time."""
        return any(
            a.overdue and a.glass is not None and a.glass.freezes and not a.reviewed
            for a in self.asked.values()
            if a.model == model
        )

    def _mistakes(self, a: Asked, specs: list[Doc]) -> bool:
        for spec in (spec.get("request", {}) for spec in specs):
            reason = spec.get("reason", {})
            if len(a.reason.strip()) < reason.get("min_length", 1):
                return True
            for name, rules in spec.get("fields", {}).items():
                value = a.fields.get(name, "")
                if not value and rules.get("required"):
                    return True
                if value and "pattern" in rules and not re.fullmatch(rules["pattern"].strip("^$"), value):
                    return True
                if value and rules.get("type") == "model_version" and not re.fullmatch("[1-9][0-9]*", value):
                    return True
        return False

    def _checked(self, a: Asked, specs: list[Doc], gates: list[Said]) -> bool:
        """Whether the evidence is there and every blocking gate is good."""
        version = self.inputs(a)["candidate"] or {"evidence": []}
        have = {one["type"] for one in version["evidence"]}
        wanted = {kind for spec in specs for kind in spec.get("request", {}).get("evidence", ())}
        return wanted <= have and all(g.result in GOOD for g in gates if g.blocks)

    def _emergency(self, a: Asked, docs: list[Any], gates: list[Said], at: datetime) -> bool:
        glass, specs = a.glass, [spec for _, spec, _ in docs]
        if glass is None or glass.basis != self.basis(a) or at >= glass.until:
            return False
        return (
            all(g.result in GOOD for g in gates if g.never)
            and ("gates" in glass.skips or self._checked(a, specs, gates))
            and ("approvals" in glass.skips or self._quorum(a, docs, at))
            and ("schedule" in glass.skips or self._in_time(a, specs, at))
        )

    # -- gates ----------------------------------------------------------------------------------------------------

    def gates(self, a: Asked, at: datetime) -> Iterator[Said]:
        docs, inputs = self.applying(a), self.inputs(a)
        for name, spec, _ in docs:
            defaults = spec.get("gate_defaults", {})
            for gate in spec.get("gates", ()):
                never = gate.get("never_skip", False)
                level = gate.get("level") or ("block" if never else defaults.get("level", "block"))
                result = self._said(a, f"{name}/{gate['id']}", gate, defaults, inputs, at)
                asks = groups_of(() if never else gate.get("asks", defaults.get("asks")))
                waivers = groups_of(gate.get("waivable_by"))
                wide = asks | waivers if result == "inconclusive" and asks else waivers
                passers = (wide,) if wide else ()
                yield self._passed(a, Said(f"{name}/{gate['id']}", result, level == "block", never, passers))
        if inputs["candidate"] and inputs["candidate"]["unsafe"]:
            all_of = [groups_of(spec.get("unsafe_artifact", {}).get("waivable_by")) for _, spec, _ in docs]
            yield self._passed(a, Said(UNSAFE, "fail", True, True, tuple(all_of) if all(all_of) else ()))

    def _said(self, a: Asked, gate_id: str, gate: Doc, defaults: Doc, inputs: Doc, at: datetime) -> str:
        trouble = gate.get("on_error", defaults.get("on_error", "fail"))
        error = "inconclusive" if trouble == "inconclusive" else "error"
        if "cel" in gate:
            if "baseline" in gate["cel"] and inputs["baseline"] is None:
                return str(gate.get("on_no_baseline", defaults.get("on_no_baseline", "inconclusive")))
            try:
                return "pass" if EXPRESSIONS[gate["cel"]](inputs, at) else "fail"
            except KeyError:
                return error
        if "webhook" in gate:
            basis = self.basis(a)
            said = [result for name, on, result in a.answers if (name, on) == (gate_id, basis)]
        else:
            wanted = gate["attestation"]
            said = [
                one["result"]
                for one in inputs["candidate"]["evidence"]
                if one["type"] == wanted["type"] and one["result"] and f"user:{one['by']}" in wanted["from"]
            ]
        if said:
            return error if said[-1] == "error" else str(said[-1])
        return "pending" if at < a.bound_at + span(gate.get("timeout", defaults.get("timeout", "24h"))) else error

    def _passed(self, a: Asked, said: Said) -> Said:
        if said.result in ("pass", "pending") or not said.blocks or not said.passers:
            return said
        basis = self.basis(a)
        for waiver in a.waivers:
            groups, person = self._known(waiver.by)
            good = (waiver.gate, waiver.basis) == (said.id, basis) and person and all(groups & p for p in said.passers)
            if good and not self.excluded(a, waiver.by, None):
                return Said(said.id, "waived", said.blocks, said.never, said.passers)
        return said

    # -- people ---------------------------------------------------------------------------------------------------

    def _known(self, name: str) -> tuple[frozenset[str], bool]:
        """Their groups now, none when they let nobody vote, and whether they are a person."""
        groups, person = self.people[name]
        return (groups if groups & VOTERS else frozenset(), person)

    def excluded(self, a: Asked, name: str, email: str | None, *, veto: bool = False) -> bool:
        """`veto`: what policies exclude beyond four eyes silences no rejection that was taken."""
        docs, version = self.applying(a), self.inputs(a)["candidate"] or {}
        kinds = {kind for _, s, _ in docs for kind in _approvals(s).get("separation_of_duties", {}).get("exclude", ())}
        out = {a.by, version.get("author", a.by)}
        if "version.committers" in kinds and not veto:
            out |= set(version.get("committers", ()))
        if "policy.last_editor" in kinds and not veto:
            out |= {self.policies[policy][1] for policy, _, _ in docs}
        return bool({name.lower(), (email or name).lower()} & {one.lower() for one in out})

    def rules(self, a: Asked, docs: list[Any]) -> dict[str, tuple[frozenset[str], int]]:
        """The groups that may vote for each rule, with those of escalations, and how many must."""
        inputs, found = self.inputs(a), {}
        for name, spec, _ in docs:
            for rule in _approvals(spec).get("rules", ()):
                if "when" not in rule or self._holds(rule["when"], inputs) is not False:
                    key = f"{name}/{rule['id']}"
                    found[key] = (groups_of(rule["from"]) | a.added.get(key, set()), rule.get("count", 1))
        return found

    def _quorum(self, a: Asked, docs: list[Any], at: datetime) -> bool:
        rules, counted = self.rules(a, docs), set[str]()
        have = dict.fromkeys(rules, 0)
        for vote in a.votes:
            people = {vote.who, vote.whose}
            if vote.choice == "approve" and vote.rule in rules and not people & counted:
                groups, _ = self._known(vote.whose)
                if groups & rules[vote.rule][0] and self.counts(a, docs, vote, at):
                    counted |= people
                    have[vote.rule] += 1
        return all(have[rule] >= count for rule, (_, count) in rules.items())

    def counts(self, a: Asked, docs: list[Any], vote: Cast, at: datetime) -> bool:
        """Whether a vote may count at all, its voter's groups apart."""
        veto = vote.choice == "reject"
        valid = least(_approvals(spec).get("valid_for") for _, spec, _ in docs)
        fresh = veto or not valid or at - vote.at <= valid
        leave = veto or vote.behalf is None or self.delegable(docs) is not None
        people = all(self._known(who)[1] for who in (vote.who, vote.whose))
        out = self.excluded(a, vote.who, vote.email, veto=veto) or self.excluded(a, vote.whose, None, veto=veto)
        return vote.basis == self.basis(a) and fresh and leave and people and not out

    def _denied(self, a: Asked, docs: list[Any]) -> bool:
        anybody = frozenset().union(*(groups for groups, _ in self.rules(a, docs).values()))
        for allowed, count in self._deniers(a, docs, anybody):
            against = {
                vote.whose
                for vote in a.votes
                if vote.choice == "reject"
                and self._known(vote.whose)[0] & allowed
                and self.counts(a, docs, vote, vote.at)
            }
            if len(against) >= count:
                return True
        return False

    def _deniers(self, a: Asked, docs: list[Any], anybody: frozenset[str]) -> Iterator[tuple[frozenset[str], int]]:
        added = frozenset().union(*a.added.values())
        for _, spec, _ in docs:
            deny = _approvals(spec).get("deny", {})
            yield (groups_of(deny.get("from")) or anybody) | added, deny.get("count", 1)

    def delegable(self, docs: list[Any]) -> timedelta | None:
        """For how long a delegation may be made at most; None: nobody may vote for another."""
        asked = [_approvals(spec).get("delegation", {}) for _, spec, _ in docs if _approvals(spec).get("rules")]
        if not asked or not all(one.get("allowed") for one in asked):
            return None
        return min(span(one.get("max", "14d")) for one in asked)

    # -- what people may do ---------------------------------------------------------------------------------------

    def may_vote(self, a: Asked, who: Actor, choice: str, comment: str, rule: str | None, behalf: str | None) -> bool:
        """Now, at `who.now`. That the request is open, and the one they saw, is for the caller to know."""
        docs, now = self.applying(a), self.now
        if behalf is None:
            groups, person = (who.groups if who.groups & VOTERS else frozenset()), who.person
        else:
            longest = self.delegable(docs)
            lent = [
                ends - starts
                for delegator, delegate, starts, ends in self.delegations.values()
                if (delegator, delegate) == (behalf, who.name) and starts <= now < ends
            ]
            if longest is None or not any(length <= longest for length in lent) or behalf not in self.people:
                return False
            groups, person = self._known(behalf)
        rules = self.rules(a, docs)
        allowed = frozenset().union(*(groups for key, (groups, _) in rules.items() if rule in (None, key)))
        if choice == "reject":
            anybody = frozenset().union(*(groups for groups, _ in rules.values()))
            allowed = frozenset().union(*(groups for groups, _ in self._deniers(a, docs, anybody)))
        heard = {
            name for vote in a.votes if self._still(a, docs, vote, now) for name in (vote.who, vote.whose)
        }
        return (
            who.person
            and person
            and not self.excluded(a, who.name, who.email)
            and not (behalf and self.excluded(a, behalf, None))
            and bool(groups & allowed)
            and self._stepped_up(docs, who, now)
            and not {who.name, behalf} & heard
            and (choice == "approve" or bool(comment.strip()))
        )

    now: datetime = datetime.min

    def _still(self, a: Asked, docs: list[Any], vote: Cast, now: datetime) -> bool:
        """Whether a vote stands in the way of another one: who has left a group first has to withdraw."""
        valid = least(_approvals(spec).get("valid_for") for _, spec, _ in docs)
        old = vote.choice == "approve" and valid is not None and now - vote.at > valid
        return vote.basis == self.basis(a) and not old

    def _stepped_up(self, docs: list[Any], who: Actor, now: datetime) -> bool:
        signatures = [_approvals(spec).get("signature", {}) for _, spec, _ in docs]
        within = least(one.get("reauthenticate_within") for one in signatures)
        methods = all(who.method in one["methods"] for one in signatures if one.get("methods"))
        return methods and (within is None or now - who.auth_at <= within)

    def may_waive(self, a: Asked, who: Actor, gate_id: str) -> bool:
        docs, groups = self.applying(a), who.groups if who.groups & VOTERS else frozenset()
        gate = next((g for g in self.gates(a, self.now) if g.id == gate_id), None)
        return (
            gate is not None
            and gate.result not in ("pass", "waived", "pending")
            and who.person
            and bool(gate.passers)
            and all(groups & one for one in gate.passers)
            and not self.excluded(a, who.name, who.email)
            and self._stepped_up(docs, who, self.now)
        )

    def may_break(self, a: Asked, who: Actor, reason: str) -> Glass | None:
        """The emergency that begins, if it may."""
        docs = self.applying(a)
        glasses = [spec["break_glass"] for _, spec, _ in docs if "break_glass" in spec]
        if not glasses or len(glasses) < len(docs):
            return None
        skips = frozenset.intersection(*(frozenset(one.get("skips", ("approvals", "schedule"))) for one in glasses))
        within = least(one.get("reauthenticate_within", "5m") for one in glasses if one.get("reauthenticate", True))
        longest = max(one.get("reason", {}).get("min_length", 1) for one in glasses)
        may = (
            bool(skips)
            and who.person
            and all(who.groups & groups_of(one["allowed"]) for one in glasses)
            and len(reason.strip()) >= longest
            and (within is None or self.now - who.auth_at <= within)
            and not (a.kind in HELD and self.frozen(a.model))
            and all(g.result in GOOD for g in self.gates(a, self.now) if g.never)
        )
        reviews = [one["review"] for one in glasses]
        each = [groups_of(one["from"]) for one in reviews]
        lasts, looked = least(one.get("grants_for", "4h") for one in glasses), least(one["within"] for one in reviews)
        assert lasts is not None
        assert looked is not None
        return may and Glass(  # type: ignore[return-value]
            by=who.name,
            basis=self.basis(a),
            until=self.now + lasts,
            skips=skips,
            review=frozenset.intersection(*each) or frozenset().union(*each),
            count=max(one.get("count", 1) for one in reviews),
            review_by=self.now + looked,
            freezes=any("freeze_model" in one.get("on_overdue", ("page", "freeze_model")) for one in reviews),
        ) or None

    # -- time -----------------------------------------------------------------------------------------------------

    def _in_time(self, a: Asked, specs: list[Doc], at: datetime) -> bool:
        schedules = [spec.get("schedule", {}) for spec in specs]
        return all(
            at >= a.opened_at + span(one.get("min_wait", "0s"))
            and (not one.get("windows") or any(_within(window, at) for window in one["windows"]))
            and not any(
                datetime.fromisoformat(freeze["from"]) <= at < datetime.fromisoformat(freeze["to"])
                for freeze in one.get("freezes", ())
            )
            for one in schedules
        )


def _approvals(spec: Doc) -> Doc:
    found: Doc = spec.get("approvals", {})
    return found


def _within(window: Doc, at: datetime) -> bool:
    """Whether the clock on the wall shows these hours of these days."""
    wall = at.astimezone(ZoneInfo(window["tz"]))
    clock, today, yesterday = wall.strftime("%H:%M"), WEEK[wall.weekday()], WEEK[wall.weekday() - 1]
    days = window.get("days", "Mon-Sun")
    if window["from"] < window["to"]:
        return _day(today, days) and window["from"] <= clock < window["to"]
    return (_day(today, days) and clock >= window["from"]) or (_day(yesterday, days) and clock < window["to"])


def _day(day: str, days: str) -> bool:
    for part in days.split(","):
        first, last = WEEK.index(part[:3]), WEEK.index(part[-3:])
        if (WEEK.index(day) - first) % 7 <= (last - first) % 7:
            return True
    return False
