"""One sentence per event for people: who did what, why, on which evidence. Pure."""

from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import Any

from audit.domain import Reading, clean
from contracts import approval, notifier, registry
from contracts.lifecycle import TransitionKind
from contracts.model import Evaluation, Finding, Severity
from contracts.payload import Message

SHOWN = 8


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
def _(m: registry.EvaluateVersion) -> str:
    return f"append an evaluation of {_version(m)} on {_measured(m.evaluation)}"


@_say.register
def _(m: registry.TagVersion) -> str:
    return f"tag {_version(m)}: {_tags(m.tags)}"


@_say.register
def _(m: registry.SetAlias) -> str:
    return f"point @{m.alias} at {_version(m)}: {m.reason}"


@_say.register
def _(m: registry.WorkspaceConfigured) -> str:
    gated = _names(stage.name for stage in m.lifecycle.stages if stage.gated) or "none"
    aliases = _names(f"@{alias}" for alias in m.protected_aliases) or "none"
    naming = f"; names match {m.naming}" if m.naming else ""
    stages = _names(stage.name for stage in m.lifecycle.stages)
    return f"The workspace {m.workspace} was configured: stages {stages}; gated: {gated}; protected: {aliases}{naming}"


@_say.register
def _(m: registry.ModelRegistered) -> str:
    return f"The model {m.model} was registered{f', owned by {m.owner}' if m.owner else ''}"


@_say.register
def _(m: registry.VersionRegistered) -> str:
    return f"{m.registered_by} registered {m.model} v{m.version} with the artifact {m.content.artifact.digest[:19]}"


@_say.register
def _(m: registry.ModelUpdated) -> str:
    parts = [f"owner {m.owner}"] if m.owner is not None else []
    parts += ["a new description"] if m.description is not None else []
    parts += [_tags(m.tags)] if m.tags is not None else []
    return f"The model {m.model} was updated: {_names(parts) or 'nothing'}"


@_say.register
def _(m: registry.ModelRenamed) -> str:
    identity = "" if m.model in (m.former, m.name) else f" (registered as {m.model})"
    return f"The model {m.former} was renamed to {m.name}{identity}"


@_say.register
def _(m: registry.ModelDeleted) -> str:
    return f"The model {m.model} was deleted: {m.reason}"


@_say.register
def _(m: registry.ModelRestored) -> str:
    return f"The model {m.model} was restored: {m.reason}"


@_say.register
def _(m: registry.VersionVerified) -> str:
    form = m.inspection.format or "unknown format"
    what = "quarantined" if m.inspection.unsafe else "ready"
    return f"The artifact of {_version(m)} was verified ({form}); it is {what}{_findings(m.inspection.findings)}"


@_say.register
def _(m: registry.VersionRejected) -> str:
    where = f" at the file {m.file}" if m.file else ""
    return f"{_version(m)} was rejected{where}: {m.detail} ({m.code})"


@_say.register
def _(m: registry.VersionEvaluated) -> str:
    return f"{_version(m)} was evaluated on {_measured(m.evaluation)}"


@_say.register
def _(m: registry.VersionTagged) -> str:
    return f"{_version(m)} was tagged: {_tags(m.tags)}"


@_say.register
def _(m: registry.VersionNoted) -> str:
    return f"A note on {_version(m)}: {_line(m.text)}"


@_say.register
def _(m: registry.VersionScanned) -> str:
    return f"{m.scanner} scanned {_version(m)}{_findings(m.findings)}"


@_say.register
def _(m: registry.AliasChanged) -> str:
    before = f"from v{m.previous} " if m.previous else ""
    return f"{m.requested_by} moved @{m.alias} of {m.model} {before}to v{m.version}: {m.reason}{_evidence(m)}"


@_say.register
def _(m: registry.AliasRemoved) -> str:
    return f"{m.requested_by} removed @{m.alias} of {m.model}, which pointed at v{m.previous}: {m.reason}"


@_say.register
def _(m: registry.ServingReported) -> str:
    detail = f": {_line(m.detail)}" if m.detail else ""
    return f"The server {m.server} says of {_version(m)}, for {m.target}: {m.state}{detail}"


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
    replaced = f"; replaces v{m.replaces}" if m.replaces else ""
    return f"{m.requested_by} {verb} {_place(m)}: {m.reason}{_evidence(m)}{replaced}"


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
    if m.to_stage.startswith("@"):
        return f"{m.to_stage} of {m.model} to v{m.version}"
    return f"{m.model} v{m.version} from {m.from_stage} to {m.to_stage}"


def _version(m: Any) -> str:
    return f"{m.model} v{m.version}"


def _evidence(m: registry.StageChanged | registry.AliasChanged) -> str:
    approvers = f"; approved by {_names(a.name for a in m.approved_by)}" if m.approved_by else ""
    return f"{approvers}{_gates(m.criteria)}" + (f"; policy {m.policy}" if m.policy else "")


def _measured(evaluation: Evaluation) -> str:
    data = evaluation.dataset
    metrics = [f"{name} {value:g}" for name, value in sorted(evaluation.metrics.items())]
    more = f", and {len(metrics) - SHOWN} more" if len(metrics) > SHOWN else ""
    return f"{data.name}{f' {data.version}' if data.version else ''}: {_names(metrics[:SHOWN])}{more}"


def _tags(tags: registry.Tags) -> str:
    said = [f"{name}={_line(value)}" for name, value in sorted(tags.set.items())]
    said += [f"{name} removed" for name in tags.remove]
    return _names(said[:SHOWN]) + (f", and {len(said) - SHOWN} more" if len(said) > SHOWN else "")


def _findings(findings: Sequence[Finding]) -> str:
    """How many are unsafe, and the first of these."""
    unsafe = [f for f in findings if f.severity is Severity.UNSAFE]
    first = f": {unsafe[0].code}{f' in {unsafe[0].file}' if unsafe[0].file else ''}" if unsafe else ""
    return f"; findings: {len(findings)}, unsafe: {len(unsafe)}{first}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _gates(criteria: Iterable[registry.Criterion]) -> str:
    said = _names(f"{c.gate}: {c.result}" + (f" ({c.message})" if c.message else "") for c in criteria)
    return f"; gates: {said}" if said else ""


def _names(parts: Iterable[str]) -> str:
    return ", ".join(parts)
