"""The parts of a policy document (`kind: PromotionPolicy`), each strict about its fields."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from contracts.payload import Key, Line, Payload, StageName, Target, Text
from policy.expressions import MAX_EXPRESSION
from policy.gates import GateError, check_pattern, compiled
from policy.schedule import BusinessHours, Duration, Schedule

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=MAX_EXPRESSION, pattern=r"^[^\x00]*$")]
Group = Annotated[str, StringConstraints(pattern=r"^group:[\x21-\x7e]{1,200}$")]
Groups = Annotated[tuple[Group, ...], Field(min_length=1, max_length=20)]
# Who is told: people (a group), one person, or a name that subscriptions know (a channel, a pager).
Recipient = Annotated[str, StringConstraints(pattern=r"^(?:group|user|channel|service):[\x21-\x7e]{1,200}$")]
Recipients = Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=20)]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=r"^[^\x00-\x1f\x7f]+$")]
Globs = Annotated[tuple[Glob, ...], Field(min_length=1, max_length=50)]
Excluded = Literal["requester", "version.author", "version.committers", "policy.last_editor"]
ALWAYS_EXCLUDED = frozenset({"requester", "version.author"})
Missing = Literal["pass", "fail", "inconclusive"]
Timeout = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}(?:ms|[smhd])$")]
Level = Literal["block", "warn"]
GATE_KINDS = ("cel", "webhook", "attestation")


def _checked(expression: str) -> str:
    try:
        compiled(expression)
    except GateError as error:
        raise ValueError(str(error)) from error
    return expression


def _condition(expression: str | None) -> str | None:
    if expression is not None and compiled(_checked(expression)).compares:
        raise ValueError("may not look at 'baseline'")
    return expression


def _unique(value: tuple[Any, ...]) -> tuple[Any, ...]:
    ids = [item.id for item in value]
    doubles = sorted({i for i in ids if ids.count(i) > 1})
    if doubles:
        raise ValueError(f"ids must differ: {', '.join(doubles)}")
    return value


class TransitionMatch(Payload):
    """Which transitions a policy is about. Without `kind` it is about promotions; a rollback must be named, a protected
    alias too (`{kind: alias, to: "@champion"}`), and so must changes of policies (`{kind: policy}`)."""

    from_stage: Annotated[StageName | None, Field(alias="from")] = None
    to: Target | None = None
    kind: Literal["promotion", "rollback", "alias", "policy", "any"] = "promotion"


class Match(Payload):
    """All that is given must hold. `models` are glob patterns of names (of policies, where `kind` is policy); `tags`
    are tags that the model must have."""

    transition: TransitionMatch
    workspaces: Globs = ()
    models: Globs = ()
    tags: Annotated[dict[Key, Text], Field(max_length=50)] = Field(default_factory=dict)
    when: Expression | None = None

    _compiles = field_validator("when")(_condition)


class FieldSpec(Payload):
    required: bool = False
    pattern: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    type: Literal["text", "model_version", "url"] = "text"

    @field_validator("pattern")
    @classmethod
    def _is_cel(cls, value: str | None) -> str | None:
        """RE2, by way of CEL: its time is linear in the text."""
        if value is not None:
            try:
                check_pattern(value)
            except GateError as error:
                raise ValueError(str(error)) from error
        return value


class ReasonSpec(Payload):
    required: bool = False
    min_length: Annotated[int, Field(ge=1, le=2_000)] = 1


class RequestSpec(Payload):
    reason: ReasonSpec = ReasonSpec()
    fields: Annotated[dict[Key, FieldSpec], Field(max_length=50)] = Field(default_factory=dict)
    expires_after: Duration | None = None
    evidence: Annotated[tuple[Key, ...], Field(max_length=50)] = ()
    binds: Literal["all"] | tuple[Literal["version.digest", "policy.digest", "gates.inputs_digest"], ...] = "all"
    on_bound_change: Literal["void_approvals"] = "void_approvals"

    @field_validator("binds")
    @classmethod
    def _all(cls, value: Any) -> Any:
        if value != "all" and set(value) != {"version.digest", "policy.digest", "gates.inputs_digest"}:
            raise ValueError("votes always bind to version.digest, policy.digest and gates.inputs_digest")
        return value


class WebhookSpec(Payload):
    """The service posts the request to `url`, signed (Standard Webhooks) with that secret of its settings."""

    url: Annotated[str, StringConstraints(max_length=1_000, pattern=r"^https?://[\x21-\x7e]+$")]
    secret: Name

    @field_validator("url")
    @classmethod
    def _bare(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            known = parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError as error:
            raise ValueError(f"no address: {error}") from error
        if not known:
            raise ValueError("it names no host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("no user and no password: everybody reads policies; the call is signed with 'secret'")
        return value


class AttestationSpec(Payload):
    """Somebody of `from` (services, by their subject, or groups) posts what a check found, as evidence of this type."""

    type: Key
    posters: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^(?:group|user):[\x21-\x7e]{1,200}$")], ...],
        Field(alias="from", min_length=1, max_length=20),
    ]


class GateDefaults(Payload):
    """`timeout` is for webhooks and attestations only. Without `asks`, the groups of the policy's rules are asked about
    what is inconclusive, unless the gate says who may waive it."""

    level: Level = "block"
    on_error: Literal["fail", "inconclusive"] = "fail"
    on_no_baseline: Missing = "inconclusive"
    timeout: Timeout = "24h"
    asks: Annotated[tuple[Group, ...], Field(max_length=20)] = ()


class GateSpec(Payload):
    """One of `cel`, `webhook` and `attestation`. `asks`: who may let an inconclusive result pass; `waivable_by`: who
    may let any other pass. What is left out is taken from `gate_defaults`. An attestation counts as passed only with a
    file, and never when it is the requester's or the version author's own."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [kind]} for kind in GATE_KINDS]})

    id: Name
    cel: Expression | None = None
    webhook: WebhookSpec | None = None
    attestation: AttestationSpec | None = None
    message: Line | None = None
    level: Level | None = None
    on_error: Literal["fail", "inconclusive"] | None = None
    on_no_baseline: Missing | None = None
    timeout: Timeout | None = None
    asks: Annotated[tuple[Group, ...], Field(max_length=20)] | None = None
    waivable_by: Annotated[tuple[Group, ...], Field(max_length=20)] = ()
    never_skip: bool = False

    @field_validator("id")
    @classmethod
    def _free(cls, value: str) -> str:
        if value == "when":
            raise ValueError("'when' is the policy's own condition; call the gate otherwise")
        return value

    @field_validator("cel")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return None if value is None else _checked(value)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.cel, self.webhook, self.attestation)) != 1:
            raise ValueError("needs exactly one of cel, webhook and attestation")
        if self.never_skip and (self.waivable_by or self.asks):
            raise ValueError("a gate that is never skipped cannot be waived")
        if self.never_skip and self.level == "warn":
            raise ValueError("a gate that is never skipped must block")
        if self.cel is not None and self.timeout is not None:
            raise ValueError("timeout is for webhooks and attestations; an expression's cost is bounded without one")
        return self


class UnsafeArtifact(Payload):
    """Who may let a quarantined version pass (the registry's inspection found something unsafe in it)."""

    waivable_by: Groups


class RuleSpec(Payload):
    id: Name
    meaning: Line
    groups: Annotated[Groups, Field(alias="from")]
    count: Annotated[int, Field(ge=1, le=20)] = 1
    when: Expression | None = None

    _compiles = field_validator("when")(_condition)


class SeparationOfDuties(Payload):
    """Stated by the author, and cannot be less than the requester and the version's author."""

    exclude: tuple[Excluded, ...] = ("requester", "version.author")
    one_person_counts_for: Literal["one_rule"] = "one_rule"

    @field_validator("exclude")
    @classmethod
    def _both(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) >= ALWAYS_EXCLUDED:
            raise ValueError("must name requester and version.author: four eyes cannot be switched off")
        return value


class DenySpec(Payload):
    """By default one person of any rule's groups is enough."""

    count: Annotated[int, Field(ge=1, le=20)] = 1
    groups: Annotated[tuple[Group, ...], Field(alias="from", max_length=20)] = ()
    effect: Literal["close"] = "close"


class SignatureSpec(Payload):
    """How fresh the voter's authentication must be, and by which methods (the token's `amr`)."""

    reauthenticate_within: Duration | None = None
    methods: Annotated[tuple[Line, ...], Field(max_length=20)] = ()


class DelegationSpec(Payload):
    allowed: bool = False
    max: Duration = "14d"
    depth: Annotated[int, Field(ge=1, le=1)] = 1


class Approvals(Payload):
    """`valid_for`: how long a vote counts; after that it is void and people are asked again."""

    rules: Annotated[tuple[RuleSpec, ...], Field(max_length=20)] = ()
    separation_of_duties: SeparationOfDuties = SeparationOfDuties()
    deny: DenySpec = DenySpec()
    signature: SignatureSpec = SignatureSpec()
    delegation: DelegationSpec = DelegationSpec()
    withdraw_until: Literal["executed"] = "executed"
    valid_for: Duration | None = None

    _ids = field_validator("rules")(_unique)


class StepSpec(Payload):
    """One rung of the escalation: `after` the opening, those who are still asked are reminded, others told, or others
    added to those who may vote for a rule."""

    after: Duration
    business_hours: bool = False
    do: Literal["remind", "notify", "add_approvers"]
    rule: Name | None = None
    to: Annotated[tuple[Recipient, ...], Field(max_length=20)] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.do != "remind" and not self.to:
            raise ValueError(f"{self.do} needs 'to'")
        if (self.do == "add_approvers") != (self.rule is not None):
            raise ValueError("add_approvers, and nothing else, needs 'rule'")
        if self.do == "add_approvers" and not all(one.startswith("group:") for one in self.to):
            raise ValueError("only groups can be added as approvers")
        return self


class Validity(Payload):
    reapprove_every: Duration
    on_lapse: Literal["alert"] = "alert"


class ReviewSpec(Payload):
    groups: Annotated[Groups, Field(alias="from")]
    count: Annotated[int, Field(ge=1, le=20)] = 1
    within: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}(?:[smhd]| business days?)$")] = (
        "2 business days"
    )
    on_overdue: tuple[Literal["page", "freeze_model"], ...] = ("page", "freeze_model")


class BreakGlassSpec(Payload):
    """`skips` never skips a gate with `never_skip`. `grants_for`: how long the emergency lasts."""

    allowed: Groups
    skips: Annotated[tuple[Literal["approvals", "schedule", "gates"], ...], Field(min_length=1)] = (
        "approvals",
        "schedule",
    )
    reason: ReasonSpec = ReasonSpec()
    reauthenticate: bool = True
    reauthenticate_within: Duration = "5m"
    page: Recipients
    grants_for: Duration = "4h"
    review: ReviewSpec


class Spec(Payload):
    match: Match
    request: RequestSpec = RequestSpec()
    gates: Annotated[tuple[GateSpec, ...], Field(max_length=30)] = ()
    gate_defaults: GateDefaults = GateDefaults()
    unsafe_artifact: UnsafeArtifact | None = None
    approvals: Approvals = Approvals()
    schedule: Schedule = Schedule()
    business_hours: BusinessHours = BusinessHours()
    escalation: Annotated[tuple[StepSpec, ...], Field(max_length=20)] = ()
    validity: Validity | None = None
    break_glass: BreakGlassSpec | None = None

    _ids = field_validator("gates")(_unique)


class Metadata(Payload):
    """`owner`: for people to read; it gives no right."""

    name: Name
    owner: Line | None = None

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value == "registry":
            raise ValueError("'registry' is what the registry's own gates are called by; choose another name")
        return value


class PolicyDocument(Payload):
    api_version: Annotated[Literal["registry.dev/v1"], Field(alias="apiVersion")] = "registry.dev/v1"
    kind: Literal["PromotionPolicy"]
    metadata: Metadata
    spec: Spec
