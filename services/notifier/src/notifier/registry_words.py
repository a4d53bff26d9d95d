"""Words for what the registry says of models, versions, aliases and workspaces. Pure."""

from collections.abc import Mapping, Sequence

from contracts.envelope import Envelope
from contracts.model import Finding, Severity
from contracts.payload import Message
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    ModelDeleted,
    ModelRecreated,
    ModelRegistered,
    ModelRenamed,
    ModelRestored,
    ModelUpdated,
    ServingReported,
    Tags,
    VersionDeleted,
    VersionDescribed,
    VersionEvaluated,
    VersionNoted,
    VersionRegistered,
    VersionRejected,
    VersionRestored,
    VersionRevoked,
    VersionScanned,
    VersionTagged,
    VersionVerified,
    WorkspaceConfigured,
)
from notifier.notices import Notice, by, criteria_lines, names_of, one_line

FINDINGS = "Findings"
OfVersion = VersionVerified | VersionRejected | VersionRevoked | AliasChanged | ServingReported


def of_registry(event: Message, envelope: Envelope) -> Notice | None:  # noqa: PLR0911  # one per group
    """None for what it has no words for."""
    match event:
        case WorkspaceConfigured() | ModelRegistered() | ModelUpdated() | ModelRenamed():
            return _model(event, envelope)
        case ModelDeleted():
            return Notice(f"{event.model}: was deleted", who=by("Deleted", envelope.actor), reason=event.reason)
        case ModelRestored():
            return Notice(f"{event.model}: is back", who=by("Restored", envelope.actor), reason=event.reason)
        case ModelRecreated():
            return Notice(f"{event.name}: began anew", who=by("Registered", envelope.actor), reason=event.description)
        case VersionDeleted():
            said = f"{event.model}: v{event.version} was deleted"
            return Notice(said, who=by("Deleted", envelope.actor), reason=event.reason)
        case VersionRestored():
            said = f"{event.model}: v{event.version} is back"
            return Notice(said, who=by("Restored", envelope.actor), reason=event.reason)
        case VersionDescribed():
            said = f"{event.model}: v{event.version} has a new description"
            return Notice(said, who=by("Described", envelope.actor), reason=event.description)
        case VersionVerified():
            return _verified(event)
        case VersionEvaluated() | VersionTagged() | VersionNoted() | VersionScanned():
            return _learnt(event, envelope)
        case AliasChanged() | AliasRemoved():
            return _alias(event)
    return _version(event)


def _model(event: WorkspaceConfigured | ModelRegistered | ModelUpdated | ModelRenamed, envelope: Envelope) -> Notice:
    match event:
        case WorkspaceConfigured():
            stages = event.lifecycle.stages
            return Notice(
                f"Workspace {event.workspace}: new rules",
                who=by("Configured", envelope.actor),
                facts=(
                    ("Stages", ", ".join(stage.name for stage in stages)),
                    ("Entered by decision", ", ".join(stage.name for stage in stages if stage.gated) or "none"),
                    ("Protected aliases", ", ".join(f"@{a}" for a in event.protected_aliases) or "none"),
                ),
            )
        case ModelRegistered():
            return Notice(f"{event.model}: new model", who=by("Registered", envelope.actor), reason=event.description)
        case ModelUpdated():
            facts = (("Owner", event.owner), *(_tags(event.tags) if event.tags else ()))
            return Notice(
                f"{event.model}: the model was updated",
                who=by("Updated", envelope.actor),
                reason=event.description or "",
                facts=tuple((label, value) for label, value in facts if value is not None),
            )
        case ModelRenamed():
            return Notice(f"{event.former}: is named {event.name} now", who=by("Renamed", envelope.actor))


def _version(event: Message) -> Notice | None:
    match event:
        case VersionRegistered():
            return Notice(
                f"{event.model}: v{event.version} was registered",
                who=by("Registered", event.registered_by),
                reason=event.content.notes,
                facts=_metrics(event.content.metrics),
            )
        case VersionRejected():
            where = f" ({event.file})" if event.file else ""
            return Notice(
                f"{event.model}: v{event.version} was rejected{where}: {one_line(event.detail)}",
                facts=_facts(event, ("File", event.file), ("Rejected because", event.code)),
            )
        case VersionRevoked():
            back = f"v{event.fallback}" if event.fallback else None
            return Notice(
                f"{event.model}: v{event.version} is REVOKED, servers must stop using it",
                who=by("Revoked", event.revoked_by),
                reason=event.reason,
                facts=_facts(event, ("Returns to", back)),
            )
        case ServingReported():
            return Notice(
                f"{event.model}: {event.server} reports v{event.version} as {event.state}",
                who=by("Reported", event.server),
                reason=event.detail,
                facts=_facts(event, ("Serves", event.target), ("Server", event.server)),
            )
    return None


def _verified(event: VersionVerified) -> Notice:
    found = event.inspection
    unsafe = [finding for finding in found.findings if finding.severity is Severity.UNSAFE]
    headline = f"{event.model}: v{event.version} is ready"
    if unsafe:
        headline = f"{event.model}: v{event.version} is quarantined: {_unsafe(unsafe)}"
    return Notice(
        headline,
        criteria=_findings(found.findings),
        heading=FINDINGS,
        facts=_facts(event, ("Format", found.format), ("Scanner", found.scanner)),
    )


def _learnt(event: VersionEvaluated | VersionTagged | VersionNoted | VersionScanned, envelope: Envelope) -> Notice:
    version = f"{event.model}: v{event.version}"
    match event:
        case VersionEvaluated():
            data = event.evaluation.dataset
            return Notice(
                f"{version} was evaluated on {data.name}{f' {data.version}' if data.version else ''}",
                who=by("Evaluated", envelope.actor),
                reason=event.evaluation.notes,
                facts=_metrics(event.evaluation.metrics),
            )
        case VersionTagged():
            return Notice(f"{version} was tagged", who=by("Tagged", envelope.actor), facts=_tags(event.tags))
        case VersionNoted():
            return Notice(f"{version} has a new note", who=by("Written", envelope.actor), reason=event.text)
        case VersionScanned():
            unsafe = [finding for finding in event.findings if finding.severity is Severity.UNSAFE]
            said = f"unsafe, {_unsafe(unsafe)}" if unsafe else "nothing unsafe"
            return Notice(
                f"{version} was scanned by {event.scanner}: {said}",
                criteria=_findings(event.findings),
                heading=FINDINGS,
            )


def _unsafe(unsafe: Sequence[Finding]) -> str:
    first = f"{unsafe[0].code}{f' in {unsafe[0].file}' if unsafe[0].file else ''}"
    return first + (f" and {len(unsafe) - 1} more" if len(unsafe) > 1 else "")


def _findings(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The worst first."""
    order = [Severity.UNSAFE, Severity.WARNING, Severity.INFO]
    return tuple(
        f"{f.severity}: {f.code}{f' in {f.file}' if f.file else ''}: {one_line(f.detail)}"
        for f in sorted(findings, key=lambda f: order.index(f.severity))
    )


def _metrics(metrics: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{value:g}") for name, value in sorted(metrics.items())[:20])


def _tags(tags: Tags) -> tuple[tuple[str, str], ...]:
    return (*sorted(tags.set.items()), *((name, "removed") for name in tags.remove))


def _facts(event: OfVersion, *pairs: tuple[str, str | None]) -> tuple[tuple[str, str], ...]:
    own = (("Model", f"{event.workspace}/{event.model}"), ("Version", str(event.version)))
    return (*own, *((label, value) for label, value in pairs if value))


def _alias(event: AliasChanged | AliasRemoved) -> Notice:
    if isinstance(event, AliasRemoved):
        return Notice(
            f"{event.model}: @{event.alias} is gone (was v{event.previous})",
            who=by("Removed", event.requested_by),
            reason=event.reason,
        )
    was = f" (was v{event.previous})" if event.previous else ""
    approved = names_of([approval.name for approval in event.approved_by])
    return Notice(
        f"{event.model}: @{event.alias} is now v{event.version}{was}",
        who=f"Asked by {event.requested_by}" + (f", approved by {approved}" if approved else ""),
        reason=event.reason,
        criteria=criteria_lines(event.criteria),
        facts=_facts(
            event,
            ("Before", f"v{event.previous}" if event.previous else "nothing"),
            ("Asked by", event.requested_by),
            ("Approved by", approved or "nobody had to"),
            ("Policy", event.policy),
        ),
    )
