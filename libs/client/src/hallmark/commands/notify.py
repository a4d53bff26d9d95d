"""`hallmark notify`"""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from hallmark.commands import quiet, template, together
from hallmark.output import Json, client, emit, example, out, table, text
from hallmark.output import app as noun
from hallmark.results import FilterPreview

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SubscriptionArgument = Annotated[str, typer.Argument(help="Id of the subscription.", show_default=False)]
app = noun("notify", "Subscriptions: who hears of what, where.")
app.add_typer(quiet.silence)
app.add_typer(quiet.inhibition)
app.add_typer(template.app)


class Channel(StrEnum):
    SLACK = "slack"
    EMAIL = "email"
    WEBHOOK = "webhook"
    PAGERDUTY = "pagerduty"
    TEAMS = "teams"
    APPRISE = "apprise"


class Format(StrEnum):
    CLOUDEVENTS = "cloudevents"
    DATABRICKS = "databricks"
    MLFLOW = "mlflow"
    SAGEMAKER = "sagemaker"
    SLACK = "slack"


class Order(StrEnum):
    FIFO = "fifo"
    ANY = "any"


@app.command(
    epilog=example(
        "hallmark notify subscribe email team@example.org --model 'fraud*' --stage Production",
        "hallmark notify subscribe slack https://hooks.slack.com/services/... --for group:risk",
        "hallmark notify subscribe slack https://hooks.slack.com/services/... --group-by model --wait 1m",
        "hallmark notify subscribe email ana@example.org --digest day --at 08:30 --zone Europe/Berlin",
        "hallmark notify subscribe webhook https://ci.example.org/hook --cel 'data.version > 3' --dry-run",
    )
)
def subscribe(
    ctx: typer.Context,
    channel: Annotated[Channel, typer.Argument(help="How.", show_default=False)],
    address: Annotated[
        str, typer.Argument(help="A URL, an e-mail address, or PagerDuty's routing key.", show_default=False)
    ],
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="Event types, as patterns (hallmark.stage.*; with --for all that have names)."),
    ] = None,
    model: Annotated[str, typer.Option(help="Models, as a pattern.")] = "*",
    stages: Annotated[
        list[str] | None, typer.Option("--stage", help="Only what enters or leaves this stage, or @alias.")
    ] = None,
    cel: Annotated[
        str | None,
        typer.Option(help="Only what this expression holds for: event.type, event.model, ..., and data, its body."),
    ] = None,
    audience: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            help="Only what pages, reminds or tells this name: group:NAME, user:NAME, service:NAME, channel:NAME.",
        ),
    ] = None,
    secret: Annotated[str | None, typer.Option(help="Signs webhooks; whsec_...", envvar="HALLMARK_SECRET")] = None,
    format_: Annotated[Format, typer.Option("--format", help="Of a webhook's body.")] = Format.CLOUDEVENTS,
    retry: Annotated[
        str | None, typer.Option(help="Pauses after failed tries, instead of three days' worth: 5s,5m,2h.")
    ] = None,
    order: Annotated[
        Order, typer.Option(help="fifo: one event of a model after the other; any: none waits for another.")
    ] = Order.FIFO,
    group_by: together.GroupBy = None,
    wait: together.Wait = "30s",
    interval: together.Interval = "5m",
    repeat: together.Repeat = "4h",
    digest: together.Digest = None,
    at: together.At = "09:00",
    weekday: together.OnWeekday = together.Weekday.MON,
    zone: together.Zone = "UTC",
    first_at_once: together.FirstAtOnce = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Subscribe to nothing; tell what would have come of the last 500 events.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Have events delivered. A webhook's secret is shown once."""
    chosen: dict[str, Any] = {"types": types or (), "model": model, "audience": audience or ()}
    chosen |= {"stages": stages or (), "cel": cel}
    policy: dict[str, Any] = {"retry_seconds": _pauses(retry), "order": order.value, "format": format_.value}
    policy |= {
        "bundling": together.bundling(group_by, wait, interval, repeat, digest, at, weekday, zone, first_at_once)
    }
    with client(ctx) as hallmark:
        if dry_run:
            found = hallmark.preview_subscription(**chosen)
            emit(as_json, found, lambda: print_preview(found))
            return
        made = hallmark.subscribe(channel.value, address, secret=secret, **policy, **chosen)
    more = f"\nsecret: {made.secret}" if made.secret else ""
    if made.status == "unconfirmed":
        more = "\nnothing is sent before whoever reads the mailbox has followed the link that was mailed there"
    emit(as_json, made, lambda: out.print(f"subscribed: {made.subscription_id}{more}", markup=False))


def print_preview(found: FilterPreview) -> None:
    events = f"{found.looked_at} events" + (f" since {text(found.since)} UTC" if found.since else "")
    out.print(f"this filter would have matched {found.matched} of the last {events}", markup=False)
    if found.failed:
        out.print(f"it had no answer for {found.failed} of them, such as {found.error}", style="yellow", markup=False)
    if found.newest:
        out.print(table(("at (UTC)", "event", ""), [(e.time, e.type, e.headline) for e in found.newest]))


@app.command("list", epilog=example("hallmark notify list"))
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List subscriptions."""
    with client(ctx) as hallmark:
        found = list(hallmark.subscriptions())
    columns = ("subscription", "status", "channel", "address", "types", "model", "stages", "for", "where", "failed")
    rows = [
        (
            *(s.subscription_id, s.status, s.channel, s.address, s.types, s.model, s.stages, s.audience, s.cel),
            (s.filter_errors or {}).get("count"),
        )
        for s in found
    ]
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark notify show 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def show(ctx: typer.Context, subscription_id: SubscriptionArgument, as_json: Json = False) -> None:
    """Show one subscription, and what its expression failed at."""
    with client(ctx) as hallmark:
        found = hallmark.subscription(subscription_id)
    told = {name: value for name, value in found.model_dump().items() if value not in (None, [])}
    for part in ("filter_errors", "confirmation"):
        told |= {f"{part}.{name}": value for name, value in told.pop(part, {}).items()}
    emit(as_json, found, lambda: out.print(table(("", ""), list(told.items()))))


@app.command(
    epilog=example(
        "hallmark notify edit 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b --stage Staging --stage Production",
        "hallmark notify edit 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b --cel ''",
    )
)
def edit(
    ctx: typer.Context,
    subscription_id: SubscriptionArgument,
    types: Annotated[list[str] | None, typer.Option("--type", help="Event types, as patterns.")] = None,
    model: Annotated[str | None, typer.Option(help="Models, as a pattern.", show_default=False)] = None,
    stages: Annotated[list[str] | None, typer.Option("--stage", help="Stages; '' for all.")] = None,
    cel: Annotated[str | None, typer.Option(help="The expression; '' for none.", show_default=False)] = None,
    audience: Annotated[list[str] | None, typer.Option("--for", help="Names; '' for nobody in particular.")] = None,
    group_by: together.GroupBy = None,
    wait: together.Wait = "30s",
    interval: together.Interval = "5m",
    repeat: together.Repeat = "4h",
    digest: together.Digest = None,
    at: together.At = "09:00",
    weekday: together.OnWeekday = together.Weekday.MON,
    zone: together.Zone = "UTC",
    first_at_once: together.FirstAtOnce = None,
    alone: Annotated[bool, typer.Option("--alone", help="Each event in a message of its own again.")] = False,
    as_json: Json = False,
) -> None:
    """Change the filters of a subscription. What is not named stays; what waits is sent."""
    given = {"types": types, "model": model, "stages": stages, "cel": cel, "audience": audience}
    changes = {name: _without_empty(value) for name, value in given.items() if value is not None}
    chosen = together.bundling(group_by, wait, interval, repeat, digest, at, weekday, zone, first_at_once)
    changes |= {"bundling": chosen} if chosen or alone else {}
    with client(ctx) as hallmark:
        changed = hallmark.edit_subscription(subscription_id, **changes)
    emit(as_json, changed, lambda: out.print(f"changed: {changed.subscription_id}", markup=False))


@app.command(epilog=example("hallmark notify confirm 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def confirm(ctx: typer.Context, subscription_id: SubscriptionArgument, as_json: Json = False) -> None:
    """Mail another link to a mailbox that has not been confirmed."""
    with client(ctx) as hallmark:
        asked = hallmark.ask_confirmation(subscription_id)
    until = text((asked.confirmation or {}).get("expires_at"))
    emit(as_json, asked, lambda: out.print(f"asked again: {asked.address}, until {until}", markup=False))


@app.command(epilog=example("hallmark notify pause 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def pause(ctx: typer.Context, subscription_id: SubscriptionArgument, as_json: Json = False) -> None:
    """Send nothing for a while; what comes is kept."""
    with client(ctx) as hallmark:
        changed = hallmark.pause_subscription(subscription_id)
    emit(as_json, changed, lambda: out.print(f"paused: {changed.subscription_id}", markup=False))


@app.command(epilog=example("hallmark notify enable 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def enable(ctx: typer.Context, subscription_id: SubscriptionArgument, as_json: Json = False) -> None:
    """Send to a disabled subscription again."""
    with client(ctx) as hallmark:
        changed = hallmark.enable_subscription(subscription_id)
    emit(as_json, changed, lambda: out.print(f"enabled: {changed.subscription_id}", markup=False))


class Which(StrEnum):
    FAILED = "failed"
    MISSING = "missing"
    ALL = "all"


@app.command(
    epilog=example(
        "hallmark notify replay failed 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b --since 7d",
        "hallmark notify replay missing 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b --dry-run",
    )
)
def replay(
    ctx: typer.Context,
    which: Annotated[
        Which,
        typer.Argument(
            help="failed: what was given up; missing: what was never sent, also of before; all: everything.",
            show_default=False,
        ),
    ],
    subscription_id: SubscriptionArgument,
    since: Annotated[str | None, typer.Option(help="Of events since: 7d, 12h, or a time with its zone.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Event types, as patterns.")] = None,
    model: Annotated[str, typer.Option(help="Models, as a pattern.")] = "*",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; tell how many it would be.")] = False,
    as_json: Json = False,
) -> None:
    """Send again, under the same ids: receivers drop what they have."""

    def told(looked: int, count: int) -> None:
        if not as_json:
            out.print(f"{looked} events looked at, {count} deliveries", markup=False)

    with client(ctx) as hallmark:
        count = hallmark.replay(
            subscription_id,
            which.value,
            since=_moment(since),
            types=types or (),
            model=model,
            dry_run=dry_run,
            progress=told,
        )
    verb = "would be sent" if dry_run else "are due"
    emit(as_json, {"deliveries": count, "dry_run": dry_run}, lambda: out.print(f"{count} deliveries {verb}"))


@app.command(epilog=example("hallmark notify resend 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def resend(
    ctx: typer.Context,
    delivery_id: Annotated[str, typer.Argument(help="Id of the delivery.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Send one delivery again, under the same id."""
    with client(ctx) as hallmark:
        made = hallmark.replay_delivery(delivery_id)
    emit(as_json, made, lambda: out.print(f"due again: {made['delivery_id']}", markup=False))


@app.command(epilog=example("hallmark notify reconcile --since 7d"))
def reconcile(
    ctx: typer.Context,
    since: Annotated[str | None, typer.Option(help="Of events taken in since: 7d, or a time with its zone.")] = None,
    as_json: Json = False,
) -> None:
    """Prove that every event has a delivery for each subscription that wanted it; status 1 when one has none."""
    with client(ctx) as hallmark:
        found = hallmark.reconcile_deliveries(_moment(since))
    rows = [(one["subscription_id"], one["event_id"], one["why"]) for one in found["examples"]]

    def told() -> None:
        out.print(
            f"{found['events']} events, {found['checked']} deliveries, {found['unaccounted']} unaccounted for",
            markup=False,
        )
        if rows:
            out.print(table(("subscription", "event", "why"), rows))

    emit(as_json, found, told)
    if found["unaccounted"]:
        raise typer.Exit(1)


def _moment(text: str | None) -> datetime | None:
    """`7d` ago, or a time with its zone."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,5})([smhd])", text):
        return datetime.now(UTC) - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    with suppress(ValueError):
        if (moment := datetime.fromisoformat(text)).tzinfo is not None:
            return moment
    raise typer.BadParameter(f"{text!r} is neither like 7d nor like 2026-11-21T10:00:00Z", param_hint="--since")


@app.command(epilog=example("hallmark notify resume 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def resume(ctx: typer.Context, subscription_id: SubscriptionArgument, as_json: Json = False) -> None:
    """Send again, first what was kept."""
    with client(ctx) as hallmark:
        changed = hallmark.resume_subscription(subscription_id)
    emit(as_json, changed, lambda: out.print(f"resumed: {changed.subscription_id}", markup=False))


@app.command(epilog=example("hallmark notify deliveries --status dead"))
def deliveries(
    ctx: typer.Context,
    subscription: Annotated[str | None, typer.Option(help="Of this subscription only.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, succeeded, dead, waiting, silenced, ...")] = None,
    message: Annotated[
        str | None, typer.Option("--in", help="What this message, by its delivery, told of.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List deliveries: what was sent where, how often it was tried, what went wrong."""
    with client(ctx) as hallmark:
        found = list(hallmark.deliveries(subscription, status, message))
    columns = ("delivery", "event", "subject", "channel", "address", "status", "tries", "next try (UTC)")
    keys = ("delivery_id", "event_type", "subject", "channel", "address", "status", "attempts", "due_at")
    rows = [tuple(d.get(key) for key in keys) for d in found]
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark notify remove 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def remove(
    ctx: typer.Context,
    subscription_id: SubscriptionArgument,
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


@app.command(
    epilog=example(
        "hallmark notify rotate 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b",
        "hallmark notify rotate 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b --at-once",
    )
)
def rotate(
    ctx: typer.Context,
    subscription_id: SubscriptionArgument,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Somebody else knows the secret: it signs nothing any more.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give a webhook a new secret, shown once. For a day messages are signed with both."""
    with client(ctx) as hallmark:
        made = hallmark.rotate_secret(subscription_id, at_once=at_once)
    lines = [f"secret: {made.secret}"]
    if made.former_until:
        lines.append(f"the former one signs too until {made.former_until:%Y-%m-%d %H:%M} UTC")
    emit(as_json, made, lambda: out.print("\n".join(lines), markup=False))


@app.command(epilog=example("hallmark notify keys"))
def keys(ctx: typer.Context, as_json: Json = False) -> None:
    """List the public keys that webhooks are signed with (v1a of Standard Webhooks)."""
    with client(ctx) as hallmark:
        found = hallmark.webhook_keys()
    emit(as_json, found, lambda: out.print(table(("key", "state"), [(k.key, k.state) for k in found])))


def _without_empty(value: Any) -> Any:
    return [one for one in value if one] if isinstance(value, list) else value
