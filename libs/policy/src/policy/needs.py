"""What the policies that apply to a request ask together: every match applies, the union holds, strictest wins.

A policy of which nobody can tell whether it applies does not count as the match that lets a request through. Rules and
gates carry their policy's name: two policies that both ask are asked apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from contracts.approval import PolicyRef
from contracts.registry import Criterion
from policy.document import digest_of, optional, timeout
from policy.form import evidence_missing, mistakes_of, way_back
from policy.gates import holds, variables_of
from policy.matching import InForce, Inputs, absent_of, when_of
from policy.schedule import BusinessHours, Schedule, add_business, duration
from policy.spec import ALWAYS_EXCLUDED, BreakGlassSpec, GateSpec, StepSpec

UNSAFE_GATE = "registry/unsafe-artifact"
UNSAFE_WAIVER = "unsafe-artifact"


@dataclass(frozen=True)
class Rule:
    """`count` different people out of `groups` must approve; each counts for one rule only."""

    id: str
    groups: frozenset[str]
    count: int
    meaning: str


@dataclass(frozen=True)
class Denial:
    """`count` people out of `groups` end the request."""

    groups: frozenset[str]
    count: int


@dataclass(frozen=True)
class Gate:
    """`waivers`: of each of these sets of groups the same person must be; none: nobody may waive. `asks`: who may let
    an inconclusive result pass; the groups of the policy's rules, where it names nobody."""

    id: str
    spec: GateSpec
    waivers: tuple[frozenset[str], ...]
    asks: frozenset[str]
    blocks: bool
    timeout: timedelta

    @property
    def never_skipped(self) -> bool:
        """Not even in an emergency."""
        return self.spec.never_skip or self.id == UNSAFE_GATE

    def may_pass_by(self, result: str) -> tuple[frozenset[str], ...]:
        """The sets of groups that whoever lets this result pass must be in."""
        if result == "inconclusive" and self.asks:
            return (self.asks.union(*self.waivers),)
        return self.waivers


@dataclass(frozen=True)
class Step:
    """One rung of an escalation, with business time already counted."""

    id: str
    due: datetime
    action: str
    to: tuple[str, ...]
    rule: str | None


@dataclass(frozen=True)
class Emergency:
    """What breaking the glass needs and does; `allowed`: of each of these sets the person must be."""

    allowed: tuple[frozenset[str], ...]
    skips: frozenset[str]
    min_reason: int
    within: timedelta | None
    page: tuple[str, ...]
    grants_for: timedelta
    review: frozenset[str]
    review_count: int
    review_within: tuple[tuple[str, BusinessHours], ...]
    on_overdue: tuple[Literal["page", "freeze_model"], ...]

    def review_by(self, at: datetime) -> datetime:
        return min(_review_due(text, hours, at) for text, hours in self.review_within)


@dataclass(frozen=True)
class Needs:
    """What a request needs. `matched` is False when no policy says that it applies, which refuses it (fail closed).
    `mistakes` are what the request itself lacks, a field for instance; `missing_evidence` can still be attached to the
    version. `preapproved`: the request with which people approved this rollback. It is instant: they are not asked
    again, there is no form to fill in, and windows, freezes and waits do not hold it. Gates and evidence still do."""

    policies: tuple[PolicyRef, ...] = ()
    matched: bool = False
    doubts: tuple[Criterion, ...] = ()
    mistakes: tuple[str, ...] = ()
    missing_evidence: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    rules: tuple[Rule, ...] = ()
    denials: tuple[Denial, ...] = ()
    excluded: frozenset[str] = ALWAYS_EXCLUDED
    authenticated_within: timedelta | None = None
    methods: frozenset[str] | None = None
    delegation: timedelta | None = None
    schedules: tuple[Schedule, ...] = ()
    min_wait: timedelta = timedelta(0)
    steps: tuple[Step, ...] = ()
    expires_after: timedelta | None = None
    valid_for: timedelta | None = None
    reapprove_every: timedelta | None = None
    rollback_to: int | None = None
    preapproved: str | None = None
    emergency: Emergency | None = None

    def rule(self, rule_id: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.id == rule_id), None)

    def gate(self, gate_id: str) -> Gate | None:
        return next((gate for gate in self.gates if gate.id == gate_id), None)


def needs_of(policies: InForce, inputs: Inputs, *, opened_at: datetime, now: datetime) -> Needs:
    """What the policies that a request is bound to ask together."""
    if not policies:
        return Needs()
    variables = variables_of(inputs, now)
    specs = [policy.spec for _, policy in policies]
    preapproved = inputs["request"].get("preapproved")
    said = [when_of(ref, policy, inputs, variables) for ref, policy in policies]
    doubts = [one for one in said if isinstance(one, Criterion)]
    approvals = [spec.approvals for spec in specs]
    rules = tuple(
        Rule(f"{ref.name}/{rule.id}", plain(rule.groups), rule.count, rule.meaning)
        for ref, policy in policies
        for rule in policy.spec.approvals.rules
        if not preapproved and (rule.when is None or holds(rule.when, variables, unless=True))
    )
    schedules = () if preapproved else tuple(spec.schedule for spec in specs)
    methods = [frozenset(one.signature.methods) for one in approvals if one.signature.methods]
    delegations = [duration(one.delegation.max) if one.delegation.allowed else None for one in approvals if one.rules]
    return Needs(
        policies=tuple(ref for ref, _ in policies),
        matched=any(one is True for one in said),
        doubts=(*doubts, *_left_out(inputs)),
        mistakes=() if preapproved else mistakes_of(policies, inputs),
        missing_evidence=evidence_missing(policies, inputs),
        gates=_gates(policies, inputs),
        rules=rules,
        denials=tuple(
            Denial(plain(one.deny.groups) or frozenset().union(*(rule.groups for rule in rules)), one.deny.count)
            for one in approvals
        ),
        excluded=ALWAYS_EXCLUDED.union(*(one.separation_of_duties.exclude for one in approvals)),
        authenticated_within=_least(optional(one.signature.reauthenticate_within) for one in approvals),
        methods=frozenset.intersection(*methods) if methods else None,
        delegation=None if not delegations or None in delegations else _least(delegations),
        schedules=schedules,
        min_wait=max((wait for s in schedules if (wait := optional(s.min_wait))), default=timedelta(0)),
        steps=_steps(policies, opened_at),
        expires_after=_least(optional(spec.request.expires_after) for spec in specs),
        valid_for=_least(optional(one.valid_for) for one in approvals),
        reapprove_every=_least(duration(s.validity.reapprove_every) for s in specs if s.validity),
        rollback_to=way_back(inputs),
        preapproved=preapproved,
        emergency=_emergency(policies),
    )


def added_by(needs: Needs, at: datetime | None) -> dict[str, frozenset[str]]:
    """The groups that escalations let vote by that time, or at any time, by rule."""
    found: dict[str, frozenset[str]] = {}
    for step in needs.steps:
        if step.action == "add_approvers" and step.rule is not None and (at is None or step.due <= at):
            found[step.rule] = found.get(step.rule, frozenset()) | plain(step.to)
    return found


def plain(groups: Sequence[str]) -> frozenset[str]:
    """`group:risk` -> `risk`, as tokens name them."""
    return frozenset(group.removeprefix("group:") for group in groups)


def _left_out(inputs: Inputs) -> list[Criterion]:
    """Says why every expression is an error that looks at it."""
    return [
        Criterion(gate=f"{name}/left-out", expression="", result="error", message=f"too large: {', '.join(absent)}")
        for name in ("candidate", "baseline", "model")
        if (absent := absent_of(inputs.get(name)))
    ]


def _gates(policies: InForce, inputs: Inputs) -> tuple[Gate, ...]:
    found = []
    for ref, policy in policies:
        defaults = policy.spec.gate_defaults
        for given in policy.spec.gates:
            chosen = {
                "level": given.level or ("block" if given.never_skip else defaults.level),
                "on_error": given.on_error or defaults.on_error,
                "on_no_baseline": given.on_no_baseline or defaults.on_no_baseline,
                "timeout": given.timeout or defaults.timeout,
            }
            asks = defaults.asks if given.asks is None else given.asks
            if given.never_skip:
                asks = ()
            elif not asks and given.asks is None and not given.waivable_by:
                asks = tuple(group for rule in policy.spec.approvals.rules for group in rule.groups)
            found.append(
                Gate(
                    id=f"{ref.name}/{given.id}",
                    spec=given.model_copy(update=chosen),
                    waivers=(plain(given.waivable_by),) if given.waivable_by else (),
                    asks=plain(asks),
                    blocks=chosen["level"] == "block",
                    timeout=timeout(str(chosen["timeout"])),
                )
            )
    if (inputs.get("candidate") or {}).get("unsafe"):
        allowed = [policy.spec.unsafe_artifact for _, policy in policies]
        spec = GateSpec(
            id=UNSAFE_WAIVER,
            cel="!candidate.unsafe",
            message="the registry found something unsafe in the artifact",
            level="block",
            on_error="fail",
            on_no_baseline="fail",
        )
        waivers = tuple(plain(one.waivable_by) for one in allowed if one is not None)
        complete = waivers if len(waivers) == len(allowed) else ()
        found.append(Gate(UNSAFE_GATE, spec, complete, frozenset(), blocks=True, timeout=timedelta(0)))
    return tuple(found)


def _steps(policies: InForce, opened_at: datetime) -> tuple[Step, ...]:
    found = []
    for ref, policy in policies:
        for step in policy.spec.escalation:
            after = duration(step.after)
            hours = policy.spec.business_hours
            due = add_business(opened_at, after, hours) if step.business_hours else opened_at + after
            rule = f"{ref.name}/{step.rule}" if step.rule else None
            found.append(Step(f"{ref.name}/{_step_id(step, hours)}", due.astimezone(UTC), step.do, step.to, rule))
    return tuple(sorted({step.id: step for step in found}.values(), key=lambda step: (step.due, step.id)))


def _step_id(step: StepSpec, hours: BusinessHours) -> str:
    """By what it says, not by its place: a step that another revision changes is another one, still to be done."""
    said = [step.model_dump(mode="json"), hours.model_dump(mode="json") if step.business_hours else None]
    return f"{step.do}-{step.after}-{digest_of(said).removeprefix('sha256:')[:12]}"


def _emergency(policies: InForce) -> Emergency | None:
    """The narrowest of what the policies allow; none when one of them knows no emergency, or all agree on no skip."""
    specs: list[tuple[BreakGlassSpec, BusinessHours]] = []
    for _, policy in policies:
        if policy.spec.break_glass is None:
            return None
        specs.append((policy.spec.break_glass, policy.spec.business_hours))
    glasses = [glass for glass, _ in specs]
    skips = frozenset.intersection(*(frozenset[str](glass.skips) for glass in glasses))
    if not skips:
        return None
    return Emergency(
        allowed=tuple(plain(glass.allowed) for glass in glasses),
        skips=skips,
        min_reason=max(glass.reason.min_length for glass in glasses),
        within=_least(duration(g.reauthenticate_within) for g in glasses if g.reauthenticate),
        page=tuple(dict.fromkeys(one for glass in glasses for one in glass.page)),
        grants_for=min(duration(glass.grants_for) for glass in glasses),
        review=frozenset.intersection(*(plain(glass.review.groups) for glass in glasses))
        or frozenset().union(*(plain(glass.review.groups) for glass in glasses)),
        review_count=max(glass.review.count for glass in glasses),
        review_within=tuple((glass.review.within, hours) for glass, hours in specs),
        on_overdue=tuple(sorted({what for glass in glasses for what in glass.review.on_overdue}, reverse=True)),
    )


def _review_due(text: str, hours: BusinessHours, at: datetime) -> datetime:
    count, _, unit = text.partition(" ")
    return add_business(at, hours.day() * int(count), hours) if unit else at + duration(text)


def _least(values: Any) -> timedelta | None:
    return min((value for value in values if value is not None), default=None)
