"""The model card in Markdown, from what was registered and measured. Pure."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from audit.out.evidence.dossier import Dossier
from contracts.model import VersionContent

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&:@$^=\"'])")
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def text(value: Any) -> str:
    """The value as Markdown that means itself only: no markup, HTML, link or new line."""
    return _SPECIAL.sub(r"\\\1", _BREAKS.sub(" ", str(value))).strip() or "none"


def model_card(of: Dossier) -> str:
    lines = [f"# Model card: {text(of.model)}, version {of.version}", ""]
    lines += ["Made from the events in `events.ndjson`; the log, not this file, is the record.", ""]
    if of.registered is None:
        return "\n".join([*lines, "No good registration of this version is in the log.", ""])
    content, said = of.registered.content, of.registered
    facts: list[tuple[str, Any]] = [
        ("Workspace", of.workspace),
        ("Model", of.model),
        ("Version", of.version),
        ("Digest of the version", said.digest),
        ("Digest of the artifact", content.artifact.digest),
        ("Registered by", said.registered_by),
        ("Owner", content.owner or (of.described.owner if of.described else None)),
        ("Trained at", content.trained_at.isoformat() if content.trained_at else None),
        ("Training took, in seconds", content.training_seconds),
    ]
    if of.revoked is not None:
        facts.append(("REVOKED", f"by {of.revoked.revoked_by}: {of.revoked.reason}"))
    lines += ["## Model details", "", *table(("Fact", "Value"), [row for row in facts if row[1] is not None])]
    for title, told in (("Description", of.described.description if of.described else ""), ("Notes", content.notes)):
        lines += [f"## {title}", "", text(told), ""] if told else []
    lines += _training(content)
    lines += _results(of, content)
    lines += ["## Approvals", ""]
    signed = [(s.name, s.at.isoformat(), s.meaning, s.about) for s in of.signings]
    lines += table(("Name", "Date and time", "Meaning", "Of"), signed)
    lines += ["## Stages and aliases", ""]
    moves = [(row.fields["at"].isoformat(), row.fields["summary"], row.stored.index) for row, _ in of.moves]
    lines += table(("At", "What", "Entry"), moves)
    return "\n".join(lines)


def _training(content: VersionContent) -> list[str]:
    lineage = content.lineage
    data = [(d.name, d.version or "", d.digest or "", d.uri or "") for d in lineage.datasets]
    code: list[tuple[str, Any]] = [
        ("Repository", lineage.git_repository),
        ("Commit", lineage.git_commit),
        ("Command", lineage.command),
    ]
    code.append(("Uncommitted changes", lineage.git_dirty))
    run = lineage.run
    code.append(("Run", f"{run.system} {run.id}" if run else None))
    code.append(("Parents", ", ".join(f"version {n}" for n in lineage.parents) or None))
    environment = content.environment
    packages = [("python", environment.python), ("platform", environment.platform), *environment.packages.items()]
    lines = ["## Training data", "", *table(("Data set", "Version", "Digest", "Address"), data)]
    lines += ["## Code and lineage", "", *table(("Fact", "Value"), [row for row in code if row[1] is not None])]
    lines += ["## Parameters", "", *table(("Name", "Value"), sorted(content.parameters.items()))]
    return [*lines, "## Environment", "", *table(("What", "Version"), [row for row in packages if row[1] is not None])]


def _results(of: Dossier, content: VersionContent) -> list[str]:
    metrics = [(name, value, content.better.get(name, "")) for name, value in sorted(content.metrics.items())]
    lines = ["## Metrics", "", *table(("Metric", "Value", "Better is"), metrics)]
    for event in of.evaluations:
        measured = event.evaluation
        lines += [f"## Evaluation on {text(measured.dataset.name)}, {text(measured.evaluated_at.isoformat())}", ""]
        lines += table(("Metric", "Value"), sorted(measured.metrics.items()))
    given = [(e.title, e.type, e.digest or e.url or "", e.result or "", e.posted_by) for e in of.evidence]
    return [*lines, "## Evidence", "", *table(("Title", "Type", "Digest or address", "Result", "From"), given)]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    cells = [[text(cell) for cell in row] for row in rows]
    if not cells:
        return ["None is logged.", ""]
    return [_row(head), _row(["---"] * len(head)), *map(_row, cells), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
