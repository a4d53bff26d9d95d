"""`hallmark member`"""

from typing import Annotated

import typer

from hallmark.approval_output import moment
from hallmark.approval_results import Member
from hallmark.output import Json, client, emit, example, out, table
from hallmark.output import app as noun

app = noun("member", "People: in which groups approval knows them to be.")
Subject = Annotated[str, typer.Argument(help="The subject of their token.", show_default=False)]


@app.command(epilog=example("hallmark member show ben"))
def show(ctx: typer.Context, subject: Subject, as_json: Json = False) -> None:
    """Show the groups somebody is known to be in, and who told."""
    with client(ctx) as hallmark:
        found = hallmark.member(subject)
    emit(as_json, found, lambda: _print(found))


@app.command("set", epilog=example("hallmark member set ben --group reviewers --group risk"))
def set_(
    ctx: typer.Context,
    subject: Subject,
    group: Annotated[
        list[str] | None, typer.Option(help="A group they are in; may be given again. No other counts any more.")
    ] = None,
    none: Annotated[bool, typer.Option("--no-groups", help="They are in no group any more (they left).")] = False,
    service: Annotated[bool, typer.Option("--service", help="It is a service account, which never votes.")] = False,
    as_json: Json = False,
) -> None:
    """Tell in which groups somebody is from now on. Votes on open requests that rest on others count no more.

    It takes away only, until their next token: groups are given by tokens. Not for yourself.
    """
    if bool(group) == none:
        raise typer.BadParameter("name every group they are in, or say --no-groups", param_hint="--group")
    with client(ctx) as hallmark:
        found = hallmark.set_member(subject, group or [], person=not service)
    emit(as_json, found, lambda: _print(found))


def _print(member: Member) -> None:
    rows = [
        ("subject", member.subject),
        ("groups", member.groups),
        ("is", "a person" if member.person else "a service account"),
        ("told by", f"{member.told_by} at {moment(member.at)}"),
    ]
    out.print(table(("", ""), rows))
