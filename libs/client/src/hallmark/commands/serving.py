"""`hallmark serving`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hallmark.output import Json, ModelArgument, Reason, client, emit, example, out, stage, table
from hallmark.output import app as noun

app = noun("serving", "Serving: what should run, what does run, and what nobody uses.")
Days = Annotated[int | None, typer.Option(help="Not used for so many days (30, when no other criterion is given).")]
Metric = Annotated[str | None, typer.Option(help="Its latest evaluation of this metric ...")]
Floor = Annotated[float | None, typer.Option(help="... fell under this (or over, where lower is better).")]
Of = Annotated[str | None, typer.Option("--stage", help="In this stage only.")]


@app.command(epilog=example("hallmark serving resolve fraud --alias champion --download models/"))
def resolve(
    ctx: typer.Context,
    model: ModelArgument,
    of_stage: Annotated[str, typer.Option("--stage", help="The version in this stage.")] = "Production",
    alias: Annotated[str | None, typer.Option(help="Instead: the version that this alias points at.")] = None,
    version: Annotated[int | None, typer.Option(help="Instead: this version.", min=1)] = None,
    download: Annotated[Path | None, typer.Option(help="Fetch its files into this directory, verified.")] = None,
    as_json: Json = False,
) -> None:
    """Show which version to serve, with its digest and signed pin; or fetch it."""
    with client(ctx) as hallmark:
        found = hallmark.resolve(model, stage=of_stage, alias=alias, version=version)
        path = hallmark.download(found, download) if download is not None else None
    rows = [
        ("version", found.version),
        ("target", (alias and f"@{alias}") or (version and f"version {version}") or of_stage),
        ("digest", found.digest),
        ("files", len(found.files)),
        ("pin", found.pin),
        ("downloaded to", path and str(path)),
    ]
    emit(as_json, found, lambda: out.print(table(("", ""), rows)))


@app.command(epilog=example("hallmark serving status fraud"))
def status(ctx: typer.Context, model: ModelArgument, as_json: Json = False) -> None:
    """Show side by side what should be served and what servers have loaded."""
    with client(ctx) as hallmark:
        found = hallmark.serving(model)
    rows = []
    for target in found.targets:
        desired = target["desired"] or {}
        wanted = f"{desired['version']} (revoked)" if desired.get("revoked") else desired.get("version")
        servers = target["actual"] or [{"server": "-", "version": None, "state": "-", "in_step": True}]
        rows += [(target["target"], wanted, s["server"], _runs(s), s["state"], s["in_step"]) for s in servers]
    columns = ("target", "desired", "server", "runs", "state", "in step")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark serving usage fraud"))
def usage(ctx: typer.Context, model: ModelArgument, as_json: Json = False) -> None:
    """Show who used which version, how often, and when last."""
    with client(ctx) as hallmark:
        found = list(hallmark.usage(model))
    rows = [(u.version, u.principal, u.how, u.count, u.last_at) for u in found]
    emit(as_json, found, lambda: out.print(table(("version", "who", "how", "times", "last (UTC)"), rows)))


@app.command(
    epilog=example("hallmark serving stale --unused-days 60", "hallmark serving stale --metric auc --floor 0.8")
)
def stale(
    ctx: typer.Context,
    unused_days: Days = None,
    metric: Metric = None,
    floor: Floor = None,
    of_stage: Of = None,
    as_json: Json = False,
) -> None:
    """List versions that nobody uses, that are no longer good enough, or that are revoked and still run."""
    with client(ctx) as hallmark:
        found = list(hallmark.stale(unused_days=unused_days, metric=metric, floor=floor, stage=of_stage))
    rows = [(f"{v.model} {v.version}", stage(v.stage), v.reason, v.last_used_at, v.serves, v.servers) for v in found]
    columns = ("version", "stage", "why", "last used (UTC)", "serves as", "runs on")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark serving archive --unused-days 90 --reason 'yearly clean-up' --yes"))
def archive(
    ctx: typer.Context,
    reason: Reason,
    unused_days: Days = None,
    metric: Metric = None,
    floor: Floor = None,
    of_stage: Of = None,
    include_serving: Annotated[
        bool, typer.Option("--include-serving", help="Also what stands in Production or has an alias.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this nothing is archived.")] = False,
    as_json: Json = False,
) -> None:
    """Archive what `stale` lists; a dry run unless --yes is given."""
    with client(ctx) as hallmark:
        found = list(
            hallmark.archive_stale(
                reason,
                dry_run=not yes,
                include_serving=include_serving,
                unused_days=unused_days,
                metric=metric,
                floor=floor,
                stage=of_stage,
            )
        )
    rows = [(f"{v['model']} {v['version']}", v["outcome"], v.get("detail") or v["reason"]) for v in found]
    emit(as_json, found, lambda: out.print(table(("version", "outcome", ""), rows)))


def _runs(server: dict[str, Any]) -> object:
    return f"{server['version']} (revoked)" if server.get("revoked") else server["version"]
