"""Time in stages, drawn: a lane for each stage, a piece of it for each version."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.text import Text

from hallmark.audit_results import Stay
from hallmark.output import STAGE_COLOURS, out, people, table, text

WIDTH = 72
NOBODY = "\N{MIDDLE DOT}"


def print_lanes(found: Mapping[str, Sequence[Stay]], now: datetime | None = None) -> None:
    stays = [(name, stay) for name, all_ in found.items() for stay in all_]
    if not stays:
        out.print("no version has left its first stage yet")
        return
    end = now or datetime.now(UTC)
    begin = min(stay.since for _, stay in stays)
    width = max(len(name) for name in found)
    for name, all_ in found.items():
        out.print(Text(f"{name:{width}}  ") + Text(lane(all_, begin, end), style=STAGE_COLOURS.get(name, "")))
    first, last = text(begin), f"{text(end)} UTC"
    out.print(f"{'':{width}}  {first}{last:>{max(WIDTH - len(first), len(last) + 1)}}", style="dim")
    out.print()
    rows = [
        (stay.since, stay.until, f"v{stay.version}", name, stay.requested_by, people(stay.approved_by), stay.reason)
        for name, stay in sorted(stays, key=lambda one: one[1].since)
    ]
    out.print(table(("from (UTC)", "until", "version", "stage", "asked by", "approved by", "why"), rows))


def lane(stays: Sequence[Stay], begin: datetime, end: datetime, width: int = WIDTH) -> str:
    """`v1---v2----...`: each stay begins with its version, where there is room for it, and none disappears."""
    cells = [NOBODY] * width
    seconds = max((end - begin).total_seconds(), 1e-9)

    def place(moment: datetime) -> int:
        return min(max(int((moment - begin).total_seconds() / seconds * width), 0), width)

    for stay in sorted(stays, key=lambda one: one.since):
        left = min(place(stay.since), width - 1)
        right = max(place(stay.until or end), left + 1)
        name = f"v{stay.version}"
        piece = name.ljust(right - left, "-") if len(name) <= right - left else "-" * (right - left)
        cells[left:right] = list(piece)
    return "".join(cells)
