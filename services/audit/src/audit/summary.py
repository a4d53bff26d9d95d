"""One sentence per event for people: who did what, why, on which evidence. Pure."""

from collections.abc import Iterable
from functools import singledispatch

from audit.domain import Reading, clean
from contracts import approval, notifier, registry
from contracts.lifecycle import TransitionKind
from contracts.payload import Message


def summarise(reading: Reading) -> str:
    """The sentence of a record, also of one that could not be read."""
    if reading.flaw is not None:
        return clean(f"A record that is no good event: {reading.flaw.detail} ({reading.flaw.code})")
    assert reading.message is not None
    text = _say(reading.message)
    if isinstance(reading.message, registry.COMMANDS):
        # The actor of a command is what its producer claims; the token that proves it is not in the log.
        actor = reading.envelope.actor if reading.envelope else None
        text = f"A command asks to {text}" + (f"; sent as {actor}" if actor else "")
    return clean(text)


@singledispatch
def _say(message: Message) -> str:
    return message.TYPE


@_say.register
def _(m: registry.RegisterModel) -> str:
    return f"register the model {m.model}"


@_say.register
def _(m: registry.RegisterVersion) -> str:
    return f"register a version of {m.model} with the artifact {m.content.artifact.digest[:19]}"


@_say.register
def _(m: registry.RequestTransition) -> str:
    return f"move {m.model} v{m.version} to {m.to_stage}: {m.reason}"


@_say.register
def _(m: registry.RollBack) -> str:
    return f"roll back {m.stage} of {m.model}{f' to v{m.to_version}' if m.to_version else ''}: {m.reason}"


@_say.register
def _(m: registry.ModelRegistered) -> str:
    return f"The model {m.model} was registered{f', owned by {m.owner}' if m.owner else ''}"


@_say.register
def _(m: registry.VersionRegistered) -> str:
    return f"{m.registered_by} registered {m.model} v{m.version} with the artifact {m.content.artifact.digest[:19]}"


@_say.register
def _(m: registry.StageRequested) -> str:
    verb = "roll back" if m.kind is TransitionKind.ROLLBACK else "move"
    return f"{m.requested_by} asked to {verb} {_place(m)}: {m.reason}"


@_say.register
def _(m: registry.StageChanged) -> str:
    if m.kind is TransitionKind.SUPERSEDED:
        by = f" by v{m.superseded_by}" if m.superseded_by else ""
        return f"{m.model} v{m.version} left {m.from_stage} for {m.to_stage}, superseded{by}: {m.reason}"
    verb = "rolled back" if m.kind is TransitionKind.ROLLBACK else "moved"
    approvers = f"; approved by {_names(a.name for a in m.approved_by)}" if m.approved_by else ""
    policy = f"; policy {m.policy}" if m.policy else ""
    replaced = f"; replaces v{m.replaces}" if m.replaces else ""
    return f"{m.requested_by} {verb} {_place(m)}: {m.reason}{approvers}{_gates(m.criteria)}{policy}{replaced}"


@_say.register
def _(m: registry.StageRefused) -> str:
    return f"{m.requested_by} may not move {_place(m)}: {m.detail} ({m.code})"


@_say.register
def _(m: registry.CommandRejected) -> str:
    return f"The command {m.command_type} was rejected: {m.detail} ({m.code})"


@_say.register
def _(m: approval.PolicyPublished) -> str:
    return f"{m.published_by} published revision {m.policy.revision} of the policy {m.policy.name}"


@_say.register
def _(m: approval.RequestOpened) -> str:
    policies = _names(f"{p.name} r{p.revision}" for p in m.policies) or "no policy"
    return f"A request of {m.requested_by} to move {_place(m)} was opened under {policies}: {m.reason}"


@_say.register
def _(m: approval.GatesEvaluated) -> str:
    return f"The gates {'passed' if m.passed else 'failed'}{_gates(m.gates)}"


@_say.register
def _(m: approval.VoteCast) -> str:
    comment = f": {m.vote.comment}" if m.vote.comment else ""
    return f"{m.vote.voter} voted to {m.vote.choice} ({m.vote.meaning}, rule {m.vote.rule}){comment}"


@_say.register
def _(m: approval.VoteRefused) -> str:
    return f"A vote of {m.voter} to {m.choice} was refused: {m.detail} ({m.code})"


@_say.register
def _(m: approval.RequestDecided) -> str:
    d = m.decision
    voters = _names(f"{v.voter} ({v.choice})" for v in d.votes)
    by = f"; votes: {voters}" if voters else ""
    return f"The request of {d.requested_by} to move {_place(d)} was {d.verdict}: {d.reason}{by}{_gates(d.gates)}"


@_say.register
def _(m: approval.RequestClosed) -> str:
    return f"The request ended without a decision: {m.detail} ({m.code})"


@_say.register
def _(m: notifier.SubscriptionCreated) -> str:
    return f"{m.owner} subscribed {m.channel} {m.address} to {_names(m.types)}"


@_say.register
def _(m: notifier.SubscriptionRemoved) -> str:
    return f"{m.removed_by} removed the subscription {m.subscription_id}"


@_say.register
def _(m: notifier.SubscriptionDisabled) -> str:
    return f"The subscription {m.subscription_id} was disabled: {m.reason}"


@_say.register
def _(m: notifier.DeliverySucceeded) -> str:
    return f"{m.event_type} was delivered to the subscription {m.subscription_id} at try {m.attempt}"


@_say.register
def _(m: notifier.DeliveryFailed) -> str:
    return f"{m.event_type} did not reach the subscription {m.subscription_id} at try {m.attempt}: {m.detail}"


@_say.register
def _(m: notifier.DeliveryDead) -> str:
    return f"{m.event_type} was given up for the subscription {m.subscription_id} at try {m.attempt}: {m.detail}"


def _place(m: registry.Transition) -> str:
    return f"{m.model} v{m.version} from {m.from_stage} to {m.to_stage}"


def _gates(criteria: Iterable[registry.Criterion]) -> str:
    said = _names(f"{c.gate}: {c.result}" + (f" ({c.message})" if c.message else "") for c in criteria)
    return f"; gates: {said}" if said else ""


def _names(parts: Iterable[str]) -> str:
    return ", ".join(parts)
