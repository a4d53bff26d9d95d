"""`hallmark serving`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hallmark.output import AWAITING, Json, ModelArgument, Reason, client, emit, err, example, out, stage, table
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


@app.command(epilog=example("hallmark serving export fraud bootstrap/"))
def export(
    ctx: typer.Context,
    model: ModelArgument,
    directory: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)],
    of_stage: Annotated[str, typer.Option("--stage", help="The version in this stage.")] = "Production",
    alias: Annotated[str | None, typer.Option(help="Instead: the version that this alias points at.")] = None,
    as_json: Json = False,
) -> None:
    """Write the signed pin and its files, for a server's image or an air-gapped network (`watch(bootstrap=...)`)."""
    with client(ctx) as hallmark:
        found = hallmark.resolve(model, stage=of_stage, alias=alias)
        file = hallmark.export_pin(found, directory)
    made = {"file": str(file), "version": found.version, "digest": found.digest, "sequence": found.sequence}
    emit(as_json, made, lambda: out.print(f"{model} version {found.version}: {file}", markup=False, soft_wrap=True))


@app.command(epilog=example("hallmark serving keys > pin-keys.json"))
def keys(ctx: typer.Context) -> None:
    """Print the public keys that verify pins (a JWK Set); servers keep them (`watch(pin_keys=...)`)."""
    with client(ctx) as hallmark:
        found = hallmark.serving_keys()
    emit(True, found, lambda: None)


@app.command(epilog=example("hallmark serving wait fraud --share 0.9 --wait 300"))
def wait(
    ctx: typer.Context,
    model: ModelArgument,
    of_stage: Annotated[str, typer.Option("--stage", help="The stage that servers follow.")] = "Production",
    alias: Annotated[str | None, typer.Option(help="Instead: the alias that they follow.")] = None,
    share: Annotated[float, typer.Option(help="How many of them must run it.", min=0.0, max=1.0)] = 1.0,
    seconds: Annotated[float, typer.Option("--wait", help="How long to wait, in seconds.", min=0)] = 60.0,
    as_json: Json = False,
) -> None:
    """Wait until servers run what they should, by their own reports. Exit 0: they do; 3: not yet."""
    target = f"@{alias}" if alias else of_stage
    with client(ctx) as hallmark, err.status(f"waiting for {target}"):
        found = hallmark.wait_until_served(model, target, share=share, seconds=seconds)
    text = f"{found.in_step} of {found.servers} servers run version {found.version} of {target}"
    emit(as_json, found, lambda: out.print(text, markup=False))
    if not found.reached:
        raise typer.Exit(AWAITING)


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
