"""`hallmark audit search`"""

from datetime import timedelta
from typing import Annotated, Any

import typer

from hallmark.output import Json, client, emit, example, out, pairs, table
from hallmark.output import app as noun
from hallmark.results import SavedSearch, SearchRun

app = noun("search", "Saved searches of the audit log: run by hand or on a schedule, and told of by alerts.")
Name = Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.", show_default=False)]
Owner = Annotated[str | None, typer.Option(help="Of somebody else, for administrators.")]


@app.command(
    epilog=example(
        "hallmark audit search save glass --type 'hallmark.glass.*' --every 60 --alert-above 0",
        "hallmark audit search save mine --filter actor=ana --from 0",
    )
)
def save(
    ctx: typer.Context,
    name: Name,
    types: Annotated[list[str] | None, typer.Option("--type", help="Event types, as patterns.")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="NAME=VALUE: workspace (* for all), model, actor, subject, outcome, ..."),
    ] = None,
    q: Annotated[str | None, typer.Option("--text", help="Words, or a part of a name or id.")] = None,
    every: Annotated[int | None, typer.Option(help="Run every so many seconds; 60 at least.")] = None,
    alert_above: Annotated[int | None, typer.Option(help="More matches in a run are an alert to you.")] = None,
    start: Annotated[int | None, typer.Option("--from", help="Entries from this index on. Default: new ones.")] = None,
    as_json: Json = False,
) -> None:
    """Save a search. Alerts come to whoever says `hallmark notify subscribe ... --for user:YOU`."""
    wanted: dict[str, Any] = {**pairs(filters or (), "--filter"), **({"type": types} if types else {})}
    with client(ctx) as hallmark:
        made = hallmark.save_search(
            name,
            wanted,
            q=q,
            every=None if every is None else timedelta(seconds=every),
            alert_above=alert_above,
            start=start,
        )
    emit(as_json, made, lambda: out.print(f"saved: {made.name}, from entry {made.next} on", markup=False))


@app.command("list", epilog=example("hallmark audit search list"))
def list_(ctx: typer.Context, owner: Owner = None, as_json: Json = False) -> None:
    """List saved searches, and what their last runs found."""
    with client(ctx) as hallmark:
        found = list(hallmark.saved_searches(owner=owner))
    columns = ("search", "looks for", "every (s)", "alert above", "from entry", "last run (UTC)", "found")
    rows = [(s.name, _looks_for(s.filters, s.q), s.every, s.alert_above, s.next, s.ran_at, _last(s)) for s in found]
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark audit search run glass"))
def run(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Run a saved search now, over the entries since its last run."""
    with client(ctx) as hallmark:
        ran = hallmark.run_search(name)
    emit(as_json, ran, lambda: out.print(_found(ran), markup=False))


@app.command(epilog=example("hallmark audit search remove glass"))
def remove(ctx: typer.Context, name: Name, owner: Owner = None) -> None:
    """Remove a saved search. The log keeps what it found."""
    with client(ctx) as hallmark:
        hallmark.remove_search(name, owner=owner)
    out.print("removed")


def _last(search: SavedSearch) -> str:
    if search.outcome in (None, "allowed"):
        return "" if search.matches is None else str(search.matches)
    return str(search.outcome)


def _looks_for(filters: dict[str, Any], q: str | None) -> str:
    told = {**filters, **({"text": q} if q else {})}
    return " ".join(f"{name}={','.join(v) if isinstance(v, list) else v}" for name, v in told.items())


def _found(ran: SearchRun) -> str:
    if ran.first == ran.until:
        return "nothing new in the log"
    more = ", ..." if ran.matches > len(ran.indexes) else ""
    which = f": {', '.join(map(str, ran.indexes))}{more}" if ran.indexes else ""
    alerted = "; you are alerted" if ran.alerted else ""
    return f"{ran.matches} of the entries {ran.first} to {ran.until - 1}{which}{alerted}"
