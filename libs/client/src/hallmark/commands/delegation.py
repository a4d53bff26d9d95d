"""`hallmark delegation`"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

import typer

from hallmark.approval_output import moment
from hallmark.approval_results import Delegation
from hallmark.output import Json, client, emit, example, out, table
from hallmark.output import app as noun

app = noun("delegation", "Delegations: who votes for you while you are away.")


@app.command("list", epilog=example("hallmark delegation list"))
def list_(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Everybody's; for those who manage people.")] = False,
    as_json: Json = False,
) -> None:
    """List the delegations to you and by you, the latest first, ended ones too."""
    with client(ctx) as hallmark:
        found = hallmark.delegations(everybody=all_)
    rows = [(d.delegation_id, d.delegator, d.delegate, d.starts, d.ends, _state(d), d.reason) for d in found]
    columns = ("delegation", "of", "to", "from (UTC)", "until (UTC)", "", "reason")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark delegation grant carla --until 2026-12-31 --reason vacation"))
def grant(
    ctx: typer.Context,
    delegate: Annotated[str, typer.Argument(help="Who votes for you: the subject of their token.", show_default=False)],
    until: Annotated[str, typer.Option(help="A date (to its end, in UTC) or a time such as 2026-12-31T18:00+01:00.")],
    since: Annotated[
        str | None, typer.Option("--from", help="A date (from its start) or a time. Default: now.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept for ever.")] = "",
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="PERSON", help="Delegate for somebody else; for those who manage people."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let somebody vote where you may, for a while. Policies may forbid it, or take shorter ones only."""
    ends = _moment(until, "--until", to_the_end=True)
    starts = _moment(since, "--from") if since is not None else None
    with client(ctx) as hallmark:
        made = hallmark.delegate(delegate, ends, starts=starts, reason=reason, delegator=for_)
    period = f"from {moment(made.starts)} to {moment(made.ends)}"
    told = f"{made.delegate} may vote for {made.delegator} {period}: {made.delegation_id}"
    emit(as_json, made, lambda: out.print(told, markup=False))


@app.command(epilog=example("hallmark delegation end 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def end(
    ctx: typer.Context,
    delegation_id: Annotated[str, typer.Argument(help="Id of the delegation.", show_default=False)],
    as_json: Json = False,
) -> None:
    """End a delegation now. Votes that were cast with it before stay."""
    with client(ctx) as hallmark:
        made = hallmark.end_delegation(delegation_id)
    emit(as_json, made, lambda: out.print(f"{made.delegate} votes for {made.delegator} no more", markup=False))


def _state(delegation: Delegation) -> str:
    now = datetime.now(UTC)
    if delegation.ended_at is not None:
        return f"ended by {delegation.ended_by}"
    if delegation.ends <= now:
        return "over"
    return "in force" if delegation.starts <= now else "to come"


def _moment(given: str, option: str, *, to_the_end: bool = False) -> datetime:
    """A date is a whole day of UTC."""
    try:
        day = datetime.combine(date.fromisoformat(given), time(), UTC)
        return day + timedelta(days=1) if to_the_end else day
    except OverflowError:
        raise typer.BadParameter("no later date than 9999-12-30 has an end", param_hint=option) from None
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        why = f"{given!r} is no date such as 2026-12-31 and no time such as 2026-12-31T18:00Z"
        raise typer.BadParameter(why, param_hint=option) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
