"""`hallmark version`"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hallmark.artifacts import survey
from hallmark.client import check_name
from hallmark.comparison import markdown, print_comparison
from hallmark.output import (
    DryRun,
    Json,
    ModelArgument,
    Reason,
    VersionArgument,
    client,
    emit,
    err,
    example,
    out,
    pairs,
    stage,
    table,
    text,
)
from hallmark.output import app as noun
from hallmark.results import Remark, Version

app = noun("version", "Versions: what was trained, from what, and how good it is. They never change.")


@app.command(epilog=example("hallmark version register fraud model.onnx --metric accuracy=0.94 --param depth=6"))
def register(
    ctx: typer.Context,
    model: ModelArgument,
    artifact: Annotated[Path, typer.Argument(help="The model: a file, or a directory of files.", exists=True)],
    metric: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER; may be given again.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be given again.")] = None,
    dataset: Annotated[list[Path] | None, typer.Option(help="A data file or directory; hashed.", exists=True)] = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be given again.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    notes: Annotated[str, typer.Option(help="Anything worth knowing.")] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Register a file or a directory as the next version, with git and environment captured."""
    details: dict[str, Any] = {
        "metrics": {name: _number(value) for name, value in pairs(metric or [], "--metric").items()},
        "parameters": {name: _scalar(value) for name, value in pairs(param or [], "--param").items()},
        "datasets": list(dataset or []),
        "tags": pairs(tag or [], "--tag"),
        "owner": owner,
        "notes": notes,
    }
    check_name(model)
    with client(ctx) as hallmark:
        if dry_run:
            content = hallmark.content(survey(artifact)[0], **details)
            found = {"model": model, "content": content.model_dump(mode="json"), "dry_run": True}
            would = f"would register {artifact} of {content.artifact.size} bytes as {model}; nothing was sent"
            emit(as_json, found, lambda: out.print(would, markup=False))
            return
        made = hallmark.register(model, artifact, **details)
    emit(
        as_json, made, lambda: out.print(f"registered {made.model} version {made.version} {made.digest}: {made.status}")
    )
    if made.status == "quarantined":
        findings = (made.inspection or {}).get("findings", [])
        for finding in (f for f in findings if f["severity"] == "unsafe"):
            err.print(f"unsafe: {finding.get('file') or ''} {finding['code']}: {finding['detail']}", markup=False)
        err.print("it stays where it is until a policy waives the findings", style="yellow")


@app.command("list", epilog=example("hallmark version list fraud"))
def list_(ctx: typer.Context, model: ModelArgument, as_json: Json = False) -> None:
    """List the versions of a model."""
    with client(ctx) as hallmark:
        found = list(hallmark.versions(model))
    rows = [
        (v.version, stage(v.stage), v.status, v.aliases, _metrics(v), v.registered_by, v.registered_at) for v in found
    ]
    columns = ("version", "stage", "status", "aliases", "metrics", "registered by", "at (UTC)")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark version show fraud 3"))
def show(ctx: typer.Context, model: ModelArgument, version: VersionArgument, as_json: Json = False) -> None:
    """Show everything about one version."""
    with client(ctx) as hallmark:
        found = hallmark.version(model, version)
    emit(as_json, found, lambda: _print(found))


@app.command(
    epilog=example("hallmark version compare fraud 3 4", "hallmark version compare fraud 3 4 --markdown > comment.md")
)
def compare(
    ctx: typer.Context,
    model: ModelArgument,
    versions: Annotated[list[int], typer.Argument(help="Two to five version numbers.", min=1, show_default=False)],
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For the comment on a pull request.")] = False,
    as_json: Json = False,
) -> None:
    """Show what differs between versions; differences are to the first."""
    with client(ctx) as hallmark:
        found = hallmark.compare(model, *versions)
    if as_markdown and not as_json:
        sys.stdout.write(markdown(model, found))
        return
    emit(as_json, found, lambda: print_comparison(found))


@app.command(epilog=example("hallmark version evaluate fraud 3 --dataset may-2026 --metric auc=0.91"))
def evaluate(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    dataset: Annotated[str, typer.Option(help="Name of the data set it was measured on.")],
    metric: Annotated[list[str], typer.Option(help="NAME=NUMBER; may be given again.")],
    notes: Annotated[str, typer.Option(help="Anything worth knowing.")] = "",
    as_json: Json = False,
) -> None:
    """Append metrics measured after registration."""
    metrics = {name: _number(value) for name, value in pairs(metric, "--metric").items()}
    with client(ctx) as hallmark:
        found = hallmark.evaluate(model, version, dataset, metrics, notes=notes)
    emit(as_json, found, lambda: out.print(f"evaluation of {model} version {version} recorded", markup=False))


@app.command(epilog=example("hallmark version tag fraud 3 --set reviewed=yes --remove draft"))
def tag(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    to_set: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE; may be given again.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="NAME; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Set and remove tags."""
    with client(ctx) as hallmark:
        found = hallmark.tag(model, version, pairs(to_set or [], "--set"), remove=remove or ())
    shown = ", ".join(f"{name}={value}" for name, value in sorted(found.tags.items())) or "none"
    emit(as_json, found, lambda: out.print(f"tags of {model} version {version}: {shown}", markup=False))


@app.command(epilog=example("hallmark version note fraud 3 'checked with the fraud desk'"))
def note(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    words: Annotated[str, typer.Argument(metavar="TEXT", help="The note; kept for ever.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Append a note."""
    with client(ctx) as hallmark:
        found = hallmark.note(model, version, words)
    emit(as_json, found, lambda: out.print(f"noted on {model} version {version}", markup=False))


@app.command(epilog=example("hallmark version describe fraud 3 'the model of the spring campaign'"))
def describe(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    words: Annotated[str, typer.Argument(metavar="TEXT", help="What is said of it from now on.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Change the description. The notes of its registration stay."""
    with client(ctx) as hallmark:
        found = hallmark.describe_version(model, version, words)
    emit(as_json, found, lambda: out.print(f"{model} version {version}: {found.description}", markup=False))


@app.command(epilog=example("hallmark version delete fraud 3 --reason 'trained on the wrong data'"))
def delete(
    ctx: typer.Context, model: ModelArgument, version: VersionArgument, reason: Reason, as_json: Json = False
) -> None:
    """Put a version out of sight. Nothing is erased; its number is not given again."""
    with client(ctx) as hallmark:
        found = hallmark.delete_version(model, version, reason)
    said = f"{model} version {version} is deleted; hallmark version restore brings it back"
    emit(as_json, found, lambda: out.print(said, markup=False))


@app.command(epilog=example("hallmark version restore fraud 3 --reason 'deleted by mistake'"))
def restore(
    ctx: typer.Context, model: ModelArgument, version: VersionArgument, reason: Reason, as_json: Json = False
) -> None:
    """Bring a deleted version back, without its aliases."""
    with client(ctx) as hallmark:
        found = hallmark.restore_version(model, version, reason)
    emit(as_json, found, lambda: out.print(f"{model} version {version} is back", markup=False))


@app.command(epilog=example("hallmark version remarks fraud 3"))
def remarks(ctx: typer.Context, model: ModelArgument, version: VersionArgument, as_json: Json = False) -> None:
    """List evaluations, notes and scans, oldest first."""
    with client(ctx) as hallmark:
        found = list(hallmark.remarks(model, version))
    rows = [(r.at, r.kind, r.by, _remark(r)) for r in found]
    emit(as_json, found, lambda: out.print(table(("at (UTC)", "kind", "by", ""), rows)))


def _remark(remark: Remark) -> str:
    data = remark.data
    if remark.kind == "evaluation":
        metrics = ", ".join(f"{name} {text(value)}" for name, value in sorted(data["metrics"].items()))
        return f"{metrics} on {data['dataset']['name']}"
    if remark.kind == "scan":
        return f"{data['scanner']}: " + "; ".join(f"{f['severity']} {f['code']}" for f in data["findings"])
    return str(data.get("text", ""))


def _print(version: Version) -> None:
    content = version.content
    rows: list[tuple[str, object]] = [
        ("model", version.model),
        ("version", version.version),
        ("stage", stage(version.stage)),
        ("status", f"{version.status} {version.status_detail or ''}".strip()),
        *_revocation(version),
        ("aliases", version.aliases),
        ("digest", version.digest),
        ("registered", f"{text(version.registered_at)} UTC by {version.registered_by}"),
        ("artifact", f"{version.artifact.filename}, {version.artifact.size} bytes, {version.artifact.digest}"),
        ("metrics", _metrics(version)),
        ("parameters", ", ".join(f"{name}={value}" for name, value in sorted(version.parameters.items()))),
    ]
    lineage, environment = content.get("lineage", {}), content.get("environment", {})
    dirty = {True: " (with uncommitted changes)", False: ""}.get(lineage.get("git_dirty"), "")
    rows += [
        ("git", f"{lineage.get('git_repository') or ''} {lineage.get('git_commit') or '-'}{dirty}".strip()),
        (
            "data sets",
            [f"{d['name']} {d.get('digest') or d.get('version') or ''}" for d in lineage.get("datasets", [])],
        ),
        ("python", environment.get("python")),
        ("packages", [f"{name} {number}" for name, number in sorted(environment.get("packages", {}).items())]),
        ("owner", content.get("owner")),
        ("tags", ", ".join(f"{name}={value}" for name, value in sorted(version.tags.items()))),
        ("notes", content.get("notes")),
        ("description", version.description if version.description != content.get("notes", "") else None),
        ("deleted", f"{text(version.deleted_at)} UTC" if version.deleted_at else None),
    ]
    inspection = version.inspection or {}
    rows.append(("format", inspection.get("format")))
    rows += [
        (
            f"{finding['severity']} finding",
            f"{finding.get('file') or ''} {finding['code']}: {finding['detail']}".strip(),
        )
        for finding in inspection.get("findings", [])
    ]
    out.print(table(("", ""), rows))


def _revocation(version: Version) -> list[tuple[str, object]]:
    if version.revocation is None:
        return []
    return [("revoked", f"by {version.revocation['by']} at {version.revocation['at']}: nobody may use it any more")]


def _metrics(version: Version) -> str:
    return ", ".join(f"{name} {text(value)}" for name, value in sorted(version.metrics.items()))


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a number", param_hint="--metric") from None


def _scalar(value: str) -> object:
    """`6` -> 6, `true` -> True, anything that is not a JSON scalar stays text."""
    try:
        found: object = json.loads(value)
    except ValueError:
        return value
    return value if isinstance(found, dict | list) else found
