"""The text of policies, read a second time and naively: as plain YAML, with what has happened.

Nothing of the library `policy` is used. The expressions of generated policies are written again in Python.
"""

import fnmatch
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from tests.support.approval_facts import Asked, Cast, Doc, Facts, canonical, least, plain, read, span

GOOD = ("pass", "waived")
UNSAFE = "registry/unsafe-artifact"
VOTERS = {"reviewers", "risk", "leads", "security", "admins"}  # whom the access file lets vote
NOBODY: frozenset[str] = frozenset()
LATER = datetime.max.replace(tzinfo=UTC)
Docs = list[tuple[str, Doc]]


def _latest(version: Doc) -> list[Doc]:
    """The last evaluation on each data set."""
    if not version["evaluations"]:
        raise KeyError("slices")
    ordered = sorted(version["evaluations"], key=lambda one: one["at"])
    return list({one["dataset"]: one for one in ordered}.values())


def _evaluated_at(version: Doc) -> datetime:
    dates: list[datetime] = [one["at"] for one in version["evaluations"]]
    if not dates:
        raise KeyError("evaluated_at")
    return max(dates)


def pieces(version: Doc) -> dict[str, Doc]:
    """The latest file or link of each type."""
    return {one["type"]: one for one in version["evidence"] if one["file"] or one["link"]}


def _own(piece: Doc, inputs: Doc) -> bool:
    return piece["by"] in (inputs["candidate"]["author"], inputs["request"]["by"])


def _verified(piece: Doc, inputs: Doc) -> bool:
    """Whether a service that neither made nor asks for it has found it good, with a file."""
    good = piece["result"] == "pass" and piece["file"] and piece["service"]
    return bool(good) and not _own(piece, inputs)


def _checked(inputs: Doc) -> bool:
    return any(one["type"] == "ci" and _verified(one, inputs) for one in inputs["candidate"]["evidence"])


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
    'candidate.attestations.exists(a, a.type == "ci" && a.verified)': lambda i, _: _checked(i),
    '!candidate.attestations.exists(a, a.type == "ci" && a.verified)': lambda i, _: not _checked(i),
    "has(candidate.evidence.model_card)": lambda i, _: "model_card" in pieces(i["candidate"]),
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


class Reading(Facts):
    # -- which policies, and what votes bind to -------------------------------------------------------------------

    def about(self, a: Asked) -> list[tuple[str, Doc, bool | None]]:
        """The policies about the request; the last is None where a policy applies since nobody can tell."""
        found = [(name, read(text)) for name, (text, _) in sorted(self.in_force(a).items())]
        return [(name, spec, about) for name, spec in found if (about := self._matches(a, spec["match"])) is not False]

    def docs(self, a: Asked) -> Docs:
        return [(name, spec) for name, spec, _ in self.about(a)]

    def _matches(self, a: Asked, match: Doc) -> bool | None:
        transition, inputs = match["transition"], self.inputs(a)
        kind, model = transition.get("kind", "promotion"), inputs["model"]
        if not (
            (kind == a.kind or (kind == "any" and a.kind != "policy"))
            and transition.get("to", a.target).lower() == a.target.lower()
            and transition.get("from", a.origin).lower() == a.origin.lower()
            and _fits(model["workspace"], match.get("workspaces"))
            and _fits(model["name"], match.get("models"))
            and all(model["tags"].get(name) == value for name, value in match.get("tags", {}).items())
        ):
            return False
        return True if "when" not in match else self._holds(match["when"], inputs)

    def _holds(self, condition: str, inputs: Doc) -> bool | None:
        """None: it has no value."""
        try:
            return EXPRESSIONS[condition](inputs, LATER)
        except KeyError:
            return None

    def basis(self, a: Asked) -> str:
        """What votes bind to: another version, policy, input or target makes another."""
        names = [name for name, _ in self.docs(a)]
        editors = sorted({self.in_force(a)[name][1] for name in names})
        texts = sorted(canonical(self.in_force(a)[name][0]) for name in names)
        inputs = self.inputs(a)
        for version in ("candidate", "baseline"):
            if inputs[version] is not None:
                seen = [one for one in inputs[version]["evidence"] if self._looked_at(a, version, one["type"])]
                inputs[version] = {**inputs[version], "evidence": seen}
        whole = json.dumps([texts, editors, inputs], sort_keys=True, default=str)
        return sha256(whole.encode()).hexdigest()[:12]

    def _looked_at(self, a: Asked, version: str, kind: str) -> bool:
        """Whether the policies look at such evidence of the candidate or the baseline: other is no input of theirs."""
        for _, spec in self.docs(a):
            gates = spec.get("gates", ())
            asked = [gate["attestation"]["type"] for gate in gates if "attestation" in gate]
            asked += spec.get("request", {}).get("evidence", ())
            conditions = [spec["match"], *people(spec).get("rules", ())]
            cel = " ".join([gate.get("cel", "") for gate in gates] + [one.get("when", "") for one in conditions])
            if f"{version}.evidence" in cel or f"{version}.attestations" in cel:
                return True
            if version == "candidate" and kind in asked:
                return True
        return False

    def limit(self, a: Asked) -> datetime:
        """When it expires, by the policies of now."""
        after = least(spec.get("request", {}).get("expires_after") for _, spec in self.docs(a))
        return min(a.expires_at, a.opened_at + after) if after else a.expires_at

    # -- gates ----------------------------------------------------------------------------------------------------

    def gates(self, a: Asked, at: datetime) -> Iterator[Said]:
        docs, inputs = self.docs(a), self.inputs(a)
        for name, spec in docs:
            defaults = spec.get("gate_defaults", {})
            for gate in spec.get("gates", ()):
                never = gate.get("never_skip", False)
                level = gate.get("level") or ("block" if never else defaults.get("level", "block"))
                result = self._said(a, f"{name}/{gate['id']}", {**defaults, **gate}, inputs, at)
                asks, waivers = plain(defaults.get("asks")), plain(gate.get("waivable_by"))
                if not asks and not waivers:
                    asks = NOBODY.union(*(plain(rule["from"]) for rule in people(spec).get("rules", ())))
                asks = NOBODY if never else asks
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
            there = [one for one in there if f"user:{one['by']}" in posters and not _own(one, inputs)]
            said = [one["result"] for one in there if one["file"] or one["result"] != "pass"]
        if said:
            return error if said[-1] == "error" else said[-1]
        return "pending" if at < a.bound_at + span(gate.get("timeout", "24h")) else error

    def _passed(self, a: Asked, said: Said) -> Said:
        if said.result in ("pass", "pending") or not said.blocks or not said.passers:
            return said
        basis = self.basis(a)
        for waiver in a.waivers:
            groups, person = self.known(waiver.by)
            groups &= waiver.groups
            theirs = (waiver.gate, waiver.basis) == (said.id, basis) and all(groups & one for one in said.passers)
            if theirs and person and not self.excluded(a, waiver.by):
                return Said(said.id, "waived", said.blocks, said.never, said.passers)
        return said

    # -- people ---------------------------------------------------------------------------------------------------

    def known(self, name: str) -> tuple[frozenset[str], bool]:
        """Their groups now, none when they let nobody vote, and whether they are a person."""
        member = self.members[name]
        return (entitled(member.groups), member.person)

    def excluded(self, a: Asked, name: str, *, veto: bool = False) -> bool:
        """`veto`: what policies exclude beyond four eyes does not silence a rejection that was taken."""
        docs, version = self.docs(a), self.inputs(a)["candidate"] or {}
        kinds = {k for _, spec in docs for k in people(spec).get("separation_of_duties", {}).get("exclude", ())}
        out = {a.by, version.get("author", a.by)}
        if "policy.last_editor" in kinds and not veto:
            out |= {self.in_force(a)[policy][1] for policy, _ in docs}
        # Whose token has been seen, their address is known.
        out |= {self.one(who) for who in out if who in self.members and self.members[who].token}
        if "version.committers" in kinds and not veto:
            out |= set(version.get("committers", ()))
        return bool({name.lower(), self.one(name)} & {one.lower() for one in out})

    def added(self, a: Asked) -> dict[str, frozenset[str]]:
        """The groups that may vote too, by rule: those of escalations that the policies of now still hold."""
        found: dict[str, frozenset[str]] = {}
        for rule, groups, _ in self.steps(a):
            if (rule, groups) in a.escalated:
                found[rule] = found.get(rule, NOBODY) | groups
        return found

    def steps(self, a: Asked) -> Iterator[tuple[str, frozenset[str], datetime]]:
        """Whom escalations let vote for which rule, and from when on."""
        for name, spec in self.docs(a):
            for step in spec.get("escalation", ()):
                if step["do"] == "add_approvers":
                    yield f"{name}/{step['rule']}", plain(step["to"]), a.opened_at + span(step["after"])

    def rules(self, a: Asked) -> dict[str, tuple[frozenset[str], int]]:
        """The groups that may vote for each rule, with those of escalations, and how many must."""
        inputs, added, found = self.inputs(a), self.added(a), dict[str, tuple[frozenset[str], int]]()
        for name, spec in self.docs(a):
            for rule in people(spec).get("rules", ()) if not inputs["request"].get("beforehand") else ():
                if "when" not in rule or self._holds(rule["when"], inputs) is not False:
                    key = f"{name}/{rule['id']}"
                    found[key] = (plain(rule["from"]) | added.get(key, NOBODY), rule.get("count", 1))
        return found

    def deniers(self, a: Asked) -> Iterator[tuple[frozenset[str], int]]:
        """Of each policy, who may reject, and how many must."""
        anybody = NOBODY.union(*(groups for groups, _ in self.rules(a).values()))
        for _, spec in self.docs(a):
            deny = people(spec).get("deny", {})
            yield (plain(deny.get("from")) or anybody).union(*self.added(a).values()), deny.get("count", 1)

    def have(self, a: Asked, at: datetime) -> dict[str, int]:
        """How many approvals count for each rule; one person counts for one."""
        rules, counted = self.rules(a), set[str]()
        have = dict.fromkeys(rules, 0)
        for vote in a.votes:
            both = {self.one(vote.who), self.one(vote.whose)}
            if vote.choice == "approve" and vote.rule in rules and not both & counted:
                groups, _ = self.known(vote.whose)
                if groups & rules[vote.rule][0] and self.counts(a, vote, at):
                    counted |= both
                    have[vote.rule] += 1
        return have

    def counts(self, a: Asked, vote: Cast, at: datetime) -> bool:
        """Whether a vote may count, its voter's groups apart."""
        docs, veto = self.docs(a), vote.choice == "reject"
        valid = least(people(spec).get("valid_for") for _, spec in docs)
        fresh = veto or not valid or at - vote.at <= valid
        leave = veto or vote.behalf is None or delegable(docs) is not None
        persons = all(self.known(who)[1] for who in (vote.who, vote.whose)) and bool(self.known(vote.who)[0])
        out = any(self.excluded(a, who, veto=veto) for who in (vote.who, vote.whose))
        return vote.basis == self.basis(a) and fresh and leave and persons and not out


def entitled(groups: frozenset[str]) -> frozenset[str]:
    return groups if groups & VOTERS else NOBODY


def people(spec: Doc) -> Doc:
    found: Doc = spec.get("approvals", {})
    return found


def delegable(docs: Docs) -> timedelta | None:
    """For how long a delegation may be made at most; None: nobody may vote for another."""
    asked = [people(spec).get("delegation", {}) for _, spec in docs if people(spec).get("rules")]
    allowed = bool(asked) and all(one.get("allowed") for one in asked)
    return min(span(one.get("max", "14d")) for one in asked) if allowed else None


def _fits(name: str, globs: list[str] | None) -> bool:
    return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)
