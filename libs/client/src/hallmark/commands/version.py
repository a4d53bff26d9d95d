"""`hallmark version`"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from hallmark.output import (
    Json,
    ModelArgument,
    VersionArgument,
    client,
    emit,
    example,
    out,
    pairs,
    stage,
    table,
    text,
)
from hallmark.output import app as noun
from hallmark.results import Version

app = noun("version", "Versions: what was trained, from what, and how good it is. They never change.")


@app.command(epilog=example("hallmark version register fraud model.onnx --metric accuracy=0.94 --param depth=6"))
def register(
    ctx: typer.Context,
    model: ModelArgument,
    artifact: Annotated[Path, typer.Argument(help="The model file.", exists=True, dir_okay=False)],
    metric: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER; may be given again.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be given again.")] = None,
    dataset: Annotated[list[Path] | None, typer.Option(help="A data file or directory; hashed.", exists=True)] = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be given again.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    notes: Annotated[str, typer.Option(help="Anything worth knowing.")] = "",
    as_json: Json = False,
) -> None:
    """Register a file as the next version, with git and environment captured."""
    metrics = {name: _number(value) for name, value in pairs(metric or [], "--metric").items()}
    with client(ctx) as hallmark:
        made = hallmark.register(
            model,
            artifact,
            metrics=metrics,
            parameters={name: _scalar(value) for name, value in pairs(param or [], "--param").items()},
            datasets=list(dataset or []),
            tags=pairs(tag or [], "--tag"),
            owner=owner,
            notes=notes,
        )
    emit(as_json, made, lambda: out.print(f"registered {made.model} version {made.version} {made.digest}"))


@app.command("list", epilog=example("hallmark version list fraud"))
def list_(ctx: typer.Context, model: ModelArgument, as_json: Json = False) -> None:
    """List the versions of a model."""
    with client(ctx) as hallmark:
        found = list(hallmark.versions(model))
    rows = [(v.version, stage(v.stage), _metrics(v), v.registered_by, v.registered_at) for v in found]
    columns = ("version", "stage", "metrics", "registered by", "at (UTC)")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark version show fraud 3"))
def show(ctx: typer.Context, model: ModelArgument, version: VersionArgument, as_json: Json = False) -> None:
    """Show everything about one version."""
    with client(ctx) as hallmark:
        found = hallmark.version(model, version)
    emit(as_json, found, lambda: _print(found))


@app.command(epilog=example("hallmark version compare fraud 3 4"))
def compare(
    ctx: typer.Context,
    model: ModelArgument,
    versions: Annotated[list[int], typer.Argument(help="Two to five version numbers.", min=1, show_default=False)],
    as_json: Json = False,
) -> None:
    """Show what differs between versions; differences are to the first."""
    with client(ctx) as hallmark:
        found = hallmark.compare(model, *versions)
    emit(as_json, found, lambda: print_comparison(found))


def print_comparison(found: dict[str, Any]) -> None:
    """Metrics with their differences, then every other field that is not the same everywhere."""
    heads = [f"v{number}" for number in found["versions"]]
    rows: list[list[object]] = []
    for name, metric in found["metrics"].items():
        cells = zip(metric["values"], metric["differences"], strict=True)
        rows.append([name, *(_with_difference(value, difference) for value, difference in cells)])
    out.print(table(("metric", *heads), rows))
    rows = [
        [f"{part}.{name}", *(_short(value) for value in values)]
        for part in ("parameters", "signature", "lineage", "environment", "artifact")
        for name, values in found.get(part, {}).items()
    ]
    if rows:
        out.print()
        out.print(table(("differs", *heads), rows))


def _with_difference(value: float | None, difference: float | None) -> Text:
    shown = Text(text(value))
    if difference:
        shown.append(f" ({difference:+.4f})", style="green" if difference > 0 else "red")
    return shown


def _short(value: object) -> str:
    shown = text(value) if not isinstance(value, dict | list) else json.dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _print(version: Version) -> None:
    content = version.content
    rows: list[tuple[str, object]] = [
        ("model", version.model),
        ("version", version.version),
        ("stage", stage(version.stage)),
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
        ("notes", content.get("notes")),
    ]
    out.print(table(("", ""), rows))


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
