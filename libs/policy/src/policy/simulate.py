"""How a policy would have decided the requests of the past: it takes the place of the revision of its name, or joins
the others where it applies.

People are taken at their acts: their votes are cast again under the new rules, in their order and with their groups of
then, and each refusal is told. Only the sign-in is passed over, since people can sign in again. Waivers, answers of
webhooks and an emergency count where the new policy still knows them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from contracts.approval import PolicyRef, Vote
from policy.document import Policy, parse
from policy.glass import broken
from policy.needs import InForce, Needs, applicable, needs_of
from policy.outlook import Phase, outlook
from policy.people import Case, Person, Refusal
from policy.recast import cast_again, rule_of

Decided = Literal["open", "approved", "rejected", "expired", "cancelled"]
Would = Literal["approved", "rejected", "waiting"]


@dataclass(frozen=True)
class Past:
    """A request as it ended, or as it stands. `at`: when it was decided or closed; now, while it is open. `policies`:
    those it was bound to."""

    request_id: str
    case: Case
    policies: InForce
    decided: Decided
    at: datetime


@dataclass(frozen=True)
class Simulated:
    """`policies` are those that would have decided; `differs` tells whether the outcome would have been another one."""

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
    needs = needs_of(policies, one.case.inputs, opened_at=one.case.opened_at, now=one.at)
    needs = replace(needs, authenticated_within=None, methods=None)
    votes, told = _votes(one.case, needs)
    case = replace(one.case, votes=votes, glass=None)
    if one.case.glass is not None:
        glass = one.case.glass
        person = Person(glass.by, frozenset(glass.groups), True, True, glass.auth_method, authenticated_at=glass.at)
        again = broken(needs, person, glass.reason, glass.at, glass.request_digest)
        if isinstance(again, Refusal):
            told.append(f"{glass.by} could not have broken the glass: {again.detail}")
        else:
            case = replace(case, glass=again)
    found = outlook(case, needs, one.at)
    would: Would = "waiting" if found.verdict is None else found.verdict.value
    return Simulated(
        request_id=one.request_id,
        policies=tuple(ref.name for ref in needs.policies),
        decided=one.decided,
        would=would,
        phase=found.phase,
        reason="; ".join([found.reason, *(told if would != "rejected" else ())])[:9_000],
        differs=would != (one.decided if one.decided in ("approved", "rejected") else "waiting"),
    )


def _votes(case: Case, needs: Needs) -> tuple[tuple[Vote, ...], list[str]]:
    """The votes that people could have cast, and why not the others."""
    votes: list[Vote] = []
    told = []
    for vote in sorted(case.votes, key=lambda vote: vote.at):
        again = cast_again(case, needs, vote, tuple(votes), rule=rule_of(case, needs, vote))
        if isinstance(again, Refusal):
            told.append(f"the vote of {vote.voter} would have been refused: {again.detail}")
        elif again is not None:
            votes.append(again)
    return tuple(votes), told
