"""Stages and aliases: who may go where, and what a signed decision does. Pure, like `domain.py`."""

from dataclasses import dataclass
from datetime import datetime

from contracts.approval import Choice, Decision, Verdict
from contracts.lifecycle import TransitionKind
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    Approval,
    RequestTransition,
    RollBack,
    SetAlias,
    StageChanged,
    StageRefused,
    StageRequested,
    Transition,
)
from registry.domain import Model, Refused, Status, Version, check_alive

# What a decision and the transition it is for must agree on, field by field (law 5).
BOUND = tuple(Transition.model_fields)
CANCELLED, EXPIRED = "cancelled", "request-expired"
# The waiver that lets a quarantined version move.
UNSAFE_ARTIFACT = "unsafe-artifact"


@dataclass(frozen=True)
class Open:
    """A transition that waits for its decision."""

    transition: Transition
    requested_by: str
    reason: str
    expires_at: datetime
    expected: int | None = None


@dataclass(frozen=True)
class Asked:
    """Who asks, and the name and the end of the transition that it will be."""

    transition_id: str
    actor: str
    expires_at: datetime


def decide_request(
    model: Model, version: Version, command: RequestTransition, asked: Asked
) -> list[StageRequested | StageChanged]:
    """A gated stage gets a request; an ungated one is entered at once."""
    check_alive(model)
    lifecycle = model.rules.lifecycle
    to_stage = stage_of(model, command.to_stage)
    _check_verified(version)
    if command.expected_from is not None and stage_of(model, command.expected_from) != version.stage:
        raise Refused(
            "stage-moved", f"version {version.number} is in {version.stage}, not in {command.expected_from} as expected"
        )
    if version.stage == to_stage:
        raise Refused("already-in-stage", f"version {version.number} is already in {version.stage}")
    if not lifecycle.allows(version.stage, to_stage):
        allowed = ", ".join(s.name for s in lifecycle.stages if lifecycle.allows(version.stage, s.name)) or "no stage"
        hint = " (a version that has been there returns by rollback)" if to_stage in version.has_been else ""
        raise Refused(
            "move-not-allowed",
            f"version {version.number} cannot go from {version.stage} to {to_stage}; "
            f"from there it can go to {allowed}{hint}",
        )
    if lifecycle.gated(to_stage):
        transition = _transition(model, version, TransitionKind.PROMOTION, to_stage, asked.transition_id)
        return [_requested(transition, asked, command.reason)]
    retreats = version.stage != lifecycle.initial and to_stage in (lifecycle.initial, lifecycle.archive)
    if version.status == Status.QUARANTINED and not retreats:
        raise Refused("version-quarantined", f"version {version.number} has unsafe findings; it may only be taken back")
    transition = _transition(model, version, TransitionKind.RETIREMENT, to_stage, asked.transition_id)
    changed = StageChanged(**transition.model_dump(), requested_by=asked.actor, reason=command.reason)
    return [*_making_room(model, version, changed), changed]


def decide_rollback(model: Model, target: Version | None, command: RollBack, asked: Asked) -> list[StageRequested]:
    """`target` is the version named, or the last good occupant of the stage; None when there is none."""
    check_alive(model)
    stage = stage_of(model, command.stage)
    if not model.rules.lifecycle.gated(stage):
        raise Refused("not-a-gated-stage", f"{stage} is not a stage to roll back", 422)
    if target is None:
        raise Refused("nothing-to-roll-back-to", f"{model.name} has no earlier good version in {stage}")
    if target.stage == stage:
        raise Refused("already-in-stage", f"version {target.number} is in {stage} now")
    if target.stage != model.rules.lifecycle.archive:
        raise Refused("not-archived", f"version {target.number} is in {target.stage}; only an archived one returns")
    if stage not in target.has_been:
        raise Refused("never-been-there", f"version {target.number} has never been in {stage}; request a promotion")
    transition = _transition(model, target, TransitionKind.ROLLBACK, stage, asked.transition_id)
    return [_requested(transition, asked, command.reason)]


def decide_set_alias(
    model: Model, version: Version, command: SetAlias, asked: Asked
) -> list[StageRequested | AliasChanged]:
    """A protected alias gets a request, as a gated stage does; another is set at once. Set already: no event."""
    check_alive(model)
    alias = command.alias
    if alias.lower() == "latest" or (alias[:1] in "vV" and alias[1:].isdecimal()):
        raise Refused("reserved-alias", f"{alias!r} has a meaning of its own; choose another name", 422)
    _check_verified(version)
    if version.status == Status.QUARANTINED and not model.rules.protects(alias):
        raise Refused("version-quarantined", f"version {version.number} has unsafe findings; nobody should find it")
    present = model.aliases.get(alias)
    if command.expected is not None and command.expected != (present or 0):
        now_at = f"points at version {present}" if present else "does not exist"
        raise Refused("alias-moved", f"the alias {alias} {now_at}, not at {command.expected or 'nothing'} as expected")
    if present == version.number:
        return []
    if model.rules.protects(alias):
        transition = _transition(model, version, TransitionKind.ALIAS, f"@{alias}", asked.transition_id)
        return [_requested(transition, asked, command.reason, command.expected)]
    return [
        AliasChanged(
            workspace=model.workspace,
            model=model.name,
            alias=alias,
            version=version.number,
            digest=version.digest,
            artifact_digest=version.artifact_digest,
            previous=present,
            requested_by=asked.actor,
            reason=command.reason,
        )
    ]


def decide_remove_alias(model: Model, alias: str, actor: str, reason: str) -> list[AliasRemoved]:
    check_alive(model)
    if alias not in model.aliases:
        raise Refused("alias-not-found", f"{model.title} has no alias {alias!r}", 404)
    return [
        AliasRemoved(
            workspace=model.workspace,
            model=model.name,
            alias=alias,
            previous=model.aliases[alias],
            requested_by=actor,
            reason=reason,
        )
    ]


def check_decision(version: Version, waiting: Open, decision: Decision) -> None:
    """Raises Refused unless the decision is for exactly this transition, and by others than who asked or made it.

    Such a decision changes nothing. The approval service checks the same; trust in it and its topics is not enough.
    """
    if decision.requested_by != waiting.requested_by:
        raise Refused("decision-mismatch", f"the decision names {decision.requested_by} as requested_by")
    own = {waiting.requested_by, version.registered_by}
    if any(vote.choice is Choice.APPROVE and vote.voter in own for vote in decision.votes):
        raise Refused("decision-own-vote", "the requester or the version's author approved; another person must")
    for name in BOUND:
        want, got = getattr(waiting.transition, name), getattr(decision, name)
        if want != got:
            raise Refused("decision-mismatch", f"the decision is for {name}={got}, the transition has {name}={want}")


def decide_outcome(
    model: Model, version: Version, waiting: Open, decision: Decision, jws: str, policy: str, now: datetime
) -> list[StageChanged | StageRefused | AliasChanged]:
    """The stage changes, with who must make room archived, or the alias moves; or the transition is refused."""
    check_decision(version, waiting, decision)
    facts = {
        **waiting.transition.model_dump(),
        "requested_by": waiting.requested_by,
        "reason": waiting.reason,
        "criteria": decision.gates,
        "policy": policy,
        "decision_id": decision.decision_id,
        "decision": jws,
    }
    refusal = _refusal(model, version, waiting, decision, now)
    if refusal is not None:
        code, detail = refusal
        return [StageRefused(**facts, code=code, detail=detail)]
    approved_by = tuple(
        Approval(name=v.voter, at=v.at, meaning=v.meaning) for v in decision.votes if v.choice is Choice.APPROVE
    )
    if waiting.transition.kind is TransitionKind.ALIAS:
        alias = waiting.transition.to_stage.removeprefix("@")
        same = {name: value for name, value in facts.items() if name in AliasChanged.model_fields}
        return [AliasChanged(**same, alias=alias, previous=model.aliases.get(alias), approved_by=approved_by)]
    changed = StageChanged(**facts, approved_by=approved_by)
    leaving = _making_room(model, version, changed)
    return [*leaving, changed.model_copy(update={"replaces": leaving[0].version if leaving else None})]


def decide_expiry(waiting: Open) -> StageRefused:
    return _ended(waiting, EXPIRED, f"nobody decided before {waiting.expires_at.isoformat()}")


def decide_cancel(waiting: Open, actor: str, reason: str) -> StageRefused:
    return _ended(waiting, CANCELLED, f"{actor} took it back: {reason}")


def stage_of(model: Model, name: str) -> str:
    """The stage in its own spelling. Raises Refused when the workspace has no such stage."""
    found = model.rules.lifecycle.named(name)
    if found is None:
        stages = ", ".join(stage.name for stage in model.rules.lifecycle.stages)
        raise Refused("unknown-stage", f"{name!r} is not a stage of this workspace; there are {stages}", 422)
    return found


def _making_room(model: Model, version: Version, entering: StageChanged) -> list[StageChanged]:
    """The longest-standing occupants leave for the archive when the stage would hold too many."""
    rule = model.rules.lifecycle.rule(entering.to_stage)
    if rule is None or rule.holds is None:
        return []
    present = [v for v in model.occupants.get(entering.to_stage, ()) if v.number != version.number]
    surplus = max(len(present) + 1 - rule.holds, 0)
    return [
        StageChanged(
            **_transition(
                model, former, TransitionKind.SUPERSEDED, model.rules.lifecycle.archive, entering.transition_id
            ).model_dump(),
            requested_by=entering.requested_by,
            reason=entering.reason,
            decision_id=entering.decision_id,
            superseded_by=version.number,
        )
        for former in present[:surplus]
    ]


def _refusal(
    model: Model, version: Version, waiting: Open, decision: Decision, now: datetime
) -> tuple[str, str] | None:
    """The first thing that stands against it: code and text."""
    number, asked, status = version.number, waiting.transition, version.status
    gone = asked.kind is not TransitionKind.ALIAS and model.rules.lifecycle.rule(asked.to_stage) is None
    unsafe = status == Status.QUARANTINED and UNSAFE_ARTIFACT not in decision.waivers
    present = model.aliases.get(asked.to_stage.removeprefix("@"), 0)
    moved = asked.kind is TransitionKind.ALIAS and waiting.expected not in (None, present)
    against = (
        (decision.verdict is Verdict.REJECTED, "rejected", decision.reason or "the policy or a person said no"),
        (waiting.expires_at <= now, EXPIRED, f"nobody decided before {waiting.expires_at.isoformat()}"),
        (decision.expires_at <= now, "decision-expired", f"good until {decision.expires_at.isoformat()}"),
        (
            moved,
            "alias-moved",
            f"the alias points at {present or 'nothing'} now, not at {waiting.expected or 'nothing'}",
        ),
        (version.stage != asked.from_stage, "stage-moved", f"the version is in {version.stage} now"),
        (unsafe, "version-quarantined", f"version {number} has unsafe findings, and no policy waived them"),
        (status in (Status.PENDING, Status.REJECTED), "version-not-ready", f"version {number} is {status}"),
        (model.deleted, "model-deleted", "the model was deleted meanwhile"),
        (gone, "unknown-stage", f"the workspace has no stage {asked.to_stage} any more"),
    )
    return next(((code, detail) for holds, code, detail in against if holds), None)


def _check_verified(version: Version) -> None:
    if version.status == Status.PENDING:
        raise Refused("version-not-ready", f"version {version.number} is being verified; try again in a moment")
    if version.status == Status.REJECTED:
        raise Refused("version-rejected", f"version {version.number} was rejected; register a new one")


def _requested(transition: Transition, asked: Asked, reason: str, expected: int | None = None) -> StageRequested:
    return StageRequested(
        **transition.model_dump(),
        requested_by=asked.actor,
        reason=reason,
        expires_at=asked.expires_at,
        expected=expected,
    )


def _ended(waiting: Open, code: str, detail: str) -> StageRefused:
    return StageRefused(
        **waiting.transition.model_dump(),
        requested_by=waiting.requested_by,
        reason=waiting.reason,
        code=code,
        detail=detail,
    )


def _transition(model: Model, version: Version, kind: TransitionKind, to_stage: str, transition_id: str) -> Transition:
    return Transition(
        transition_id=transition_id,
        kind=kind,
        workspace=model.workspace,
        model=model.name,
        version=version.number,
        digest=version.digest,
        artifact_digest=version.artifact_digest,
        from_stage=version.stage,
        to_stage=to_stage,
    )
