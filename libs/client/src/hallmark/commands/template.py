"""`hallmark notify template`"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hallmark.output import Json, client, emit, example, out, table
from hallmark.output import app as noun

app = noun("template", "Templates: your own words for events, per channel.")


class Channel(StrEnum):
    SLACK = "slack"
    EMAIL = "email"
    TEAMS = "teams"
    PAGERDUTY = "pagerduty"
    WEBHOOK = "webhook"
    APPRISE = "apprise"


ChannelArgument = Annotated[Channel, typer.Argument(help="Where they are used.", show_default=False)]
Types = Annotated[str, typer.Argument(help="Event types, as a pattern; the longest that fits.", show_default=False)]
File = Annotated[
    Path, typer.Argument(help="The text (Jinja2).", exists=True, dir_okay=False, readable=True, show_default=False)
]
Subject = Annotated[
    str | None, typer.Option(help="Of an e-mail, or Apprise's title (Jinja2, one line).", show_default=False)
]
Html = Annotated[
    Path | None, typer.Option(help="Of an e-mail.", exists=True, dir_okay=False, readable=True, show_default=False)
]


@app.command(
    epilog=example(
        "hallmark notify template publish slack 'hallmark.stage.*' stage.j2",
        "hallmark notify template publish email 'hallmark.stage.*' stage.j2 --subject '{{ notice.headline }}'",
    )
)
def publish(
    ctx: typer.Context,
    channel: ChannelArgument,
    types: Types,
    file: File,
    subject: Subject = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Publish a revision, for administrators; it is in force at once. It sees notice, event and data."""
    with client(ctx) as hallmark:
        made = hallmark.publish_template(channel.value, types, _parts(file, subject, html))
    emit(as_json, made, lambda: out.print(f"{made.channel} {made.types} revision {made.revision}", markup=False))


@app.command(epilog=example("hallmark notify template preview slack 'hallmark.stage.*' stage.j2"))
def preview(
    ctx: typer.Context,
    channel: ChannelArgument,
    types: Types,
    file: File,
    subject: Subject = None,
    html: Html = None,
    event: Annotated[str | None, typer.Option(help="Id of an event (the newest).", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Show what a template makes of a real past event. Nothing is kept or sent."""
    with client(ctx) as hallmark:
        made = hallmark.preview_template(channel.value, types, _parts(file, subject, html), event_id=event)
    emit(as_json, made, lambda: out.print("\n".join(made.parts.values()), markup=False))


@app.command("list", epilog=example("hallmark notify template list --all"))
def list_(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="All revisions.")] = False,
    as_json: Json = False,
) -> None:
    """List the templates in force."""
    with client(ctx) as hallmark:
        found = list(hallmark.templates(every=every))
    columns = ("channel", "types", "revision", "in force", "published by", "at (UTC)")
    rows = [(t.channel, t.types, t.revision, t.current, t.published_by, t.published_at) for t in found]
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark notify template withdraw slack 'hallmark.stage.*'"))
def withdraw(ctx: typer.Context, channel: ChannelArgument, types: Types) -> None:
    """Use the built-in words again."""
    with client(ctx) as hallmark:
        hallmark.withdraw_template(channel.value, types)
    out.print("withdrawn")


def _parts(file: Path, subject: str | None, html: Path | None) -> dict[str, str]:
    parts = {"text": file.read_text()}
    return parts | ({"subject": subject} if subject else {}) | ({"html": html.read_text()} if html else {})
