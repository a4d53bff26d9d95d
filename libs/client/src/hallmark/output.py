"""What every command shares: options, tables for people, JSON for scripts, exit codes for CI."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from hallmark.client import Client
from hallmark.errors import HallmarkError
from hallmark.results import Transition

FAILED, USAGE, AWAITING, REFUSED = 1, 2, 3, 4
STAGE_COLOURS = {"Production": "bold green", "Staging": "yellow", "Archived": "dim", "Development": "cyan"}

Json = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys, for scripts.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait for the decision.", min=0)]
Reason = Annotated[str, typer.Option(help="Why; kept for ever in the audit log.")]
Field = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE that the policies ask for, such as change_ticket; may be given again."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
ModelArgument = Annotated[str, typer.Argument(help="Name of the model.", show_default=False)]
VersionArgument = Annotated[int, typer.Argument(help="Number of the version.", show_default=False, min=1)]

# In a pipe there is no width to fit into; a wrapped line would be hard to search.
out = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)
err = Console(stderr=True, highlight=False)


class Caller:
    """The global options; the client is made when a command first needs it."""

    def __init__(self, url: str | None, token: str | None, workspace: str | None) -> None:
        self._options = (url, token, workspace)

    def client(self) -> Client:
        url, token, workspace = self._options
        return Client(url, token, workspace=workspace, retry_for=5.0)


def client(ctx: typer.Context) -> Client:
    """The client for the global options of this run."""
    caller = ctx.find_root().obj
    return (caller if isinstance(caller, Caller) else Caller(None, None, None)).client()


def app(name: str, about: str) -> typer.Typer:
    return typer.Typer(name=name, help=about, no_args_is_help=True, rich_markup_mode="rich", add_completion=False)


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "Example: " + "  ".join(f"[bold]{escape(line)}[/bold]" for line in lines)


def emit(as_json: bool, data: Any, render: Callable[[], None]) -> None:
    """Prints `data` as JSON, or lets `render` print it for people."""
    if as_json:
        sys.stdout.write(json.dumps(plain(data), indent=2, ensure_ascii=False) + "\n")
    else:
        render()


def plain(data: Any) -> Any:
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json", by_alias=True)
    if isinstance(data, dict):
        return {name: plain(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(item) for item in data]
    return data


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table without frills; text from the services is never read as markup. The first column never wraps: ids."""
    heads = [Column(name, overflow="fold", no_wrap=place == 0) for place, name in enumerate(columns)]
    made = Table(*heads, title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(text(cell)) for cell in row))
    return made


def stage(name: str) -> Text:
    return Text(name, style=STAGE_COLOURS.get(name, ""))


def text(value: object) -> str:
    """One cell: times in UTC to the second, floats short, nothing as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1e6 else f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return str(value)


def people(approvals: Iterable[Any]) -> str:
    """The names in a list of approvals, whatever their shape."""
    return ", ".join(str(a.get("name") or a.get("voter")) if isinstance(a, dict) else str(a) for a in approvals)


def print_transition(transition: Transition) -> None:
    t = transition
    out.print(f"{escape(t.model)} version {t.version}: {t.from_stage} -> [bold]{t.to_stage}[/bold]: {t.status}")
    if t.criteria:
        rows = [(c.gate, c.expression, Text(c.result, style=verdict(c.result)), c.message) for c in t.criteria]
        out.print(table(("gate", "expression", "result", ""), rows))
    if t.approved_by:
        out.print(f"approved by {escape(people(t.approved_by))}")
    if t.detail:
        out.print(escape(f"{t.detail} [{t.code}]"))
    if t.open:
        out.print(f"Awaiting approval. Somebody else can say: [bold]hallmark request approve {t.transition_id}[/bold]")


def verdict(result: str) -> str:
    return "green" if result in ("pass", "passed", "true", "ok") else "red"


def exit_for(transition: Transition) -> None:
    """0 when it was applied, 3 while it awaits people, 4 when it was refused or expired."""
    if not transition.applied:
        raise typer.Exit(AWAITING if transition.open else REFUSED)


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """`["a=1", "b=2"]` -> `{"a": "1", "b": "2"}`."""
    found = {}
    for item in given:
        name, separator, value = item.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{item!r} is not NAME=VALUE", param_hint=option)
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint=option)
        found[name] = value
    return found


def instant(given: str | None) -> datetime:
    """ISO 8601; without a zone it is UTC; nothing is now.

    Raises:
        HallmarkError: code `bad-time`.
    """
    if given is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise HallmarkError("bad-time", f"{given!r} is not a time such as 2026-11-02T14:30:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def duration(seconds: float) -> str:
    """The two greatest units: 3 d 4 h, 5 min 6 s."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    left, told = round(seconds), []
    for name, size in units:
        count, left = divmod(left, size)
        if count:
            told.append(f"{count} {name}")
    return " ".join(told[:2]) or "0 s"
