"""What the approval service answers: requests, policies, people, evidence."""

from datetime import datetime
from typing import Any

from pydantic import AliasChoices, ConfigDict, Field

from hallmark.results import Criterion, Result

_ALIASED = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
ENDS = ("approved", "rejected", "expired", "cancelled")


# -- requests -----------------------------------------------------------------------------------------------------


class Rule(Result):
    """Who must approve, and how many have. `from` is a Python keyword, hence `voters`."""

    model_config = _ALIASED

    id: str
    voters: Any = Field(default=None, alias="from")
    count: int = 1
    meaning: str = ""
    have: int = 0


class You(Result):
    """Whether the caller may vote; if not, `code` and `detail` say why. `on_behalf_of`: for whom they may."""

    may_vote: bool
    code: str | None = None
    detail: str | None = None
    on_behalf_of: list[str] = Field(default_factory=list)
    voted: bool = False


class Request(Result):
    """A request for approval. `request_digest` is what votes bind to.

    `kind` is promotion, rollback, alias or policy. A change of a policy has the policy's name as `model`, its revision
    as `version` and its text as `document`. `status` is open, approved, rejected, expired or cancelled; `phase` and
    `waits_for` tell what an open one waits for. `past_votes`, `past_waivers` and `past_emergencies` count no more:
    each says `why`. `you` is there for one request, not in lists.
    """

    request_id: str
    kind: str
    workspace: str
    model: str
    version: int
    from_stage: str
    to_stage: str
    status: str
    phase: str | None = None
    waits_for: str = ""
    requested_by: str
    reason: str
    fields: dict[str, str] = Field(default_factory=dict)
    policies: list[Any] = Field(default_factory=list)
    gates: list[Criterion] = Field(default_factory=list)
    rules: list[Rule] = Field(default_factory=list)
    votes: list[dict[str, Any]] = Field(default_factory=list)
    past_votes: list[dict[str, Any]] = Field(default_factory=list)
    refusals: list[dict[str, Any]] = Field(default_factory=list)
    waivers: list[dict[str, Any]] = Field(default_factory=list)
    past_waivers: list[dict[str, Any]] = Field(default_factory=list)
    comments: list[dict[str, Any]] = Field(default_factory=list)
    escalations: list[dict[str, Any]] = Field(default_factory=list)
    emergency: dict[str, Any] | None = None
    past_emergencies: list[dict[str, Any]] = Field(default_factory=list)
    reviews: list[dict[str, Any]] = Field(default_factory=list)
    inputs: dict[str, Any] = Field(default_factory=dict)
    inputs_digest: str | None = None
    request_digest: str | None = None
    decision: dict[str, Any] | None = None
    jws: str | None = None
    document: str | None = None
    opened_at: datetime | None = None
    decided_at: datetime | None = None
    expires_at: datetime | None = None
    you: You | None = None

    @property
    def open(self) -> bool:
        return self.status == "open"

    @property
    def gates_done(self) -> bool:
        """True once the gates were evaluated (a request is shown from the moment it opens)."""
        return not self.open or self.phase is not None or bool(self.gates)

    @property
    def about(self) -> str:
        """What it is about, in a few words."""
        if self.kind == "policy":
            return f"policy {self.model} revision {self.version}"
        return f"{self.model} version {self.version}"


# -- policies -----------------------------------------------------------------------------------------------------


class PolicyRevision(Result):
    """One immutable revision of a policy; `document` is its text."""

    name: str
    revision: int
    digest: str
    document: str
    published_by: str
    published_at: datetime


class PolicyChange(Result):
    """What became of a wish to publish. `published`: the revision is in force; else the request of `request_id` has to
    be approved first."""

    name: str
    revision: int
    digest: str
    published: bool
    request_id: str | None = None
    status: str


class Mistake(Result):
    """One thing wrong with a policy document. `line` counts from 1."""

    line: int
    field: str
    message: str


class PolicyCheck(Result):
    """Whether a document is a policy: `name` and `digest` if it is, else `errors`."""

    name: str | None = None
    digest: str | None = None
    errors: list[Mistake] = Field(default_factory=list)


class ExplainedGate(Criterion):
    """`waivable_by`: who may let this result pass; of each of these the same person must be."""

    blocks: bool = True
    waivable_by: list[str] = Field(default_factory=list)
    never_skip: bool = False


class ExplainedRule(Result):
    model_config = _ALIASED

    id: str
    voters: list[str] = Field(
        default_factory=list, validation_alias=AliasChoices("from", "groups"), serialization_alias="from"
    )
    count: int
    meaning: str


class Explanation(Result):
    """What the policies in force would ask of a request, and where it would stand now.

    `excluded`: who must not vote and why; `would`: {verdict, phase, reason}, without a verdict while it would wait.
    `methods`: None when any sign-in will do, empty when none does for all of the policies.
    """

    policies: list[dict[str, Any]] = Field(default_factory=list)
    mistakes: list[str] = Field(default_factory=list)
    missing_evidence: list[str] = Field(default_factory=list)
    gates: list[ExplainedGate] = Field(default_factory=list)
    rules: list[ExplainedRule] = Field(default_factory=list)
    excluded: list[dict[str, str]] = Field(default_factory=list)
    reauthenticate_within_seconds: float | None = None
    methods: list[str] | None = None
    deny: list[dict[str, Any]] = Field(default_factory=list)
    delegation_max_seconds: float | None = None
    valid_for_seconds: float | None = None
    escalation: list[dict[str, Any]] = Field(default_factory=list)
    windows: list[dict[str, str]] = Field(default_factory=list)
    freezes: list[dict[str, str]] = Field(default_factory=list)
    opens_at: datetime | None = None
    min_wait_seconds: float = 0.0
    expires_after_seconds: float | None = None
    emergency: dict[str, Any] | None = None
    would: dict[str, Any] = Field(default_factory=dict)


class Simulated(Result):
    """A past request: how it was decided, and how it would have been."""

    request_id: str
    workspace: str
    model: str
    version: int
    to_stage: str
    decided: str
    would: str
    reason: str = ""
    differs: bool


class Simulation(Result):
    looked_at: int
    applied_to: int
    differing: int
    items: list[Simulated] = Field(default_factory=list)


class Trial(Result):
    """How one case of a test of policies went; `case` is empty when the file itself cannot be used."""

    file: str
    line: int
    case: str
    passed: bool
    text: str


# -- people and evidence ------------------------------------------------------------------------------------------


class Delegation(Result):
    """From `starts` to `ends`, or until `ended_at`, `delegate` may vote where `delegator` may."""

    delegation_id: str
    delegator: str
    delegate: str
    starts: datetime
    ends: datetime
    reason: str = ""
    granted_at: datetime | None = None
    ended_at: datetime | None = None
    ended_by: str | None = None


class SlackCode(Result):
    """`say` is what to enter in Slack until `expires_at`."""

    code: str
    say: str
    expires_at: datetime


class Member(Result):
    """The groups somebody is known to be in; `told_by` the token or the caller that told of them last."""

    subject: str
    groups: list[str] = Field(default_factory=list)
    person: bool = True
    told_by: str | None = None
    at: datetime | None = None


class Evidence(Result):
    """A file (by its SHA-256) or a link that speaks for a version; with a `result`, what a check found."""

    evidence_id: str
    workspace: str
    model: str
    version: int
    type: str
    title: str
    digest: str | None = None
    size: int | None = None
    media_type: str | None = None
    url: str | None = None
    result: str | None = None
    detail: str = ""
    posted_by: str
    groups: list[str] = Field(default_factory=list)
    service: bool = False
    at: datetime


class Revocation(Result):
    """What was ordered and signed: nobody may use the version any more; its stage returns to `fallback`."""

    revocation_id: str
    workspace: str
    model: str
    version: int
    digest: str
    artifact_digest: str
    revoked_by: str
    reason: str
    fallback: int | None = None
    revoked_at: datetime


class RevocationOrder(Result):
    """`jws` is the service's signature over exactly this revocation."""

    revocation: Revocation
    jws: str
