"""`hallmark workspace`"""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from hallmark.errors import HallmarkError
from hallmark.output import Json, client, emit, example, out, table
from hallmark.output import app as noun
from hallmark.results import Workspace

app = noun("workspace", "The rules of a workspace: lifecycle, naming, protected aliases.")


@app.command(epilog=example("hallmark workspace show --json > rules.json"))
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the rules in force."""
    with client(ctx) as hallmark:
        found = hallmark.rules()
    emit(as_json, found, lambda: _print(found))


@app.command(epilog=example("hallmark workspace configure rules.yaml"))
def configure(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="YAML or JSON: lifecycle, naming, naming_message, protected_aliases.")],
    as_json: Json = False,
) -> None:
    """Set the rules, all at once; what the file leaves out goes back to the default."""
    try:
        rules = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise HallmarkError("invalid-file", f"{file}: {error}") from error
    if not isinstance(rules, dict):
        raise HallmarkError("invalid-file", f"{file} holds no rules")
    known = ("lifecycle", "naming", "naming_message", "protected_aliases")
    with client(ctx) as hallmark:
        # What `show --json` prints beside the rules may stay in the file.
        shown = set(Workspace.model_fields)
        found = hallmark.configure({name: value for name, value in rules.items() if name in known or name not in shown})
    emit(as_json, found, lambda: _print(found))


def _print(found: Workspace) -> None:
    stages = found.lifecycle["stages"]
    rows = [
        (
            s["name"],
            "yes" if s["gated"] else "no",
            s["holds"] or "any number",
            ", ".join(move["to"] for move in found.lifecycle["moves"] if move["origin"] == s["name"]) or "-",
        )
        for s in stages
    ]
    out.print(table(("stage", "gated", "holds", "moves to"), rows))
    out.print(f"naming: {found.naming or 'any'}   {found.naming_message}", markup=False)
    out.print(f"protected aliases: {', '.join(found.protected_aliases) or 'none'}", markup=False)
