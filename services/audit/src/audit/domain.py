"""What a logged record says: its event, what is wrong with it, whom it is about, and what it did to a stage. Pure."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from contracts import approval, audit, notifier, registry
from contracts.envelope import Envelope, EnvelopeError
from contracts.lifecycle import TransitionKind, parse_subject, stream_of
from contracts.payload import Message
from contracts.topics import APPROVAL_EVENTS, AUDIT_EVENTS, NOTIFIER_EVENTS, REGISTRY_COMMANDS, REGISTRY_EVENTS

LOGGED = (REGISTRY_COMMANDS, REGISTRY_EVENTS, APPROVAL_EVENTS, NOTIFIER_EVENTS, AUDIT_EVENTS)
_KINDS: dict[str, dict[str, type[Message]]] = {
    topic.name: {kind.TYPE: kind for kind in kinds}
    for topic, kinds in (
        (REGISTRY_COMMANDS, registry.COMMANDS),
        (REGISTRY_EVENTS, registry.EVENTS),
        (APPROVAL_EVENTS, approval.EVENTS),
        (NOTIFIER_EVENTS, notifier.EVENTS),
        (AUDIT_EVENTS, audit.EVENTS),
    )
}
MAX_PROBLEM = 2_000
MAX_VERSION = 2**31 - 1
REGISTRATION = "registration"
NOT_VERIFIED = "decision-not-verified"
VIEW_FAILED = "view-failed"
LEAF_LOST = "leaf-lost"
ID_USED_TWICE = "id-used-twice"


@dataclass(frozen=True)
class Flaw:
    """Why a record is not a good event. `code` is stable."""

    code: str
    detail: str


@dataclass(frozen=True)
class Reading:
    """What could be read of a record. `message` is there when the record is an event; `flaw` may still doubt it."""

    envelope: Envelope | None = None
    message: Message | None = None
    flaw: Flaw | None = None


def read(topic: str, key: bytes | None, headers: tuple[tuple[str, bytes | None], ...], value: bytes | None) -> Reading:
    """Reads a record as an event of its topic. Never raises: what is wrong is in `flaw`."""
    envelope: Envelope | None = None
    try:
        envelope = Envelope.from_kafka(key, headers, value)
        flaw = _misplaced(topic, envelope)
        if flaw is None:
            message = envelope.payload(_KINDS[topic][envelope.type])
            flaw = _astray(message, envelope.key)
            if flaw is None:
                return Reading(envelope, message=message)
    except EnvelopeError as error:
        flaw = Flaw("bad-event", clean(str(error)))
    except (ValueError, OverflowError, RecursionError) as error:
        flaw = Flaw("bad-event", clean(repr(error)))
    return Reading(envelope, flaw=flaw)


def content_of(envelope: Envelope) -> bytes:
    """A digest of all that an event says, 32 bytes: that of a record that was published again is the same."""
    parts = [envelope.key.encode(), envelope.value or b""]
    for name, value in envelope.headers():
        parts += [name.encode(), value]
    return sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()


def _misplaced(topic: str, envelope: Envelope) -> Flaw | None:
    if envelope.type not in _KINDS[topic]:
        return Flaw("unknown-type", clean(f"{envelope.type} is no type of {topic}"))
    if topic != REGISTRY_COMMANDS.name and envelope.sequence is None:
        return Flaw("sequence-missing", "an event needs the attribute 'sequence'")
    return None


def _astray(message: Message, stream: str) -> Flaw | None:
    """Events of the registry are in the order of what they are about only on its own stream."""
    if not isinstance(message, registry.EVENTS) or isinstance(message, registry.CommandRejected):
        return None
    if isinstance(message, registry.WorkspaceConfigured):
        own = f"workspace:{message.workspace}"
    else:
        own = stream_of(message.workspace, message.model)
    if stream != own:
        return Flaw("astray", clean(f"an event of {own} came on the stream {stream}"))
    if isinstance(message, registry.StageChanged) and message.to_stage.startswith("@"):
        return Flaw("astray", clean(f"{message.to_stage} is an alias, and no stage that a version can enter"))
    return None


def clean(text: str) -> str:
    """Text that PostgreSQL can store."""
    return text.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")[:MAX_PROBLEM]


@dataclass(frozen=True)
class About:
    """The model a record is about, as far as it names one."""

    workspace: str | None = None
    model: str | None = None
    version: int | None = None


# Of no workspace, whatever their subject says: only auditors of everything read of them.
_OF_NONE = (
    approval.PolicyPublished,
    approval.PolicyProposed,
    approval.DelegationGranted,
    approval.DelegationEnded,
    approval.MembershipChanged,
    approval.AccountLinked,
    approval.AccountUnlinked,
    notifier.SubscriptionCreated,
    notifier.SilenceCreated,
    audit.HoldPlaced,
)


def about(reading: Reading) -> About:
    message, envelope = reading.message, reading.envelope
    body = _body(message)
    workspace, model = getattr(body, "workspace", None), getattr(body, "model", None)
    # A subscription's workspace and model are patterns; a legal hold is not the business of everybody with the model.
    if workspace is not None and model is not None and not isinstance(message, _OF_NONE):
        return About(workspace, model, getattr(body, "version", None))
    if isinstance(message, registry.WorkspaceConfigured):
        return About(workspace)
    if envelope is None or not isinstance(message, approval.EVENTS) or isinstance(message, _OF_NONE):
        return About()
    if ":" in envelope.subject:  # of a policy: names of workspaces and models have none
        return About()
    try:
        place = About(*parse_subject(envelope.subject))
    except ValueError:
        return About()
    return place if (place.version or 0) <= MAX_VERSION else About()


def _body(message: Message | None) -> object:
    """What of a message names the model."""
    match message:
        case approval.RequestDecided():
            return message.decision
        case approval.RevocationOrdered():
            return message.revocation
    return message


Entering = registry.StageChanged | registry.AliasChanged | registry.VersionRegistered


def target_of(message: Entering) -> str:
    """The stage that the version enters, or `@alias`."""
    if isinstance(message, registry.AliasChanged):
        return f"@{message.alias}"
    return message.stage if isinstance(message, registry.VersionRegistered) else message.to_stage


_SIGNED = (registry.VersionRevoked, approval.RequestDecided, approval.RevocationOrdered)


def decided(message: Message | None) -> bool:
    """Whether the event says that it rests on a signed decision, whatever kind it calls itself.

    Who names approvers, gates or a policy says so. A version that makes room only names the decision of the other.
    """
    match message:
        case registry.StageChanged() | registry.AliasChanged():
            told = (message.decision, *message.approved_by, *message.criteria, message.policy)
        case registry.StageRefused():
            told = (message.decision, *message.criteria, message.policy)
        case _:
            return False
    own = getattr(message, "kind", None) is not TransitionKind.SUPERSEDED
    return any(part is not None for part in told) or (own and message.decision_id is not None)


def signed(message: Message | None) -> bool:
    """Whether the event carries, or says that it rests on, something that the approval service signed."""
    return decided(message) or isinstance(message, _SIGNED)


@dataclass(frozen=True)
class Move:
    """A version entered a stage: how the fold over stage intervals goes on."""

    workspace: str
    model: str
    version: int
    stage: str
    at: datetime
    kind: str
    requested_by: str
    reason: str
    digest: str
    artifact_digest: str
    approved_by: tuple[registry.Approval, ...] = ()
    criteria: tuple[registry.Criterion, ...] = ()
    policy: str | None = None
    decision_id: str | None = None
    transition_id: str | None = None
    superseded_by: int | None = None


def move_of(message: Message | None, at: datetime) -> Move | None:
    """The move an event makes, or None."""
    if isinstance(message, registry.VersionRegistered):
        return Move(
            workspace=message.workspace,
            model=message.model,
            version=message.version,
            stage=message.stage,
            at=at,
            kind=REGISTRATION,
            requested_by=message.registered_by,
            reason="",
            digest=message.digest,
            artifact_digest=message.content.artifact.digest,
        )
    if isinstance(message, registry.StageChanged):
        return Move(
            workspace=message.workspace,
            model=message.model,
            version=message.version,
            stage=message.to_stage,
            at=at,
            kind=TransitionKind(message.kind).value,
            requested_by=message.requested_by,
            reason=message.reason,
            digest=message.digest,
            artifact_digest=message.artifact_digest,
            approved_by=message.approved_by,
            criteria=message.criteria,
            policy=message.policy,
            decision_id=message.decision_id,
            transition_id=message.transition_id,
            superseded_by=message.superseded_by,
        )
    return None
