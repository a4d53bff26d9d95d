"""What the client returns. Unknown fields are kept out, not refused: a newer server may say more."""

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from contracts.model import Artifact

T = TypeVar("T")


class Result(BaseModel):
    """A read-only answer. `model_dump(mode="json")` gives its JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Page(Result, Generic[T]):
    items: list[T]
    next: str | int | None = None


class Services(Result):
    """Where the services listen (`/.well-known/hallmark.json`)."""

    registry: str
    approval: str | None = None
    audit: str | None = None
    notifier: str | None = None
    console: str | None = None
    version: str | None = None


class Model(Result):
    """`model` is the name it was registered under, its identity for ever; `name` the one it has now."""

    workspace: str
    model: str
    name: str | None = None
    description: str = ""
    owner: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    versions: int = 0
    registered_by: str | None = None
    registered_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    stages: dict[str, list[int]] = Field(default_factory=dict)
    aliases: dict[str, int] = Field(default_factory=dict)


class Version(Result):
    """One registered version. `content` is everything fixed at registration; `digest` covers all of it. `description`
    is what was said of it last.

    `status` is pending, ready, quarantined, rejected or revoked; `inspection` is what was found in the artifact, `tags`
    are the present ones; `revocation` says by whom, why and when.
    """

    workspace: str
    model: str
    version: int
    digest: str
    stage: str
    status: str = "ready"
    status_detail: str | None = None
    revocation: dict[str, Any] | None = None
    inspection: dict[str, Any] | None = None
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    aliases: list[str] = Field(default_factory=list)
    content: dict[str, Any]
    registered_by: str
    registered_at: datetime
    deleted_at: datetime | None = None

    @property
    def artifact(self) -> Artifact:
        return Artifact.model_validate(self.content["artifact"])

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.content.get("metrics", {}))

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.content.get("parameters", {}))


class Criterion(Result):
    """One gate and what it said."""

    gate: str
    expression: str = ""
    result: str
    message: str = ""


class Transition(Result):
    """A wish to move a version, and what became of it: open, applied, refused or expired.

    `fields` is what was given beside the reason, for the policies.
    """

    transition_id: str
    kind: str
    workspace: str
    model: str
    version: int
    from_stage: str
    to_stage: str
    status: str
    requested_by: str
    reason: str
    fields: dict[str, str] = Field(default_factory=dict)
    code: str | None = None
    detail: str | None = None
    criteria: list[Criterion] = Field(default_factory=list)
    approved_by: list[Any] = Field(default_factory=list)
    decision_id: str | None = None
    requested_at: datetime | None = None
    closed_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def open(self) -> bool:
        return self.status == "open"

    @property
    def applied(self) -> bool:
        return self.status == "applied"


class PinFile(Result):
    """One file of a pinned artifact; `url` is good for about an hour."""

    path: str
    digest: str
    size: int
    url: str | None = None


class Pin(Result):
    """What a serving system should run: the version that `target` names, its bytes by digest, where to get them.

    `pin` is the registry's signature over it (`hallmark.pins`); `also` are the other versions in the same stage.
    `sequence` grows with every change of the target; it begins anew where the `epoch` is a higher one.
    """

    workspace: str
    model: str
    version: int
    stage: str
    digest: str
    artifact: Artifact
    download_url: str | None = None
    files: tuple[PinFile, ...] = ()
    target: str | None = None
    pin: str | None = None
    status: str = "ready"
    also: tuple[int, ...] = ()
    warning: str | None = None
    sequence: int = 0
    epoch: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)

    @property
    def age(self) -> tuple[int, int]:
        """Of two pins of a target the newer one has the greater."""
        return self.epoch, self.sequence


class TimelineItem(Result):
    index: int
    at: datetime
    type: str
    subject: str
    actor: str | None = None
    summary: str = ""
    correlationid: str | None = None


class SavedSearch(Result):
    """A saved search of the audit log. `every` is in seconds; `next` is the first entry that it has not looked at;
    `ran_at`, `matches` and `outcome` (allowed, denied or failed) are of the last run."""

    owner: str
    name: str
    filters: dict[str, Any] = Field(default_factory=dict)
    q: str | None = None
    every: int | None = None
    alert_above: int | None = None
    next: int = 0
    due_at: datetime | None = None
    ran_at: datetime | None = None
    matches: int | None = None
    outcome: str | None = None


class SearchRun(Result):
    """Of the entries from `first` up to but without `until` so many match; `indexes` are the first of them."""

    first: int
    until: int
    matches: int
    indexes: list[int] = Field(default_factory=list)
    alerted: bool = False


class Tenure(Result):
    """Who held a stage at one moment. `version` is None when nobody did. `revoked`: since when, by whom and why it must
    not be used. `deleted`: the model was deleted at that moment, since when, by whom and why."""

    version: int | None = None
    stage: str = "Production"
    since: datetime | None = None
    until: datetime | None = None
    digest: str | None = None
    requested_by: str | None = None
    approved_by: list[Any] = Field(default_factory=list)
    reason: str | None = None
    criteria: list[Criterion] = Field(default_factory=list)
    index: int | None = None
    revoked: dict[str, Any] | None = None
    deleted: dict[str, Any] | None = None


class Held(Result):
    """What was in `target`, a stage or an `@alias`, and who let it in; `index` is the entry of the log that says so."""

    target: str
    version: int
    since: datetime
    requested_by: str
    reason: str
    approved_by: list[Any] = Field(default_factory=list)
    index: int


class Change(Result):
    """A version that is somewhere else than before, or an `alias` that points elsewhere. None: there was nothing.

    `index` is the entry of the log that made it as it is.
    """

    version: int | None = None
    alias: str | None = None
    before: Held | None = None
    after: Held | None = None
    index: int | None = None


class Entered(Result):
    """An entry into a gated stage or of a protected alias, or an attempt, and whose eyes saw it; `finding` says what is
    wrong with that: violation, refused, undecided, unapproved, unverified, unknown-author, or good."""

    index: int
    at: datetime
    model: str | None = None
    version: int | None = None
    target: str | None = None
    finding: str
    problem: str | None = None
    requested_by: str | None = None
    approvers: list[str] = Field(default_factory=list)
    waived_by: list[str] = Field(default_factory=list)
    broken_by: str | None = None


class Subscription(Result):
    subscription_id: str
    channel: str
    address: str
    types: list[str] = Field(default_factory=list)
    workspace: str | None = None
    model: str | None = None
    owner: str | None = None
    secret: str | None = None
    format: str = "cloudevents"
    audience: list[str] = Field(default_factory=list)
    retry_seconds: list[float] | None = None
    order: str = "fifo"
    stages: list[str] = Field(default_factory=list)
    cel: str | None = None
    status: str | None = None
    reason: str | None = None
    filter_errors: dict[str, Any] | None = None
    bundling: dict[str, Any] | None = None
    confirmation: dict[str, Any] | None = None


class Silence(Result):
    """`state` is pending, active or expired. Without an `owner` it is everybody's."""

    silence_id: str
    types: list[str] = Field(default_factory=list)
    model: str | None = None
    stages: list[str] = Field(default_factory=list)
    cel: str | None = None
    owner: str | None = None
    starts_at: datetime
    ends_at: datetime
    author: str
    comment: str
    state: str


class Inhibition(Result):
    inhibition_id: str
    source_types: list[str]
    cel: str | None = None
    until_types: list[str] = Field(default_factory=list)
    seconds: int
    target_types: list[str]
    equal: list[str]
    author: str
    comment: str


class Template(Result):
    workspace: str
    channel: str
    types: str
    revision: int
    parts: dict[str, str]
    published_by: str
    published_at: datetime
    current: bool


class RenderedTemplate(Result):
    event_id: str
    event_type: str
    parts: dict[str, str]


class PastEvent(Result):
    event_id: str
    type: str
    subject: str
    time: datetime
    headline: str


class FilterPreview(Result):
    """Of `looked_at` events, back to `since`, `matched` would have been delivered; `newest` are some of them. `failed`:
    for so many the expression had no answer."""

    looked_at: int
    matched: int
    failed: int
    error: str | None = None
    since: datetime | None = None
    newest: list[PastEvent] = Field(default_factory=list)


class Rotation(Result):
    """The new secret of a webhook; messages are signed with the former one too until `former_until`."""

    subscription_id: str
    secret: str
    former_until: datetime | None


class WebhookKey(Result):
    """A public key (`whpk_...`); `state` is waiting, active, retired or revoked."""

    kid: str
    key: str
    state: str


class WebhookKeys(Result):
    keys: list[WebhookKey]


class Remark(Result):
    """Something appended to a version: `kind` is evaluation, note or scan."""

    sequence: int
    kind: str
    data: dict[str, Any]
    by: str
    at: datetime


class Alias(Result):
    workspace: str
    model: str
    alias: str
    version: int
    sequence: int
    set_by: str
    set_at: datetime


class AliasMove(Result):
    """`version` is None where the alias was removed."""

    alias: str
    version: int | None = None
    previous: int | None = None
    by: str
    reason: str
    at: datetime
    sequence: int


class FoundModel(Result):
    workspace: str
    model: str
    name: str
    description: str = ""
    owner: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    aliases: dict[str, int] | list[Any] = Field(default_factory=dict)
    versions: int = 0


class FoundVersion(Result):
    workspace: str
    model: str
    name: str
    version: int
    stage: str
    status: str
    digest: str
    aliases: list[str] = Field(default_factory=list)
    metrics: dict[str, float] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)


class Workspace(Result):
    """The rules of a workspace. `configured_at` is None while it has none of its own."""

    workspace: str
    lifecycle: dict[str, Any]
    naming: str | None = None
    naming_message: str = ""
    protected_aliases: list[str] = Field(default_factory=list)
    configured_by: str | None = None
    configured_at: datetime | None = None


class ServingStatus(Result):
    """`targets`: each with what it is (`desired`) and which server runs what (`actual`); either may be `revoked`."""

    workspace: str
    model: str
    in_step: bool
    targets: list[dict[str, Any]] = Field(default_factory=list)


class Rollout(Result):
    """So many of the servers that report run the `version` of the target; `reached`: enough of them."""

    target: str
    version: int | None
    servers: int
    in_step: int
    reached: bool


class Use(Result):
    version: int
    principal: str
    how: str
    count: int
    first_at: datetime | None = None
    last_at: datetime | None = None


class StaleVersion(Result):
    """`serves` says as what it stands in the way of being archived; `servers` are those that say they run it."""

    model: str
    version: int
    stage: str
    reason: str
    last_used_at: datetime | None = None
    serves: str | None = None
    status: str = "ready"
    servers: list[str] = Field(default_factory=list)
    revocation: dict[str, Any] | None = None


class Identity(Result):
    """Whom a pseudonym stands for. `name` is a subject (`person`), or an address that the `accounts` have.

    `commitment` is the SHA-256 of the salt and the canonical JSON of issuer and name; `as_announced`: the log says the
    same, so the row is what it was; None: it does not say yet.
    """

    pseudonym: str
    name: str
    issuer: str
    person: bool
    addresses: list[str]
    accounts: list[str]
    first_seen: datetime
    last_seen: datetime
    salt: str
    commitment: str
    as_announced: bool | None


class Erased(Result):
    """`also`: pseudonyms of addresses that went too; `kept`: of those that somebody else has as well."""

    pseudonym: str
    also: list[str]
    kept: list[str]
