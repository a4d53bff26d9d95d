"""`hallmark notify`"""

import re
from enum import StrEnum
from typing import Annotated

import typer

from hallmark.output import Json, client, emit, example, out, table
from hallmark.output import app as noun

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
app = noun("notify", "Subscriptions: who hears of what, where.")


class Channel(StrEnum):
    SLACK = "slack"
    EMAIL = "email"
    WEBHOOK = "webhook"


@app.command(
    epilog=example(
        "hallmark notify subscribe email team@example.org --model 'fraud*'",
        "hallmark notify subscribe slack https://hooks.slack.com/services/... --for group:risk",
    )
)
def subscribe(
    ctx: typer.Context,
    channel: Annotated[Channel, typer.Argument(help="How.", show_default=False)],
    address: Annotated[str, typer.Argument(help="A URL, or an e-mail address.", show_default=False)],
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="Event types, as patterns (hallmark.stage.*; with --for all that have names)."),
    ] = None,
    model: Annotated[str, typer.Option(help="Models, as a pattern.")] = "*",
    audience: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            help="Only what pages, reminds or tells this name: group:NAME, user:NAME, service:NAME, channel:NAME.",
        ),
    ] = None,
    retry: Annotated[
        str | None, typer.Option(help="Pauses after failed tries, instead of three days' worth: 5s,5m,2h.")
    ] = None,
    secret: Annotated[str | None, typer.Option(help="Signs webhooks; whsec_...", envvar="HALLMARK_SECRET")] = None,
    as_json: Json = False,
) -> None:
    """Have events delivered. A webhook's secret is shown once."""
    with client(ctx) as hallmark:
        made = hallmark.subscribe(
            channel.value,
            address,
            types=types or (),
            model=model,
            secret=secret,
            audience=audience or (),
            retry_seconds=_pauses(retry),
        )
    secret_line = f"\nsecret: {made.secret}" if made.secret else ""
    emit(as_json, made, lambda: out.print(f"subscribed: {made.subscription_id}{secret_line}", markup=False))


@app.command("list", epilog=example("hallmark notify list"))
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List subscriptions."""
    with client(ctx) as hallmark:
        found = list(hallmark.subscriptions())
    columns = ("subscription", "channel", "address", "types", "model", "for")
    rows = [(s.subscription_id, s.channel, s.address, s.types, s.model, s.audience) for s in found]
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark notify deliveries --status dead"))
def deliveries(
    ctx: typer.Context,
    subscription: Annotated[str | None, typer.Option(help="Of this subscription only.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, succeeded, dead or cancelled.")] = None,
    as_json: Json = False,
) -> None:
    """List deliveries: what was sent where, how often it was tried, what went wrong."""
    with client(ctx) as hallmark:
        found = list(hallmark.deliveries(subscription, status))
    columns = ("delivery", "event", "subject", "channel", "address", "status", "tries", "next try (UTC)")
    keys = ("delivery_id", "event_type", "subject", "channel", "address", "status", "attempts", "due_at")
    rows = [tuple(d.get(key) for key in keys) for d in found]
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark notify remove 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def remove(
    ctx: typer.Context,
    subscription_id: Annotated[str, typer.Argument(help="Id of the subscription.", show_default=False)],
) -> None:
    """Remove a subscription."""
    with client(ctx) as hallmark:
        hallmark.unsubscribe(subscription_id)
    out.print("removed")


def _pauses(text: str | None) -> tuple[float, ...]:
    """Seconds of `5s,5m,2h`."""
    found = [re.fullmatch(r"(\d{1,7})([smhd])", part.strip()) for part in text.split(",")] if text else []
    if not all(found):
        raise typer.BadParameter(f"{text!r} is no list of durations such as 5s,5m,2h", param_hint="--retry")
    return tuple(float(match[1]) * _UNITS[match[2]] for match in found if match)
