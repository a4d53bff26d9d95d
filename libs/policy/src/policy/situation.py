"""The situations that tests of policies describe (`policy.trials` shows how), with what they leave out filled in."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from contracts.approval import Answer, Choice, PolicyRef, Waiver
from contracts.canonical import canonical_json
from contracts.payload import Digest, Key, Line, Metrics, Payload, Scalar, StageName, Target, Text
from policy.case import Case
from policy.document import digest_of
from policy.evidence import verified
from policy.schedule import Duration

NOON = datetime(2026, 1, 14, 12, tzinfo=UTC)  # a Wednesday, in office hours of Europe
OPEN_FOR = timedelta(hours=12)
LIVES = timedelta(days=30)
REASON = "a reason that is long enough for any policy that wants to hear more than a word or two"
Group = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]
Groups = Annotated[tuple[Group, ...], Field(max_length=500)]


class Asked(Payload):
    """Defaults: a promotion from Staging to Production, asked for by `requester`."""

    kind: Literal["promotion", "rollback", "alias", "policy"] = "promotion"
    from_stage: Annotated[StageName, Field(alias="from")] = "Staging"
    to: Target = "Production"
    requested_by: Line = "requester"
    reason: Text = REASON
    fields: dict[Key, str] = Field(default_factory=dict)
    policy_editors: tuple[Line, ...] = ()


class OfModel(Payload):
    workspace: Line = "default"
    name: Line = "model"
    owner: Text = ""
    description: Text = ""
    tags: dict[Key, Text] = Field(default_factory=dict)


class Evaluated(Payload):
    dataset: Line = "test"
    metrics: Metrics
    evaluated_at: AwareDatetime | None = None


class Attested(Payload):
    """What somebody posted: evidence, and with a result an attestation. `digest`: null when it comes without a file."""

    type: Key
    result: Literal["pass", "fail", "inconclusive"] | None = "pass"
    posted_by: Line = "ci"
    groups: Groups = ()
    title: Line = "a check"
    digest: Digest | None = f"sha256:{'0' * 64}"
    service: bool = True
    at: AwareDatetime | None = None


class Version(Payload):
    """`evidence`: the types of what is attached. Everything else as in the registry."""

    version: Annotated[int, Field(ge=1)] | None = None
    metrics: Metrics = Field(default_factory=dict)
    parameters: dict[Key, Scalar] = Field(default_factory=dict)
    tags: dict[Key, Text] = Field(default_factory=dict)
    stages: tuple[Target, ...] | None = None
    artifact: dict[Key, Any] = Field(default_factory=dict)
    environment: dict[Key, Any] = Field(default_factory=dict)
    lineage: dict[Key, Any] = Field(default_factory=dict)
    signature: dict[Key, Any] = Field(default_factory=dict)
    owner: Line | None = None
    notes: Text = ""
    registered_by: Line = "author"
    registered_at: AwareDatetime | None = None
    trained_at: AwareDatetime | None = None
    training_seconds: float | None = None
    evaluations: tuple[Evaluated, ...] = ()
    evidence: tuple[Key, ...] = ()
    attestations: tuple[Attested, ...] = ()
    unsafe: bool = False
    revoked: bool = False

    def frozen(self, number: int, stages: tuple[str, ...], at: datetime, requester: str) -> dict[str, Any]:
        """The version as gates see it. Its parts are dated half a day before `at`, if they bear no date."""
        then = (at - OPEN_FOR).isoformat()
        given = self.model_dump(mode="json", exclude={"evidence", "attestations", "evaluations"})
        evaluations = [
            {
                **one.model_dump(mode="json"),
                "dataset": {"name": one.dataset},
                "evaluated_at": _or(one.evaluated_at, then),
            }
            for one in self.evaluations
        ]
        attached = [
            {**one.model_dump(mode="json"), "at": _or(one.at, then)}
            for one in (*(Attested(type=kind, result=None) for kind in self.evidence), *self.attestations)
        ]
        for one in attached:
            one["verified"] = verified(one, self.registered_by, requester)
        digest = digest_of({"version": self.version or number})
        return {
            **given,
            "version": self.version or number,
            "digest": digest,
            "artifact": {"digest": digest, "size": 1, "filename": "model.onnx", **self.artifact},
            "stages": list(stages if self.stages is None else self.stages),
            "registered_at": _or(self.registered_at, then),
            "evaluations": evaluations,
            "evaluated_at": max((one["evaluated_at"] for one in evaluations), key=datetime.fromisoformat, default=None),
            "evidence": {one["type"]: one for one in attached if one["digest"]},
            "attestations": [one for one in attached if one["result"] is not None],
        }


class Act(Payload):
    """Something a person does. `signed_in`: how long before. `refused`: the code with which it must be refused."""

    by: Line
    groups: Groups = ()
    at: AwareDatetime | None = None
    method: Line | None = None
    signed_in: Duration | None = None
    person: bool = True
    email: Line | None = None
    refused: Line | None = None


class Cast(Act):
    """A vote. With `on_behalf_of`, `groups` are those of whom it is for."""

    choice: Choice = Choice.APPROVE
    comment: Text | None = None
    on_behalf_of: Line | None = None
    rule: Line | None = None


class Waived(Payload):
    gate: Line
    by: Line
    groups: Groups = ()
    reason: Annotated[Text, Field(min_length=1)] = "it is known, and no harm"
    at: AwareDatetime | None = None
    method: Line = "token"


class Broken(Act):
    reason: Text = REASON


class Situation(Payload):
    """`at`: when the case is judged. `answers`: what webhooks said, by gate. `frozen`: an overdue review holds the
    model."""

    at: AwareDatetime = NOON
    opened_at: AwareDatetime | None = None
    request: Asked = Asked()
    model: OfModel = OfModel()
    candidate: Version = Version()
    baseline: Version | None = None
    votes: tuple[Cast, ...] = ()
    waivers: tuple[Waived, ...] = ()
    answers: dict[Key, Answer] = Field(default_factory=dict)
    break_glass: Broken | None = None
    frozen: bool = False

    def inputs(self) -> dict[str, Any]:
        """What a request in this situation is frozen with."""
        asked, about_policy = self.request, self.request.kind == "policy"
        place, by = {"workspace": "*"} if about_policy else {}, asked.requested_by
        before = None if about_policy else self.baseline
        return {
            "candidate": None if about_policy else self.candidate.frozen(2, (asked.from_stage,), self.at, by),
            "baseline": before and before.frozen(1, (asked.to,), self.at, by),
            "model": {**self.model.model_dump(mode="json"), **place},
            "request": {
                **asked.model_dump(mode="json", exclude={"from_stage"}),
                "model": self.model.name,
                "from": asked.from_stage,
                "transition_id": "t-1",
                "change_class": asked.fields.get("change_class", "normal"),
                "expires_at": (self.at + LIVES).isoformat(),
            },
        }

    def case(self, inputs: dict[str, Any]) -> Case:
        """The request before anybody has voted."""
        opened, digest = self.opened_at or self.at - OPEN_FOR, digest_of(inputs)
        waivers = tuple(
            Waiver(
                gate=one.gate,
                by=one.by,
                groups=one.groups,
                reason=one.reason,
                at=one.at or self.at,
                auth_method=one.method,
                request_digest=digest,
            )
            for one in self.waivers
        )
        return Case(self.request.requested_by, digest, inputs, opened_at=opened, bound_at=opened, waivers=waivers)


class Expected(Payload):
    """At least one of them. `gates`: by id, without the policy's name where only one policy has such a gate.
    `reason`: a regular expression that is to be found in it."""

    verdict: Literal["approved", "rejected", "expired", "waiting"] | None = None
    phase: Literal["gates", "people", "settling", "schedule", "frozen", "decided"] | None = None
    gates: dict[Key, Literal["pass", "fail", "inconclusive", "error", "pending", "waived"]] = Field(
        default_factory=dict
    )
    policies: tuple[Line, ...] | None = None
    escalated: tuple[Literal["remind", "notify", "add_approvers"], ...] | None = None
    reason: Annotated[str, Field(min_length=1, max_length=500)] | None = None

    @field_validator("reason")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _something(self) -> Self:
        others = (self.verdict, self.phase, self.policies, self.escalated, self.reason)
        if not self.gates and all(value is None for value in others):
            raise ValueError("say what is expected: verdict, phase, gates, policies, escalated or reason")
        return self


class TrialCase(Situation):
    name: Line
    expect: Expected


class TrialFile(Payload):
    """`given` holds for every case; what a case says itself goes before."""

    policies: Annotated[tuple[Line, ...], Field(min_length=1, max_length=100)]
    given: Situation = Situation()
    cases: Annotated[tuple[TrialCase, ...], Field(min_length=1, max_length=1_000)]

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = [case.name for case in self.cases]
        if doubles := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two cases are called {doubles[0]!r}")
        return self

    def situation(self, case: TrialCase) -> Situation:
        """The case with what is given for all."""
        own = case.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"name", "expect"})
        shared = self.given.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return Situation.model_validate_json(canonical_json(_over(shared, own)), strict=True)


def _over(under: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    both = {name: _over(under[name], own[name]) for name in own if _dicts(under.get(name), own[name])}
    return {**under, **own, **both}


def _dicts(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _or(moment: datetime | None, otherwise: str) -> str:
    return otherwise if moment is None else moment.isoformat()


def refs(policies: Any) -> list[tuple[PolicyRef, Any]]:
    """Policies as if they were in force in their first revision."""
    return [(PolicyRef(name=policy.name, revision=1, digest=policy.digest), policy) for policy in policies]
