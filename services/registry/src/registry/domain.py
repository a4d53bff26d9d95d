"""The rules of models, versions and stages. Pure: state and command in, events out.

`decide_*` functions return the events a command causes or raise `Refused`; they change nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from contracts.approval import Choice, Decision, Verdict
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import (
    Approval,
    ModelRegistered,
    RegisterModel,
    RegisterVersion,
    RequestTransition,
    RollBack,
    StageChanged,
    StageRefused,
    StageRequested,
    Transition,
    VersionRegistered,
)

GATED = frozenset({Stage.STAGING, Stage.PRODUCTION})
SINGLE = frozenset({Stage.PRODUCTION})
MOVES = frozenset(
    {
        (Stage.DEVELOPMENT, Stage.STAGING),
        (Stage.STAGING, Stage.PRODUCTION),
        (Stage.STAGING, Stage.DEVELOPMENT),
        (Stage.DEVELOPMENT, Stage.ARCHIVED),
        (Stage.STAGING, Stage.ARCHIVED),
        (Stage.PRODUCTION, Stage.ARCHIVED),
        (Stage.ARCHIVED, Stage.DEVELOPMENT),
    }
)
# What a decision and the transition it is for must agree on, field by field (law 5).
BOUND = tuple(Transition.model_fields)


class Refused(Exception):
    """The command is well-formed but may not be done now. `code` is stable; `status` is its HTTP status."""

    def __init__(self, code: str, detail: str, status: int = 409) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status


@dataclass(frozen=True)
class Version:
    number: int
    digest: str
    artifact_digest: str
    stage: Stage
    has_been: frozenset[Stage] = frozenset()
    registered_by: str = ""


@dataclass(frozen=True)
class Model:
    """What the rules need to know of a model. `occupants` names the version in each single-occupant stage."""

    workspace: str
    name: str
    exists: bool = False
    versions: int = 0
    occupants: Mapping[Stage, Version] = field(default_factory=dict)


@dataclass(frozen=True)
class Open:
    """A transition that waits for its decision."""

    transition: Transition
    requested_by: str
    reason: str
    expires_at: datetime


def decide_register_model(model: Model, command: RegisterModel) -> list[ModelRegistered]:
    if model.exists:
        raise Refused("model-exists", f"model {model.name} already exists in workspace {model.workspace}")
    return [ModelRegistered.model_validate(command.model_dump())]


def decide_register_version(
    model: Model, command: RegisterVersion, actor: str
) -> list[ModelRegistered | VersionRegistered]:
    """Numbers are given from 1 without gaps. A model that does not exist is made on the way."""
    events: list[ModelRegistered | VersionRegistered] = []
    if not model.exists:
        events.append(ModelRegistered(workspace=command.workspace, model=command.model, owner=command.content.owner))
    unknown = [n for n in command.content.lineage.parents if n > model.versions]
    if unknown:
        raise Refused("parent-not-found", f"parent version {unknown[0]} of {model.name} does not exist", 422)
    events.append(
        VersionRegistered(
            workspace=command.workspace,
            model=command.model,
            version=model.versions + 1,
            digest=command.content.digest(),
            content=command.content,
            registered_by=actor,
        )
    )
    return events


def decide_request(
    model: Model, version: Version, command: RequestTransition, *, transition_id: str, actor: str, expires_at: datetime
) -> list[StageRequested | StageChanged]:
    """A gated stage gets a request; an ungated one is entered at once."""
    if command.expected_from is not None and command.expected_from != version.stage:
        raise Refused(
            "stage-moved", f"version {version.number} is in {version.stage}, not in {command.expected_from} as expected"
        )
    if version.stage == command.to_stage:
        raise Refused("already-in-stage", f"version {version.number} is already in {version.stage}")
    if (version.stage, command.to_stage) not in MOVES:
        allowed = ", ".join(sorted(to for origin, to in MOVES if origin == version.stage))
        hint = " (a version that has been there returns by rollback)" if command.to_stage in version.has_been else ""
        raise Refused(
            "move-not-allowed",
            f"version {version.number} cannot go from {version.stage} to {command.to_stage}; "
            f"from there it can go to {allowed}{hint}",
        )
    kind = TransitionKind.PROMOTION if command.to_stage in GATED else TransitionKind.RETIREMENT
    transition = _transition(model, version, kind, command.to_stage, transition_id)
    if kind is TransitionKind.PROMOTION:
        return [
            StageRequested(**transition.model_dump(), requested_by=actor, reason=command.reason, expires_at=expires_at)
        ]
    return [StageChanged(**transition.model_dump(), requested_by=actor, reason=command.reason)]


def decide_rollback(
    model: Model, target: Version | None, command: RollBack, *, transition_id: str, actor: str, expires_at: datetime
) -> list[StageRequested]:
    """`target` is the version named, or the last good occupant of the stage; None when there is none."""
    if command.stage not in GATED:
        raise Refused("not-a-gated-stage", f"{command.stage} is not a stage to roll back", 422)
    if target is None:
        raise Refused("nothing-to-roll-back-to", f"{model.name} has no earlier good version in {command.stage}")
    if target.stage == command.stage:
        raise Refused("already-in-stage", f"version {target.number} is in {command.stage} now")
    if target.stage is not Stage.ARCHIVED:
        raise Refused("not-archived", f"version {target.number} is in {target.stage}; only an archived one returns")
    if command.stage not in target.has_been:
        raise Refused(
            "never-been-there", f"version {target.number} has never been in {command.stage}; request a promotion"
        )
    transition = _transition(model, target, TransitionKind.ROLLBACK, command.stage, transition_id)
    return [StageRequested(**transition.model_dump(), requested_by=actor, reason=command.reason, expires_at=expires_at)]


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
) -> list[StageChanged | StageRefused]:
    """The stage changes, with the former occupant archived, or the transition is refused."""
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
    refusal = _refusal(version, waiting, decision, now)
    if refusal is not None:
        code, detail = refusal
        return [StageRefused(**facts, code=code, detail=detail)]
    to_stage = waiting.transition.to_stage
    former = model.occupants.get(to_stage) if to_stage in SINGLE else None
    approved_by = tuple(
        Approval(name=v.voter, at=v.at, meaning=v.meaning) for v in decision.votes if v.choice is Choice.APPROVE
    )
    events: list[StageChanged | StageRefused] = []
    if former is not None:
        leaving = _transition(
            model, former, TransitionKind.SUPERSEDED, Stage.ARCHIVED, waiting.transition.transition_id
        )
        events.append(
            StageChanged(
                **leaving.model_dump(),
                requested_by=waiting.requested_by,
                reason=waiting.reason,
                decision_id=decision.decision_id,
                superseded_by=version.number,
            )
        )
    events.append(StageChanged(**facts, approved_by=approved_by, replaces=former.number if former else None))
    return events


def decide_expiry(waiting: Open) -> StageRefused:
    return StageRefused(
        **waiting.transition.model_dump(),
        requested_by=waiting.requested_by,
        reason=waiting.reason,
        code="request-expired",
        detail=f"nobody decided before {waiting.expires_at.isoformat()}",
    )


def _refusal(version: Version, waiting: Open, decision: Decision, now: datetime) -> tuple[str, str] | None:
    if decision.verdict is Verdict.REJECTED:
        return "rejected", decision.reason or "the policy or a person said no"
    if waiting.expires_at <= now:
        return "request-expired", f"nobody decided before {waiting.expires_at.isoformat()}"
    if decision.expires_at <= now:
        return "decision-expired", f"the decision was good until {decision.expires_at.isoformat()}"
    if version.stage != waiting.transition.from_stage:
        return "stage-moved", f"the version is in {version.stage}, not in {waiting.transition.from_stage} any more"
    return None


def _transition(
    model: Model, version: Version, kind: TransitionKind, to_stage: Stage, transition_id: str
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
