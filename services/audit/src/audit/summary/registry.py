"""What happened to models, versions, aliases and workspaces, and what commands ask for."""

from collections.abc import Sequence

from audit.summary.common import because, gates, line, names, place, say, some, version
from contracts import registry
from contracts.lifecycle import TransitionKind
from contracts.model import Evaluation, Finding, Severity


@say.register
def _(m: registry.RegisterModel) -> str:
    return f"register the model {m.model}"


@say.register
def _(m: registry.RegisterVersion) -> str:
    return f"register a version of {m.model} with the artifact {m.content.artifact.digest[:19]}"


@say.register
def _(m: registry.RequestTransition) -> str:
    return f"move {m.model} v{m.version} to {m.to_stage}: {m.reason}"


@say.register
def _(m: registry.RollBack) -> str:
    return f"roll back {m.stage} of {m.model}{f' to v{m.to_version}' if m.to_version else ''}: {m.reason}"


@say.register
def _(m: registry.EvaluateVersion) -> str:
    return f"append an evaluation of {version(m)} on {_measured(m.evaluation)}"


@say.register
def _(m: registry.TagVersion) -> str:
    return f"tag {version(m)}: {_tags(m.tags)}"


@say.register
def _(m: registry.SetAlias) -> str:
    return f"point @{m.alias} at {version(m)}: {m.reason}"


@say.register
def _(m: registry.WorkspaceConfigured) -> str:
    gated = names(stage.name for stage in m.lifecycle.stages if stage.gated) or "none"
    aliases = names(f"@{alias}" for alias in m.protected_aliases) or "none"
    naming = f"; names match {m.naming}" if m.naming else ""
    stages = names(stage.name for stage in m.lifecycle.stages)
    return f"The workspace {m.workspace} was configured: stages {stages}; gated: {gated}; protected: {aliases}{naming}"


@say.register
def _(m: registry.ModelRegistered) -> str:
    return f"The model {m.model} was registered{f', owned by {m.owner}' if m.owner else ''}"


@say.register
def _(m: registry.VersionRegistered) -> str:
    return f"{m.registered_by} registered {m.model} v{m.version} with the artifact {m.content.artifact.digest[:19]}"


@say.register
def _(m: registry.ModelUpdated) -> str:
    parts = [f"owner {m.owner}"] if m.owner is not None else []
    parts += ["a new description"] if m.description is not None else []
    parts += [_tags(m.tags)] if m.tags is not None else []
    return f"The model {m.model} was updated: {names(parts) or 'nothing'}"


@say.register
def _(m: registry.ModelRenamed) -> str:
    identity = "" if m.model in (m.former, m.name) else f" (registered as {m.model})"
    return f"The model {m.former} was renamed to {m.name}{identity}"


@say.register
def _(m: registry.ModelDeleted) -> str:
    return f"The model {m.model} was deleted: {m.reason}"


@say.register
def _(m: registry.ModelRestored) -> str:
    return f"The model {m.model} was restored: {m.reason}"


@say.register
def _(m: registry.ModelRecreated) -> str:
    former = f"; its former versions, up to v{m.versions}, stay deleted" if m.versions else ""
    identity = "" if m.model == m.name else f" (registered as {m.model})"
    return f"The deleted model {m.name}{identity} began anew{former}"


@say.register
def _(m: registry.VersionDescribed) -> str:
    return f"{version(m)} was described: {line(m.description) if m.description else 'with nothing'}"


@say.register
def _(m: registry.VersionDeleted) -> str:
    return f"{version(m)} was deleted: {m.reason}"


@say.register
def _(m: registry.VersionRestored) -> str:
    return f"{version(m)} was restored: {m.reason}"


@say.register
def _(m: registry.VersionVerified) -> str:
    form = m.inspection.format or "unknown format"
    what = "quarantined" if m.inspection.unsafe else "ready"
    return f"The artifact of {version(m)} was verified ({form}); it is {what}{_findings(m.inspection.findings)}"


@say.register
def _(m: registry.VersionRejected) -> str:
    where = f" at the file {m.file}" if m.file else ""
    return f"{version(m)} was rejected{where}: {m.detail} ({m.code})"


@say.register
def _(m: registry.VersionEvaluated) -> str:
    return f"{version(m)} was evaluated on {_measured(m.evaluation)}"


@say.register
def _(m: registry.VersionTagged) -> str:
    return f"{version(m)} was tagged: {_tags(m.tags)}"


@say.register
def _(m: registry.VersionNoted) -> str:
    return f"A note on {version(m)}: {line(m.text)}"


@say.register
def _(m: registry.VersionScanned) -> str:
    return f"{m.scanner} scanned {version(m)}{_findings(m.findings)}"


@say.register
def _(m: registry.VersionRevoked) -> str:
    back = f"; its stage is to return to v{m.fallback}" if m.fallback else ""
    return f"{m.revoked_by} revoked {version(m)}, which nobody may use any more{because(m.reason)}{back}"


@say.register
def _(m: registry.AliasChanged) -> str:
    before = f"from v{m.previous} " if m.previous else ""
    return f"{m.requested_by} moved @{m.alias} of {m.model} {before}to v{m.version}: {m.reason}{_evidence(m)}"


@say.register
def _(m: registry.AliasRemoved) -> str:
    return f"{m.requested_by} removed @{m.alias} of {m.model}, which pointed at v{m.previous}: {m.reason}"


@say.register
def _(m: registry.ServingReported) -> str:
    detail = f": {line(m.detail)}" if m.detail else ""
    return f"The server {m.server} says of {version(m)}, for {m.target}: {m.state}{detail}"


@say.register
def _(m: registry.StageRequested) -> str:
    verb = "roll back" if m.kind is TransitionKind.ROLLBACK else "move"
    return f"{m.requested_by} asked to {verb} {place(m)}: {m.reason}"


@say.register
def _(m: registry.StageChanged) -> str:
    if m.kind is TransitionKind.SUPERSEDED:
        by = f" by v{m.superseded_by}" if m.superseded_by else ""
        return f"{m.model} v{m.version} left {m.from_stage} for {m.to_stage}, superseded{by}: {m.reason}"
    verb = "rolled back" if m.kind is TransitionKind.ROLLBACK else "moved"
    replaced = f"; replaces v{m.replaces}" if m.replaces else ""
    return f"{m.requested_by} {verb} {place(m)}: {m.reason}{_evidence(m)}{replaced}"


@say.register
def _(m: registry.StageRefused) -> str:
    return f"{m.requested_by} may not move {place(m)}: {m.detail} ({m.code})"


@say.register
def _(m: registry.CommandRejected) -> str:
    return f"The command {m.command_type} was rejected: {m.detail} ({m.code})"


def _evidence(m: registry.StageChanged | registry.AliasChanged) -> str:
    approvers = f"; approved by {names(a.name for a in m.approved_by)}" if m.approved_by else ""
    return f"{approvers}{gates(m.criteria)}" + (f"; policy {m.policy}" if m.policy else "")


def _measured(evaluation: Evaluation) -> str:
    data = evaluation.dataset
    metrics = [f"{name} {value:g}" for name, value in sorted(evaluation.metrics.items())]
    return f"{data.name}{f' {data.version}' if data.version else ''}: {some(metrics)}"


def _tags(tags: registry.Tags) -> str:
    said = [f"{name}={line(value)}" for name, value in sorted(tags.set.items())]
    said += [f"{name} removed" for name in tags.remove]
    return some(said)


def _findings(findings: Sequence[Finding]) -> str:
    """How many are unsafe, and the first of these."""
    unsafe = [f for f in findings if f.severity is Severity.UNSAFE]
    first = f": {unsafe[0].code}{f' in {unsafe[0].file}' if unsafe[0].file else ''}" if unsafe else ""
    return f"; findings: {len(findings)}, unsafe: {len(unsafe)}{first}"
