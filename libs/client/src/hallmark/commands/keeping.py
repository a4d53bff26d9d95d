"""`hallmark audit hold` and `hallmark audit retention`: what must be kept, and for how long."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from hallmark.audit_results import Hold, Retention
from hallmark.errors import HallmarkError
from hallmark.output import Json, Reason, client, emit, example, instant, out, table, text
from hallmark.output import app as noun

hold = noun("hold", "Legal holds: what they cover is neither pruned nor erased until they are released.")
retention = noun("retention", "How long what is kept at least. Nothing is deleted by default.")


@hold.command("list", epilog=example("hallmark audit hold list"))
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List all holds, released ones too."""
    with client(ctx) as hallmark:
        found = hallmark.holds()
    rows = [(h.id, _covers(h), h.placed_by, h.at, h.reason, _released(h)) for h in found]
    emit(as_json, found, lambda: out.print(table(("hold", "covers", "placed by", "at (UTC)", "why", "released"), rows)))


@hold.command(epilog=example("hallmark audit hold place --model fraud --reason 'case 4711'"))
def place(
    ctx: typer.Context,
    reason: Reason,
    model: Annotated[str | None, typer.Option(help="Only this model. Default: the whole workspace.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="The whole log.")] = False,
    since: Annotated[str | None, typer.Option(help="Only what the log recorded from this moment on.")] = None,
    until: Annotated[str | None, typer.Option(help="Only what it recorded before this moment.")] = None,
    as_json: Json = False,
) -> None:
    """Place a hold."""
    if everything and model:
        raise typer.BadParameter("--everything and --model exclude one another")
    with client(ctx) as hallmark:
        made = hallmark.place_hold(
            reason,
            model=model,
            everything=everything,
            since=instant(since) if since else None,
            until=instant(until) if until else None,
        )
    emit(as_json, made, lambda: out.print(f"hold {made.id} covers {_covers(made)}", markup=False))


@hold.command(
    epilog=example("hallmark audit hold release 0192a3b4c5d64e7f8091a2b3c4d5e6f7 --reason 'case 4711 is closed'")
)
def release(
    ctx: typer.Context,
    hold_id: Annotated[str, typer.Argument(help="Id of the hold.", show_default=False)],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Release a hold."""
    with client(ctx) as hallmark:
        made = hallmark.release_hold(hold_id, reason)
    emit(as_json, made, lambda: out.print(f"hold {made.id} is released", markup=False))


@retention.command(epilog=example("hallmark audit retention show"))
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the policy in force."""
    with client(ctx) as hallmark:
        found = hallmark.retention()
    emit(as_json, found, lambda: _print(found))


@retention.command(epilog=example("hallmark audit retention set retention.yaml --reason 'agreed with counsel'"))
def set(  # noqa: A001
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="YAML: rules, each with topic, type and days.", exists=True, dir_okay=False)
    ],
    reason: Annotated[str | None, typer.Option(help="Why less than a floor of the law is enough.")] = None,
    as_json: Json = False,
) -> None:
    """Set how long what is kept; it counts for what is pruned from then on."""
    try:
        rules = yaml.safe_load(file.read_text(encoding="utf-8"))["rules"]
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise TypeError("rules is no list of mappings")
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise HallmarkError(
            "invalid-file", f"{file} is no retention policy: rules: [{{topic: '*', type: '*', days: 3650}}] ({error!r})"
        ) from error
    with client(ctx) as hallmark:
        made = hallmark.set_retention(rules, reason)
    emit(as_json, made, lambda: _print(made))


def _print(found: Retention) -> None:
    out.print(table(("topic", "type", "days"), [(r.topic, r.type, r.days) for r in found.rules]))
    if not found.rules:
        out.print("no rules: everything is kept")


def _covers(one: Hold) -> str:
    place = f"{one.workspace}/{one.model}" if one.model else one.workspace or "everything"
    between = f" from {text(one.since)} until {text(one.until)}" if one.since or one.until else ""
    return place + between


def _released(one: Hold) -> str:
    return f"{text(one.released_at)} by {one.released_by}: {one.release_reason}" if one.released_at else ""
