"""What a request rests on now, and what it waits for."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import copies, views
from approval.domain import Request
from approval.standing import Standing
from contracts.approval import Choice, Decision, PolicyProposed, PolicyRef, RequestOpened
from contracts.lifecycle import TransitionKind
from contracts.registry import StageRequested, Transition
from policy.binding import digest_of_proposal, digest_of_transition
from policy.bounds import frozen
from policy.document import digest_of
from policy.matching import InForce, applicable, names_now
from policy.needs import Step, needs_of
from policy.people import electorate, excluded, heard_of, tally, why_not

if TYPE_CHECKING:
    from approval.sight import Sight

CHANGE_CLASS = "normal"
# Whoever cast the last vote waits and decides; the sweeper does when that process has died.
AFTER_SETTLING = timedelta(seconds=1)
# Expressions that name `now` may say something else at any time.
LOOK_AGAIN = timedelta(minutes=1)
# What cannot be moved on now must not be looked at for ever.
SOONEST = timedelta(seconds=1)


@dataclass(frozen=True)
class Binding:
    """What votes bind to."""

    policies: tuple[PolicyRef, ...]
    inputs: dict[str, Any]
    inputs_digest: str
    request_digest: str
    expires_at: datetime
    steps: tuple[str, ...] = ()


async def of_transition(
    tx: AsyncConnection,
    asked: StageRequested | RequestOpened,
    candidate: dict[str, Any],
    *,
    until: datetime,
    opened_at: datetime,
    at: datetime,
) -> Binding:
    """What a request for a transition rests on at that time. `until`: when the registry stops waiting."""
    place = (asked.workspace, asked.model)
    request = {
        "transition_id": asked.transition_id,
        "kind": str(asked.kind),
        "model": asked.model,
        "from": str(asked.from_stage),
        "to": str(asked.to_stage),
        "reason": asked.reason,
        "requested_by": asked.requested_by,
        "fields": asked.fields,
        "change_class": asked.fields.get("change_class", CHANGE_CLASS),
        "expires_at": until.astimezone(UTC).isoformat(),
        "policy_editors": [],
    }
    baseline = await copies.occupant(tx, *place, asked.to_stage, other_than=asked.version)
    if beforehand := await _beforehand(tx, asked, baseline):
        request["preapproved"] = beforehand
    inputs: dict[str, Any] = {
        "candidate": candidate,
        "baseline": baseline,
        "model": await copies.model(tx, *place),
        "request": request,
    }
    policies, inputs = frozen(inputs, await views.current_policies(tx), at)
    inputs["request"]["policy_editors"] = await views.editors(tx, (ref for ref, _ in policies))
    digest = partial(digest_of_transition, asked)
    return _binding(policies, inputs, digest, until=until, opened_at=opened_at, at=at)


async def _beforehand(
    tx: AsyncConnection, asked: StageRequested | RequestOpened, baseline: dict[str, Any] | None
) -> str | None:
    """The request with which people approved this rollback: it let the present version in, and names where to go back
    to."""
    if asked.kind is not TransitionKind.ROLLBACK or baseline is None:
        return None
    place = (asked.workspace, asked.model, baseline["version"], str(asked.to_stage))
    found = await views.decision_of(tx, *place)
    decision = found.decision if found is not None else None
    if decision is None or decision.rollback_to != asked.version or not _by_people(decision):
        return None
    return decision.transition_id


def _by_people(decision: Decision) -> bool:
    """Not in an emergency, nor beforehand, nor where nobody was asked: what its requester wrote was seen by others."""
    return decision.break_glass is None and any(vote.choice is Choice.APPROVE for vote in decision.votes)


async def of_proposal(
    tx: AsyncConnection,
    request_id: str,
    proposed: PolicyRef,
    asked: dict[str, Any],
    *,
    opened_at: datetime,
    at: datetime,
) -> Binding:
    """What a request to publish a policy rests on at that time."""
    inputs = {
        "candidate": None,
        "baseline": None,
        "model": {"workspace": "*", "name": proposed.name, "owner": "", "description": "", "tags": {}},
        "request": {**asked, "policy_editors": []},
        "policy": proposed.model_dump(),
    }
    policies = await _applying(tx, inputs, at)
    digest = partial(digest_of_proposal, request_id, proposed)
    until = datetime.fromisoformat(asked["expires_at"])
    return _binding(policies, inputs, digest, until=until, opened_at=opened_at, at=at)


async def current(tx: AsyncConnection, request: Request, at: datetime) -> Binding | None:
    """What the request rests on now; None when it has become pointless."""
    opened = request.opened
    if isinstance(opened, PolicyProposed):
        revisions = await views.policies(tx, name=opened.policy.name)
        if (revisions[0].revision if revisions else 0) + 1 != opened.policy.revision:
            return None
        asked = opened.inputs["request"]
        return await of_proposal(tx, opened.request_id, opened.policy, asked, opened_at=request.opened_at, at=at)
    candidate = await copies.candidate(tx, opened.workspace, opened.model, opened.version)
    if candidate is None:  # the copies are being made anew
        return Binding(
            request.policies, request.inputs, request.inputs_digest, request.request_digest, request.expires_at
        )
    until = datetime.fromisoformat(opened.inputs["request"]["expires_at"])
    return await of_transition(tx, opened, candidate, until=until, opened_at=request.opened_at, at=at)


async def _applying(tx: AsyncConnection, inputs: dict[str, Any], at: datetime) -> InForce:
    """The policies that apply; who edited them becomes part of the inputs."""
    policies = applicable(await views.current_policies(tx), inputs, at)
    inputs["request"]["policy_editors"] = await views.editors(tx, (ref for ref, _ in policies))
    return policies


def _binding(
    policies: InForce,
    inputs: dict[str, Any],
    digest: Callable[[tuple[PolicyRef, ...], str], str],
    *,
    until: datetime,
    opened_at: datetime,
    at: datetime,
) -> Binding:
    needs, inputs_digest = needs_of(policies, inputs, opened_at=opened_at, now=at), digest_of(inputs)
    refs = tuple(ref for ref, _ in policies)
    return Binding(
        policies=refs,
        inputs=inputs,
        inputs_digest=inputs_digest,
        request_digest=digest(refs, inputs_digest),
        expires_at=min(until, opened_at + needs.expires_after) if needs.expires_after else until,
        steps=tuple(step.id for step in needs.steps),
    )


def difference(request: Request, found: Binding) -> str:
    """In words, what made the request another one."""
    told = []
    before = {ref.name: ref.revision for ref in request.policies}
    after = {ref.name: ref.revision for ref in found.policies}
    if before != after:
        names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        told.append(f"policies in force: {', '.join(names)}")
    for part in ("candidate", "baseline", "model", "request"):
        old, new = request.inputs.get(part) or {}, found.inputs.get(part) or {}
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name) and name != "policy_editors")
        if part == "baseline" and old.get("version") != new.get("version"):
            told.append(f"the version to compare with: {old.get('version', 'none')}, now {new.get('version', 'none')}")
        elif names:
            told.append(f"{part}: {', '.join(names)}")
    return ("; ".join(told) or "its inputs")[:9_000]


def standing(request: Request, sight: "Sight", at: datetime) -> Standing:
    """What an open request waits for."""
    found, needs, case = sight.found, sight.needs, request.case
    asked, steps = asked_of(request, sight), to_do(request, sight)
    standing_votes = [v for v in case.votes if why_not(case, needs, v, at, sight.members) is None]
    next_at = found.next_at
    if next_at is not None and found.phase == "settling":
        next_at += AFTER_SETTLING
    due = [next_at, request.expires_at, *(step.due for step in steps)]
    if needs.valid_for is not None:
        due += [v.at + needs.valid_for for v in standing_votes if v.choice is Choice.APPROVE]
    if any(names_now(policy) for _, policy in sight.policies):
        due.append(at + LOOK_AGAIN)
    first = min(moment for moment in due if moment is not None)
    calls = {
        said.gate
        for said in found.gates
        if said.result == "pending" and (gate := needs.gate(said.gate)) is not None and gate.spec.webhook is not None
    }
    return Standing(
        phase=found.phase,
        waits_for=found.reason,
        due_at=max(first, at + SOONEST),
        asked=asked,
        barred=frozenset(excluded(case, needs, sight.members)),
        delegation=needs.delegation if found.phase == "people" else None,
        heard=frozenset[str]().union(*(heard_of(vote, sight.members) for vote in standing_votes)),
        acted=request.acted,
        calls=frozenset(calls),
    )


def asked_of(request: Request, sight: "Sight") -> frozenset[str]:
    """The groups that an open request waits for."""
    found, needs, case = sight.found, sight.needs, request.case
    asked: set[str] = set()
    if found.phase == "people":
        have = tally(case, needs, sight.at, sight.members)
        asked = {group for rule in needs.rules if have[rule.id] < rule.count for group in electorate(case, rule)}
    elif found.phase == "gates":
        for said in found.gates:
            gate = needs.gate(said.gate)
            if gate is not None and gate.blocks and said.result not in ("pass", "waived", "pending"):
                asked |= {group for groups in gate.may_pass_by(said.result) for group in groups}
    return frozenset(asked)


def to_do(request: Request, sight: "Sight") -> tuple[Step, ...]:
    """The steps of the escalation that are still to come, the next first: none while nobody is asked."""
    done = {step.step for step in request.escalated}
    return tuple(s for s in sight.needs.steps if s.id not in done) if asked_of(request, sight) else ()


def transition_of(asked: Transition) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in Transition.model_fields}
