"""`hallmark alias`"""

from typing import Annotated

import typer

from hallmark.output import (
    Field,
    Json,
    ModelArgument,
    Reason,
    VersionArgument,
    Wait,
    client,
    emit,
    example,
    exit_for,
    out,
    pairs,
    print_transition,
    table,
)
from hallmark.output import app as noun
from hallmark.results import Transition

app = noun("alias", "Aliases: names such as champion that people read instead of numbers.")
AliasArgument = Annotated[str, typer.Argument(help="Name of the alias.", show_default=False)]


@app.command("set", epilog=example("hallmark alias set fraud champion 4 --reason 'best on May data' --expected 3"))
def set_(
    ctx: typer.Context,
    model: ModelArgument,
    alias: AliasArgument,
    version: VersionArgument,
    reason: Reason,
    expected: Annotated[
        int | None, typer.Option(help="Only if it points at this version now; 0: only if it does not exist.", min=0)
    ] = None,
    field: Field = None,
    wait: Wait = 10.0,
    as_json: Json = False,
) -> None:
    """Set or move an alias. A protected one needs approval: exit 3 while it waits, 4 when refused."""
    with client(ctx) as hallmark:
        fields = pairs(field or [], "--field")
        found = hallmark.set_alias(model, alias, version, reason=reason, expected=expected, fields=fields)
        if isinstance(found, Transition):
            found = hallmark.wait_for(found, wait)
    if isinstance(found, Transition):
        asked = found
        emit(as_json, asked, lambda: print_transition(asked))
        exit_for(asked)
        return
    emit(as_json, found, lambda: out.print(f"{model}@{alias} points at version {version}", markup=False))


@app.command("list", epilog=example("hallmark alias list fraud"))
def list_(ctx: typer.Context, model: ModelArgument, as_json: Json = False) -> None:
    """List the aliases of a model."""
    with client(ctx) as hallmark:
        found = hallmark.aliases(model)
    rows = [(a.alias, a.version, a.set_by, a.set_at) for a in found]
    emit(as_json, found, lambda: out.print(table(("alias", "version", "set by", "at (UTC)"), rows)))


@app.command(epilog=example("hallmark alias history fraud champion"))
def history(ctx: typer.Context, model: ModelArgument, alias: AliasArgument, as_json: Json = False) -> None:
    """Show where an alias has pointed, oldest first."""
    with client(ctx) as hallmark:
        found = list(hallmark.alias_history(model, alias))
    rows = [(m.at, m.previous, m.version or "removed", m.by, m.reason) for m in found]
    emit(as_json, found, lambda: out.print(table(("at (UTC)", "from", "to", "by", "reason"), rows)))


@app.command(epilog=example("hallmark alias remove fraud challenger --reason 'test is over'"))
def remove(
    ctx: typer.Context, model: ModelArgument, alias: AliasArgument, reason: Reason, as_json: Json = False
) -> None:
    """Remove an alias; its history stays."""
    with client(ctx) as hallmark:
        found = hallmark.remove_alias(model, alias, reason)
    emit(as_json, found, lambda: out.print(f"{model}@{alias} is gone", markup=False))
