"""`hallmark notify silence` and `hallmark notify inhibition`"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from hallmark.output import Json, client, emit, example, out, table
from hallmark.output import app as noun

silence = noun("silence", "Silences: nothing that they select is sent for a while.")
inhibition = noun("inhibition", "Rules by which an emergency hushes what is routine.")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
Ended = Annotated[bool, typer.Option("--all", help="Those too that are over.")]
Cel = Annotated[str | None, typer.Option(help="Only what this expression holds for (event.*, data).")]


@silence.command(
    epilog=example(
        "hallmark notify silence add --for 2h --comment 'retraining' --model 'fraud*'",
        "hallmark notify silence add --for 1d --comment 'migration' --everybody --type 'hallmark.version.*'",
    )
)
def add(
    ctx: typer.Context,
    span: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 3d.", show_default=False)],
    comment: Annotated[str, typer.Option(help="Why; kept for ever.", show_default=False)],
    types: Annotated[list[str] | None, typer.Option("--type", help="Event types, as patterns (all).")] = None,
    model: Annotated[str, typer.Option(help="Models, as a pattern.")] = "*",
    stages: Annotated[list[str] | None, typer.Option("--stage", help="Only what enters or leaves this stage.")] = None,
    cel: Cel = None,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="For all of the workspace, not for you alone (operators).")
    ] = False,
    start: Annotated[datetime | None, typer.Option("--from", help="When it starts, in UTC (now).")] = None,
    as_json: Json = False,
) -> None:
    """Send nothing of these events for a while. They are not sent later either: `notify pause` keeps them."""
    starts = start.replace(tzinfo=start.tzinfo or UTC) if start else None
    with client(ctx) as hallmark:
        made = hallmark.silence(
            (starts or datetime.now(UTC)) + duration(span, "--for"),
            comment,
            types=types or (),
            model=model,
            stages=stages or (),
            cel=cel,
            everybody=everybody,
            starts_at=starts,
        )
    emit(as_json, made, lambda: out.print(f"silent until {made.ends_at:%Y-%m-%d %H:%M} UTC: {made.silence_id}"))


@silence.command("list", epilog=example("hallmark notify silence list"))
def list_(ctx: typer.Context, ended: Ended = False, as_json: Json = False) -> None:
    """List silences: everybody's and yours."""
    with client(ctx) as hallmark:
        found = list(hallmark.silences(ended=ended))
    columns = ("silence", "state", "until (UTC)", "types", "model", "stages", "where", "for", "by", "why")
    rows = [
        (s.silence_id, s.state, s.ends_at, s.types, s.model, s.stages, s.cel, s.owner or "all", s.author, s.comment)
        for s in found
    ]
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@silence.command(epilog=example("hallmark notify silence expire 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def expire(
    ctx: typer.Context,
    silence_id: Annotated[str, typer.Argument(help="Id of the silence.", show_default=False)],
    as_json: Json = False,
) -> None:
    """End a silence now."""
    with client(ctx) as hallmark:
        ended = hallmark.expire_silence(silence_id)
    emit(as_json, ended, lambda: out.print(f"expired: {ended.silence_id}", markup=False))


@inhibition.command(
    "add",
    epilog=example(
        "hallmark notify inhibition add --source 'hallmark.glass.*' --until 'hallmark.review.given.v1' "
        "--target 'hallmark.version.*' --comment 'first things first'"
    ),
)
def add_rule(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Option("--source", help="What sounds the alarm.", show_default=False)],
    targets: Annotated[list[str], typer.Option("--target", help="What it hushes.", show_default=False)],
    comment: Annotated[str, typer.Option(help="Why; kept for ever.", show_default=False)],
    untils: Annotated[list[str] | None, typer.Option("--until", help="What ends the alarm.")] = None,
    span: Annotated[str, typer.Option("--for", help="How long it lasts at most.")] = "4h",
    equal: Annotated[
        list[str] | None, typer.Option(help="workspace, model, version, type or request must be the same (model).")
    ] = None,
    cel: Cel = None,
    as_json: Json = False,
) -> None:
    """Make a rule, for administrators: while an alarm is on, what it hushes is not sent."""
    seconds = int(duration(span, "--for").total_seconds())
    with client(ctx) as hallmark:
        made = hallmark.inhibit(
            sources, targets, comment, until_types=untils or (), seconds=seconds, equal=equal or ("model",), cel=cel
        )
    emit(as_json, made, lambda: out.print(f"made: {made.inhibition_id}", markup=False))


@inhibition.command("list", epilog=example("hallmark notify inhibition list"))
def list_rules(ctx: typer.Context, ended: Ended = False, as_json: Json = False) -> None:
    """List the rules of the workspace."""
    with client(ctx) as hallmark:
        found = list(hallmark.inhibitions(ended=ended))
    columns = ("rule", "alarm", "until", "at most (s)", "hushes", "of the same", "by", "why")
    rows = [
        (r.inhibition_id, r.source_types, r.until_types, r.seconds, r.target_types, r.equal, r.author, r.comment)
        for r in found
    ]
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@inhibition.command("remove", epilog=example("hallmark notify inhibition remove 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def remove_rule(
    ctx: typer.Context, inhibition_id: Annotated[str, typer.Argument(help="Id of the rule.", show_default=False)]
) -> None:
    """Remove a rule."""
    with client(ctx) as hallmark:
        hallmark.remove_inhibition(inhibition_id)
    out.print("removed")


def duration(text: str, option: str) -> timedelta:
    """`90s`, `30m`, `2h`, `3d`."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration such as 30m, 2h or 3d", param_hint=option)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
