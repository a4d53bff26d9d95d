"""Stages: who may go where, and what a signed decision does, of aliases too. Pure, like `domain.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.approval import Choice, Decision, Verdict, approvals_of
from contracts.keys import LEEWAY_SECONDS
from contracts.lifecycle import REGISTRY, TransitionKind
from contracts.payload import Message
from contracts.registry import (
    AliasChanged,
    RequestFields,
    RequestTransition,
    RollBack,
    StageChanged,
    StageRefused,
    StageRequested,
    Transition,
)
from registry.domain import Model, Refused, Status, Version, check_alive

# What a decision and the transition it is for must agree on, field by field (law 5).
BOUND = tuple(Transition.model_fields)
CANCELLED, EXPIRED, REVOKED = "cancelled", "request-expired", "version-revoked"
# The waiver that lets a quarantined version move.
UNSAFE_ARTIFACT = "unsafe-artifact"


@dataclass(frozen=True)
class Open:
    """A transition that waits for its decision. `occupant`: who entered its target last and is still there (0: nobody;
    None: not looked up)."""

    transition: Transition
    requested_by: str
    reason: str
    requested_at: datetime
    expires_at: datetime
    expected: int | None = None
    occupant: int | None = None


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
    check_verified(version)
    if to_stage != lifecycle.archive:
        check_not_revoked(version)
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
        transition = transition_of(model, version, TransitionKind.PROMOTION, to_stage, asked.transition_id)
        return [requested(transition, asked, command.reason, fields=command.fields)]
    retreats = version.stage != lifecycle.initial and to_stage in (lifecycle.initial, lifecycle.archive)
    if version.status == Status.QUARANTINED and not retreats:
        raise Refused("version-quarantined", f"version {version.number} has unsafe findings; it may only be taken back")
    transition = transition_of(model, version, TransitionKind.RETIREMENT, to_stage, asked.transition_id)
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
    check_not_revoked(target)
    if target.stage == stage:
        raise Refused("already-in-stage", f"version {target.number} is in {stage} now")
    if target.stage != model.rules.lifecycle.archive:
        raise Refused("not-archived", f"version {target.number} is in {target.stage}; only an archived one returns")
    if stage not in target.has_been:
        raise Refused("never-been-there", f"version {target.number} has never been in {stage}; request a promotion")
    transition = transition_of(model, target, TransitionKind.ROLLBACK, stage, asked.transition_id)
    return [requested(transition, asked, command.reason, fields=command.fields)]


def check_decision(version: Version, waiting: Open, decision: Decision) -> None:
    """Raises Refused unless the decision is for exactly this transition, and by others than who asked or made it.

    Such a decision changes nothing. The approval service checks the same; trust in it and its topics is not enough.
    The date of a decision is the word of whoever signed it: with a key that has retired since, they must not decide
    what was asked for afterwards.
    """
    if decision.decided_at < waiting.requested_at - timedelta(seconds=LEEWAY_SECONDS):
        since = waiting.requested_at.isoformat()
        raise Refused(
            "decision-backdated", f"it is dated {decision.decided_at.isoformat()}; it was asked for at {since}"
        )
    if decision.requested_by != waiting.requested_by:
        raise Refused("decision-mismatch", f"the decision names {decision.requested_by} as requested_by")
    own = {waiting.requested_by, version.registered_by}
    if any(vote.choice is Choice.APPROVE and own & {vote.voter, vote.on_behalf_of} for vote in decision.votes):
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
    approved_by = approvals_of(decision)
    alias = alias_of(waiting.transition.to_stage)
    if alias is not None:
        same = {name: value for name, value in facts.items() if name in AliasChanged.model_fields}
        return [AliasChanged(**same, alias=alias, previous=model.aliases.get(alias), approved_by=approved_by)]
    changed = StageChanged(**facts, approved_by=approved_by)
    leaving = _making_room(model, version, changed)
    return [*leaving, changed.model_copy(update={"replaces": leaving[0].version if leaving else None})]


def decide_expiry(waiting: Open) -> StageRefused:
    return ended(waiting, EXPIRED, f"nobody decided before {waiting.expires_at.isoformat()}")


def decide_cancel(waiting: Open, actor: str, reason: str) -> StageRefused:
    return ended(waiting, CANCELLED, f"{actor} took it back: {reason}")


def stage_of(model: Model, name: str) -> str:
    """The stage in its own spelling. Raises Refused when the workspace has no such stage."""
    found = model.rules.lifecycle.named(name)
    if found is None:
        stages = ", ".join(stage.name for stage in model.rules.lifecycle.stages)
        raise Refused("unknown-stage", f"{name!r} is not a stage of this workspace; there are {stages}", 422)
    return found


def alias_of(target: str) -> str | None:
    """The alias that a transition is to move; None when it is about a stage."""
    return target[1:] if target.startswith("@") else None


def check_not_revoked(version: Version) -> None:
    if version.status == Status.REVOKED:
        raise Refused(REVOKED, f"version {version.number} was revoked: nobody may use it any more")


def check_can_clear(model: Model, stage: str) -> None:
    """Raises Refused for a gated stage that holds more than one: who leaves it is not decided on before the change."""
    rule = model.rules.lifecycle.rule(stage)
    if rule is not None and rule.gated and rule.holds != 1:
        raise Refused(
            "cannot-archive-existing",
            f"{stage} is gated and may hold several versions; move this one, and archive the others when it is there",
            422,
        )


def decide_clear(
    model: Model, version: Version, present: Sequence[Version], entering: Sequence[Message], asked: Asked, reason: str
) -> list[StageChanged]:
    """Whoever is `present` in an ungated stage leaves it for the archive, but for the version, which `entering` brings
    there, and those that `entering` takes out."""
    moved = [event for event in entering if isinstance(event, StageChanged)]
    out = {version.number, *(event.version for event in moved)}
    transition_id = moved[-1].transition_id if moved else asked.transition_id
    archive = model.rules.lifecycle.archive
    return [
        StageChanged(
            **transition_of(model, other, TransitionKind.SUPERSEDED, archive, transition_id).model_dump(),
            requested_by=asked.actor,
            reason=reason,
            superseded_by=version.number,
        )
        for other in present
        if other.number not in out
    ]


def _making_room(model: Model, version: Version, entering: StageChanged) -> list[StageChanged]:
    """Who was revoked leaves for the archive, and the longest-standing when the stage would hold too many."""
    rule = model.rules.lifecycle.rule(entering.to_stage)
    if rule is None:
        return []
    revoked = model.revoked.get(entering.to_stage, ())
    out = {version.number, *(v.number for v in revoked)}
    present = [v for v in model.occupants.get(entering.to_stage, ()) if v.number not in out]
    surplus = max(len(present) + 1 - rule.holds, 0) if rule.holds is not None else 0
    return [
        StageChanged(
            **transition_of(
                model, former, TransitionKind.SUPERSEDED, model.rules.lifecycle.archive, entering.transition_id
            ).model_dump(),
            requested_by=entering.requested_by,
            reason=entering.reason,
            decision_id=entering.decision_id,
            superseded_by=version.number,
        )
        for former in (*revoked, *present[:surplus])
    ]


def _refusal(
    model: Model, version: Version, waiting: Open, decision: Decision, now: datetime
) -> tuple[str, str] | None:
    """The first thing that stands against it: code and text."""
    number, asked, status = version.number, waiting.transition, version.status
    alias, back = alias_of(asked.to_stage), asked.kind is TransitionKind.ROLLBACK
    gone = alias is None and model.rules.lifecycle.rule(asked.to_stage) is None
    # The registry asked because of a revoked version; who came after it meanwhile must not be pushed out.
    needless = back and alias is None and waiting.requested_by == REGISTRY and not model.revoked.get(asked.to_stage)
    unsafe = status == Status.QUARANTINED and UNSAFE_ARTIFACT not in decision.waivers
    present = model.aliases.get(alias, 0) if alias is not None else 0
    moved = alias is not None and waiting.expected not in (None, present)
    # An emergency is not held up by who came in meanwhile: people look at it afterwards. A rollback that was approved
    # beforehand is: what was approved is the way back from that version, not from another.
    outdated = decision.break_glass is None and decision.baseline not in (None, waiting.occupant)
    # An alias returns to what it pointed at before, wherever that stands: its stage may come back at the same time.
    elsewhere = version.stage != asked.from_stage and not (back and alias is not None)
    against = (
        (decision.verdict is Verdict.REJECTED, "rejected", decision.reason or "the policy or a person said no"),
        (waiting.expires_at <= now, EXPIRED, f"nobody decided before {waiting.expires_at.isoformat()}"),
        (decision.expires_at <= now, "decision-expired", f"good until {decision.expires_at.isoformat()}"),
        (
            moved,
            "alias-moved",
            f"the alias points at {present or 'nothing'} now, not at {waiting.expected or 'nothing'}",
        ),
        (elsewhere, "stage-moved", f"the version is in {version.stage} now"),
        (status == Status.REVOKED, REVOKED, f"version {number} was revoked meanwhile"),
        (needless, "no-longer-needed", f"no revoked version is in {asked.to_stage} any more"),
        (
            outdated,
            "occupant-moved",
            f"{_named(waiting.occupant)} is in {asked.to_stage} now; it was compared with {_named(decision.baseline)}",
        ),
        (unsafe, "version-quarantined", f"version {number} has unsafe findings, and no policy waived them"),
        (status in (Status.PENDING, Status.REJECTED), "version-not-ready", f"version {number} is {status}"),
        (model.deleted, "model-deleted", "the model was deleted meanwhile"),
        (gone, "unknown-stage", f"the workspace has no stage {asked.to_stage} any more"),
    )
    return next(((code, detail) for holds, code, detail in against if holds), None)


def _named(number: int | None) -> str:
    return f"version {number}" if number else "no version"


def check_verified(version: Version) -> None:
    if version.status == Status.PENDING:
        raise Refused("version-not-ready", f"version {version.number} is being verified; try again in a moment")
    if version.status == Status.REJECTED:
        raise Refused("version-rejected", f"version {version.number} was rejected; register a new one")


def requested(
    transition: Transition, asked: Asked, reason: str, expected: int | None = None, fields: RequestFields | None = None
) -> StageRequested:
    return StageRequested(
        **transition.model_dump(),
        requested_by=asked.actor,
        reason=reason,
        expires_at=asked.expires_at,
        expected=expected,
        fields=fields or {},
    )


def ended(waiting: Open, code: str, detail: str) -> StageRefused:
    return StageRefused(
        **waiting.transition.model_dump(),
        requested_by=waiting.requested_by,
        reason=waiting.reason,
        code=code,
        detail=detail,
    )


def transition_of(
    model: Model, version: Version, kind: TransitionKind, to_stage: str, transition_id: str
) -> Transition:
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
