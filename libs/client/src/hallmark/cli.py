"""The `hallmark` command. Each noun is a module in `commands`; other packages add theirs by entry points."""

import sys
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from hallmark.commands import (
    alias,
    audit,
    decision,
    delegation,
    evidence,
    key,
    member,
    model,
    notify,
    policy,
    request,
    revocation,
    search,
    serving,
    slack,
    stage,
    version,
    workspace,
)
from hallmark.errors import HallmarkError
from hallmark.output import FAILED, REFUSED, Caller, err

app = typer.Typer(
    name="hallmark",
    help="Which model is in production, how was it made, who let it in, and on what evidence?",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 awaiting approval, 4 refused.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
NOUNS = (
    *(model, version, search, stage, alias, serving, evidence),
    *(request, policy, decision, delegation, member, key),
    *(audit, notify, workspace),
)
PLUG_INS = "hallmark.commands"


@app.callback()
def options(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="HALLMARK_URL", help="The registry's address (http://127.0.0.1:8801).")
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="HALLMARK_TOKEN", help="Who you are: a bearer token.")] = None,
    workspace: Annotated[
        str | None, typer.Option(envvar="HALLMARK_WORKSPACE", help="Where the models live (default).")
    ] = None,
) -> None:
    ctx.obj = Caller(url, token, workspace)


@cache
def build() -> typer.Typer:
    """The application with every plug-in's commands. One that cannot be loaded is named, and breaks nothing else."""
    for noun in NOUNS:
        app.add_typer(noun.app)
    revocation.add_to(version.app)
    notify.app.add_typer(slack.app)
    for plug_in in entry_points(group=PLUG_INS):
        try:
            plug_in.load()(app)
        except Exception as error:
            err.print(f"the plug-in {plug_in.name} cannot be loaded: {error!r}", style="yellow", markup=False)
    return app


@cache
def command() -> Any:
    """The same, ready to run: what typer would make anew at each call."""
    return typer.main.get_command(build())


def main() -> None:
    try:
        command()()
    except HallmarkError as error:
        err.print(f"error: {error.detail}", style="red", markup=False)
        about = f"  {error.code}" + (f", request {error.request_id}" if error.request_id else "")
        err.print(about, style="dim", markup=False)
        sys.exit(REFUSED if error.refused else FAILED)
    except OSError as error:
        err.print(f"error: {error}", style="red", markup=False)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
