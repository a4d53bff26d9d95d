"""`hallmark model`"""

from typing import Annotated

import typer

from hallmark.lanes import print_lanes
from hallmark.output import Json, ModelArgument, Reason, client, emit, example, out, pairs, table, text
from hallmark.output import app as noun

app = noun("model", "Models: names that versions belong to.")


@app.command("list", epilog=example("hallmark model list"))
def list_(
    ctx: typer.Context,
    deleted: Annotated[bool, typer.Option("--deleted", help="The deleted ones instead.")] = False,
    as_json: Json = False,
) -> None:
    """List the models of the workspace."""
    with client(ctx) as hallmark:
        found = list(hallmark.models(deleted=deleted))
    rows = [(m.name or m.model, m.versions, occupants(m.stages), m.owner, m.description) for m in found]
    emit(as_json, found, lambda: out.print(table(("model", "versions", "stages", "owner", "description"), rows)))


@app.command(epilog=example("hallmark model show fraud"))
def show(ctx: typer.Context, model: ModelArgument, as_json: Json = False) -> None:
    """Show one model."""
    with client(ctx) as hallmark:
        found = hallmark.model(model)
    rows = [(name, text(value)) for name, value in found.model_dump().items() if name != "stages"]
    emit(as_json, found, lambda: out.print(table(("", ""), [*rows, ("stages", occupants(found.stages))])))


@app.command(epilog=example("hallmark model timeline fraud"))
def timeline(
    ctx: typer.Context,
    model: ModelArgument,
    of_stage: Annotated[
        list[str] | None, typer.Option("--stage", help="Only these; may be given again. Default: all but the first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw which version was in which stage when, by the audit log."""
    with client(ctx) as hallmark:
        lifecycle = hallmark.rules().lifecycle
        stages = of_stage or [s["name"] for s in lifecycle["stages"] if s["name"] != lifecycle["initial"]]
        found = {name: list(hallmark.history(model, name)) for name in stages}
    emit(as_json, found, lambda: print_lanes(found))


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


@app.command(epilog=example("hallmark model update fraud --owner payments --tag tier=1 --remove-tag draft"))
def update(
    ctx: typer.Context,
    model: ModelArgument,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    owner: Annotated[str | None, typer.Option(help="The person or team who answers for it.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE to set; may be given again.")] = None,
    remove_tag: Annotated[list[str] | None, typer.Option(help="NAME to remove; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Change description, owner or tags; what is not named stays."""
    tags = pairs(tag or [], "--tag")
    with client(ctx) as hallmark:
        made = hallmark.update_model(
            model, description=description, owner=owner, set_tags=tags, remove_tags=remove_tag or ()
        )
    emit(as_json, made, lambda: out.print(f"updated {made.workspace}/{made.name}", markup=False))


@app.command(epilog=example("hallmark model rename fraud card-fraud"))
def rename(
    ctx: typer.Context,
    model: ModelArgument,
    name: Annotated[str, typer.Argument(help="The new name.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Give a model another name; every former one still leads to it."""
    with client(ctx) as hallmark:
        made = hallmark.rename_model(model, name)
    emit(as_json, made, lambda: out.print(f"{model} is named {made.name} now", markup=False))


@app.command(epilog=example("hallmark model delete fraud --reason 'replaced by card-fraud'"))
def delete(ctx: typer.Context, model: ModelArgument, reason: Reason, as_json: Json = False) -> None:
    """Put a model out of sight. Nothing is erased; its names stay reserved."""
    with client(ctx) as hallmark:
        made = hallmark.delete_model(model, reason)
    emit(as_json, made, lambda: out.print(f"{model} is deleted; hallmark model restore brings it back", markup=False))


@app.command(epilog=example("hallmark model restore fraud --reason 'deleted by mistake'"))
def restore(ctx: typer.Context, model: ModelArgument, reason: Reason, as_json: Json = False) -> None:
    """Bring a deleted model back."""
    with client(ctx) as hallmark:
        made = hallmark.restore_model(model, reason)
    emit(as_json, made, lambda: out.print(f"{model} is back", markup=False))


def occupants(stages: dict[str, list[int]]) -> str:
    return ", ".join(f"{stage}: {text(numbers)}" for stage, numbers in sorted(stages.items()))
