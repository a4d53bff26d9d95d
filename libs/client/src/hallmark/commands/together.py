"""The options that say whether events go out together."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from hallmark.commands.quiet import duration


class Every(StrEnum):
    DAY = "day"
    WEEK = "week"


class Weekday(StrEnum):
    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


GroupBy = Annotated[
    list[str] | None,
    typer.Option(
        "--group-by", help="One message for events of the same model, version, type, request, workspace; '' for all."
    ),
]
Wait = Annotated[str, typer.Option(help="Of a group: until its first message.")]
Interval = Annotated[str, typer.Option(help="Of a group: between two messages.")]
Repeat = Annotated[str, typer.Option(help="Of a group by request: until an open one is told of again.")]
Digest = Annotated[Every | None, typer.Option(help="One message a day, or a week.", show_default=False)]
At = Annotated[str, typer.Option(help="Of a digest: when, on a clock in --zone.")]
OnWeekday = Annotated[Weekday, typer.Option("--weekday", help="Of a weekly digest.")]
Zone = Annotated[str, typer.Option(help="Of a digest: the reader's time zone, such as Europe/Berlin.")]
FirstAtOnce = Annotated[
    str | None,
    typer.Option("--first-at-once", help="Of a digest: send what comes after so long a quiet time at once (1h)."),
]


def bundling(
    by: list[str] | None,
    wait: str,
    interval: str,
    repeat: str,
    every: Every | None,
    at: str,
    weekday: Weekday,
    zone: str,
    first_at_once: str | None,
) -> dict[str, Any] | None:
    """What these options say; None: each event goes out alone."""
    if by and every:
        raise typer.BadParameter("events go out in groups or in a digest, not both", param_hint="--digest")
    if every:
        quiet = int(duration(first_at_once, "--first-at-once").total_seconds()) if first_at_once else None
        told: dict[str, Any] = {
            "mode": "digest",
            "every": every.value,
            "at": at,
            "weekday": weekday.value,
            "zone": zone,
        }
        return told | ({"first_at_once_seconds": quiet} if quiet else {})
    if by:
        spans = {"wait_seconds": (wait, "--wait"), "interval_seconds": (interval, "--interval")}
        spans |= {"repeat_seconds": (repeat, "--repeat")}
        told = {"mode": "grouped", "by": [one for one in by if one]}
        return told | {name: int(duration(*span).total_seconds()) for name, span in spans.items()}
    return None
