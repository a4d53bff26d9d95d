"""`python -m embedded up|down|status|token`: the commands without the `hallmark` program."""

import typer

from embedded.cli import register

app = typer.Typer(no_args_is_help=True)
register(app)
app()
