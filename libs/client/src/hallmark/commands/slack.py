"""`hallmark notify slack`"""

import typer

from hallmark.output import Json, client, emit, example, out

app = typer.Typer(name="slack", help="Votes by a click in Slack.", no_args_is_help=True)


@app.command(epilog=example("hallmark notify slack link"))
def link(ctx: typer.Context, as_json: Json = False) -> None:
    """Show that a Slack account is yours: enter there what this prints. Clicks of it then count as your votes, where
    policies name slack among the methods of signatures."""
    with client(ctx) as hallmark:
        made = hallmark.slack_code()
    until = f"{made.expires_at:%H:%M} UTC"
    emit(as_json, made, lambda: out.print(f"enter in Slack before {until}:\n{made.say}", markup=False))


@app.command(epilog=example("hallmark notify slack unlink"))
def unlink(ctx: typer.Context, as_json: Json = False) -> None:
    """Let no Slack account act for you any more."""
    with client(ctx) as hallmark:
        count = hallmark.unlink_slack()
    emit(as_json, {"accounts": count}, lambda: out.print(f"unlinked: {count}"))
