"""`hallmark model`"""

from typing import Annotated

import typer

from hallmark.output import Json, ModelArgument, client, emit, example, out, pairs, table, text
from hallmark.output import app as noun

app = noun("model", "Models: names that versions belong to.")


@app.command("list", epilog=example("hallmark model list"))
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the models of the workspace."""
    with client(ctx) as hallmark:
        found = list(hallmark.models())
    rows = [(m.model, m.versions, occupants(m.stages), m.owner, m.description) for m in found]
    emit(as_json, found, lambda: out.print(table(("model", "versions", "stages", "owner", "description"), rows)))


@app.command(epilog=example("hallmark model show fraud"))
def show(ctx: typer.Context, model: ModelArgument, as_json: Json = False) -> None:
    """Show one model."""
    with client(ctx) as hallmark:
        found = hallmark.model(model)
    rows = [(name, text(value)) for name, value in found.model_dump().items() if name != "stages"]
    emit(as_json, found, lambda: out.print(table(("", ""), [*rows, ("stages", occupants(found.stages))])))


@app.command(epilog=example("hallmark model create fraud --description 'Card fraud, EU' --owner payments"))
def create(
    ctx: typer.Context,
    model: ModelArgument,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    owner: Annotated[str | None, typer.Option(help="The person or team who answers for it.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Create a model. Registering a version does so too."""
    tags = pairs(tag or [], "--tag")
    with client(ctx) as hallmark:
        made = hallmark.create_model(model, description=description, owner=owner, tags=tags)
    emit(as_json, made, lambda: out.print(f"created {made.workspace}/{made.model}", markup=False))


def occupants(stages: dict[str, list[int]]) -> str:
    return ", ".join(f"{stage}: {text(numbers)}" for stage, numbers in sorted(stages.items()))
