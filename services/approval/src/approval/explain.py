"""What policies would do with a request that might be made."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from approval import binding, copies, views
from approval.desk import Desk
from contracts.approval import PolicyRef
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import Criterion, StageRequested
from kit.problems import Problem
from policy.case import Case
from policy.matching import InForce
from policy.needs import needs_of
from policy.outlook import Outlook, outlook
from policy.people import excluded
from policy.schedule import next_open

ASSUMED = timedelta(days=7)  # how long the registry waits for an answer


class Asked(BaseModel):
    """A request that might be made."""

    model_config = ConfigDict(frozen=True)
    workspace: str
    model: str
    version: int
    to: str
    from_stage: str | None = None
    kind: str | None = None
    reason: str = ""
    fields: dict[str, str] = {}
    requested_by: str


class ExplainedRule(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)
    id: str
    groups: list[str] = Field(alias="from")
    count: int
    meaning: str


class ExplainedGate(Criterion):
    """`waivable_by`: who may let this result pass."""

    blocks: bool
    waivable_by: list[str]
    never_skip: bool


class Barred(BaseModel):
    who: str
    why: str


class ExplainedDenial(BaseModel):
    """So many people of these groups end the request."""

    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)
    groups: list[str] = Field(alias="from")
    count: int


class ExplainedStep(BaseModel):
    """A step of the escalation, and when it would come if the request were made now."""

    at: str
    action: str
    to: list[str]
    rule: str | None


class EmergencyExit(BaseModel):
    allowed: list[str]
    skips: list[str]


class Would(BaseModel):
    """`verdict` is None when the request would wait."""

    verdict: str | None
    phase: str
    reason: str


class Explanation(BaseModel):
    """`methods`: null when any sign-in will do, empty when none does for all of the policies. `delegation_max_seconds`:
    null when nobody may vote for somebody else. One of the `windows` of each policy that has some must be open; a
    rollback that people approved beforehand has none, and no `freezes`."""

    policies: tuple[PolicyRef, ...]
    mistakes: list[str]
    missing_evidence: list[str]
    gates: list[ExplainedGate]
    rules: list[ExplainedRule]
    excluded: list[Barred]
    reauthenticate_within_seconds: float | None
    methods: list[str] | None
    deny: list[ExplainedDenial]
    delegation_max_seconds: float | None
    valid_for_seconds: float | None
    escalation: list[ExplainedStep]
    windows: list[dict[str, str]]
    freezes: list[dict[str, str]]
    opens_at: str | None
    min_wait_seconds: float
    expires_after_seconds: float | None
    emergency: EmergencyExit | None
    would: Would


async def explain(desk: Desk, asked: Asked) -> Explanation:
    """What the policies in force would ask of the request, and how it would stand now.

    Raises:
        Problem: 404, the version is not known.
    """
    async with desk.db.snapshot() as tx:
        at = await desk.clock(tx)
        candidate = await copies.candidate(tx, asked.workspace, asked.model, asked.version)
        if candidate is None:
            place = f"{asked.workspace}/{asked.model}/{asked.version}"
            raise Problem(404, "version-not-found", f"no version {place}; it may not have arrived yet")
        stays = await copies.stays(tx, asked.workspace, asked.model, asked.version)
        here = next((stage for stage in stays if not stage.startswith("@")), str(Stage.DEVELOPMENT))
        origin = await copies.spelled(tx, asked.workspace, asked.model, asked.from_stage or here)
        to = await copies.spelled(tx, asked.workspace, asked.model, asked.to)
        kind = asked.kind or (TransitionKind.ALIAS if asked.to.startswith("@") else TransitionKind.PROMOTION)
        until = at + ASSUMED
        might = StageRequested(
            transition_id="explained",
            kind=TransitionKind(kind),
            workspace=asked.workspace,
            model=asked.model,
            version=asked.version,
            digest=candidate["digest"],
            artifact_digest=candidate["artifact"]["digest"],
            from_stage=origin,
            to_stage=to,
            requested_by=asked.requested_by,
            reason=asked.reason or "none given",
            fields=asked.fields,
            expires_at=until,
        ).model_copy(update={"reason": asked.reason})  # an event would need one; policies say what is wrong with it
        bound = await binding.of_transition(tx, might, candidate, until=until, opened_at=at, at=at)
        policies = await views.bound_policies(tx, bound.policies)
        frozen = await views.frozen(tx, asked.workspace, asked.model, at)
    needs = needs_of(policies, bound.inputs, opened_at=at, now=at)
    case = Case(asked.requested_by, bound.request_digest, bound.inputs, opened_at=at, bound_at=at)
    found = outlook(case, needs, at, frozen=frozen)
    opens = next_open(needs.schedules, at + needs.min_wait)
    timed = policies if needs.schedules else []
    emergency = needs.emergency
    return Explanation(
        policies=bound.policies,
        mistakes=list(needs.mistakes),
        missing_evidence=list(needs.missing_evidence),
        gates=[_gate(said, needs.gate(said.gate)) for said in found.gates],
        rules=[ExplainedRule(id=r.id, groups=_named(r.groups), count=r.count, meaning=r.meaning) for r in needs.rules],
        excluded=[Barred(who=who, why=refusal.detail) for who, refusal in excluded(case, needs).items()],
        reauthenticate_within_seconds=_seconds(needs.authenticated_within),
        methods=None if needs.methods is None else sorted(needs.methods),
        deny=[ExplainedDenial(groups=_named(one.groups), count=one.count) for one in needs.denials if one.groups],
        delegation_max_seconds=_seconds(needs.delegation),
        valid_for_seconds=_seconds(needs.valid_for),
        escalation=[
            ExplainedStep(at=step.due.isoformat(), action=step.action, to=list(step.to), rule=step.rule)
            for step in needs.steps
        ],
        windows=_parts(timed, "windows"),
        freezes=_parts(timed, "freezes"),
        opens_at=opens.isoformat() if opens else None,
        min_wait_seconds=needs.min_wait.total_seconds(),
        expires_after_seconds=_seconds(needs.expires_after),
        emergency=EmergencyExit(
            allowed=[" or ".join(sorted(groups)) for groups in emergency.allowed], skips=sorted(emergency.skips)
        )
        if emergency
        else None,
        would=_would(found),
    )


def _gate(said: Criterion, gate: Any) -> ExplainedGate:
    waivers = gate.may_pass_by(said.result) if gate and said.result not in ("pass", "waived", "pending") else ()
    return ExplainedGate(
        **said.model_dump(),
        blocks=gate.blocks if gate else True,
        waivable_by=[" or ".join(sorted(groups)) for groups in waivers],
        never_skip=gate.never_skipped if gate else False,
    )


def _named(groups: Iterable[str]) -> list[str]:
    return sorted(f"group:{group}" for group in groups)


def _parts(policies: InForce, name: Literal["windows", "freezes"]) -> list[dict[str, str]]:
    """The windows or freezes, as the policies write them, each with the policy's name."""
    return [
        {"policy": ref.name, **part.model_dump(by_alias=True)}
        for ref, policy in policies
        for part in getattr(policy.spec.schedule, name)
    ]


def _would(found: Outlook) -> Would:
    return Would(verdict=str(found.verdict) if found.verdict else None, phase=found.phase, reason=found.reason)


def _seconds(delta: timedelta | None) -> float | None:
    return None if delta is None else delta.total_seconds()
