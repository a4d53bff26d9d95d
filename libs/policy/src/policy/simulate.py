"""How a policy would have decided the requests of the past: it takes the place of the revision of its name, or joins
the others where it applies.

People are taken at their acts: their votes are cast again under the new rules, in their order and with their groups of
then, and each refusal is told. Only the sign-in is passed over, since people can sign in again. Waivers, answers of
webhooks and an emergency count where the new policy still knows them. Expiry and escalation are those of the new
policy; a check that it adds was never asked for, so the request would wait for it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from contracts.approval import PolicyRef, Verdict
from policy.case import Case, Person, Refusal
from policy.document import Policy, parse
from policy.glass import broken
from policy.matching import InForce, Inputs, applicable
from policy.needs import Needs, added_by, needs_of
from policy.outlook import Outlook, Phase, outlook
from policy.recast import cast_again, rule_of

Decided = Literal["open", "approved", "rejected", "expired", "cancelled"]
Would = Literal["approved", "rejected", "expired", "waiting"]
EVER = timedelta(days=36_500)
TURNS = 20  # of time, in which gates time out and windows open


@dataclass(frozen=True)
class Past:
    """A request as it ended, or as it stands. `at`: when it was decided or closed; now, while it is open. `policies`:
    those it was bound to. `first`: the inputs as it was opened, if evidence came later."""

    request_id: str
    case: Case
    policies: InForce
    decided: Decided
    at: datetime
    first: Inputs | None = None


@dataclass(frozen=True)
class Simulated:
    """`policies` are those that would have decided; `differs` tells whether the outcome would have been another one: to
    expire is to stay undecided."""

    request_id: str
    policies: tuple[str, ...]
    decided: Decided
    would: Would
    phase: Phase
    reason: str
    differs: bool


@dataclass(frozen=True)
class Simulation:
    """`items` are the requests that the policy is about, or was about before, in the order given."""

    looked_at: int
    items: tuple[Simulated, ...]

    @property
    def applied_to(self) -> int:
        return len(self.items)

    @property
    def differing(self) -> int:
        return sum(item.differs for item in self.items)


def simulate(text: str, past: Iterable[Past]) -> Simulation:
    """What the policy would have made of these requests.

    Raises:
        PolicyError: the text is no policy.
    """
    policy, looked_at, items = parse(text), 0, []
    for one in past:
        looked_at += 1
        known = [(ref, bound) for ref, bound in one.policies if bound.name == policy.name]
        applies = bool(applicable([(_ref(policy, known), policy)], one.case.inputs, one.at))
        if applies or known:
            items.append(_simulated(one, _replaced(one.policies, policy, applies=applies)))
    return Simulation(looked_at, tuple(items))


def _ref(policy: Policy, known: InForce) -> PolicyRef:
    revision = max((ref.revision for ref, _ in known), default=0) + 1
    return PolicyRef(name=policy.name, revision=revision, digest=policy.digest)


def _replaced(policies: InForce, policy: Policy, *, applies: bool) -> InForce:
    """The policy in its former place, or at the end; without it, where it does not apply any more."""
    names = [bound.name for _, bound in policies]
    here = [(_ref(policy, [pair for pair in policies if pair[1].name == policy.name]), policy)] if applies else []
    if policy.name not in names:
        return [*policies, *here]
    at = names.index(policy.name)
    return [*policies[:at], *here, *policies[at + 1 :]]


def _simulated(one: Past, policies: InForce) -> Simulated:
    needs_at = partial(_needs, one, policies)
    needs, until = needs_at(one.at), _until(one, policies)
    case, told = _acted(one, needs, until)
    found, at = _at_once(one, policies), one.case.opened_at
    if found is None:
        found, at = _followed(case, needs_at, min(one.at, until - timedelta.resolution), until)
    would: Would = "waiting" if found.verdict is None else found.verdict.value
    reason = f"{found.reason}, at {at.isoformat()}" if found.verdict is not None and at > one.at else found.reason
    if would == "waiting" and until <= one.at:
        would, reason = "expired", f"not decided before {until.isoformat()}: {reason}"
    told += [f"{gate} was never asked" for gate in _new_checks(one, needs)] if found.phase == "gates" else []
    return Simulated(
        request_id=one.request_id,
        policies=tuple(ref.name for ref in needs.policies),
        decided=one.decided,
        would=would,
        phase=found.phase,
        reason="; ".join([reason, *(told if would != "rejected" else ())])[:9_000],
        differs=_outcome(would) != _outcome(one.decided),
    )


def _at_once(one: Past, policies: InForce) -> Outlook | None:
    """The rejection of the request as it was opened: what is attached later comes too late for a gate that ends it."""
    if one.first is None:
        return None
    at = one.case.opened_at
    case = replace(one.case, inputs=one.first, votes=(), glass=None, bound_at=at)
    found = outlook(case, _needs(replace(one, case=case), policies, at), at)
    return found if found.verdict is Verdict.REJECTED else None


def _outcome(end: str) -> str:
    return end if end in ("approved", "rejected") else "undecided"


def _needs(one: Past, policies: InForce, at: datetime) -> Needs:
    """What the policies ask at that time. Nobody has been asked for checks that are new: they stay open."""
    needs = needs_of(policies, one.case.inputs, opened_at=one.case.opened_at, now=at)
    new = _new_checks(one, needs)
    gates = tuple(replace(gate, timeout=EVER) if gate.id in new else gate for gate in needs.gates)
    return replace(needs, gates=gates, authenticated_within=None, methods=None)


def _new_checks(one: Past, needs: Needs) -> list[str]:
    """The webhooks and attestations that the policies of then did not ask for."""
    before = needs_of(one.policies, one.case.inputs, opened_at=one.case.opened_at, now=one.at)
    known = {gate.id: (gate.spec.webhook, gate.spec.attestation) for gate in before.gates}
    answered = {answer.gate for answer in one.case.answers}
    return [
        gate.id
        for gate in needs.gates
        if gate.spec.cel is None
        and gate.id not in answered
        and known.get(gate.id) != (gate.spec.webhook, gate.spec.attestation)
    ]


def _until(one: Past, policies: InForce) -> datetime:
    """When the request would have expired."""
    case, until = one.case, datetime.fromisoformat(one.case.inputs["request"]["expires_at"])
    after = needs_of(policies, case.inputs, opened_at=case.opened_at, now=one.at).expires_after
    return min(until, case.opened_at + after) if after else until


def _acted(one: Past, needs: Needs, until: datetime) -> tuple[Case, list[str]]:
    """The case with what people could have done before it expired, and why not the rest."""
    case, told = replace(one.case, votes=(), glass=None), []
    for vote in sorted(one.case.votes, key=lambda vote: vote.at):
        then = replace(case, added=added_by(needs, vote.at))
        again = cast_again(then, needs, vote, case.votes, rule=rule_of(then, needs, vote))
        if vote.at >= until:
            told.append(f"the vote of {vote.voter} would have come too late")
        elif isinstance(again, Refusal):
            told.append(f"the vote of {vote.voter} would have been refused: {again.detail}")
        elif again is not None:
            case = replace(case, votes=(*case.votes, again))
    glass = one.case.glass
    if glass is not None and glass.at < until:
        person = Person(glass.by, frozenset(glass.groups), True, True, glass.auth_method, authenticated_at=glass.at)
        again_glass = broken(needs, person, glass.reason, glass.at, glass.request_digest)
        if isinstance(again_glass, Refusal):
            told.append(f"{glass.by} could not have broken the glass: {again_glass.detail}")
        else:
            case = replace(case, glass=again_glass)
    return case, told


def _followed(
    case: Case, needs_at: Callable[[datetime], Needs], at: datetime, until: datetime
) -> tuple[Outlook, datetime]:
    """Where the case stands at that time, or later, when time alone decides it before it expires."""
    for _ in range(TURNS):
        needs = needs_at(at)
        found = outlook(replace(case, added=added_by(needs, at)), needs, at)
        if found.verdict is not None or found.next_at is None or not at < found.next_at < until:
            break
        at = found.next_at
    return found, at
