"""`hallmark search` and `hallmark best`"""

from typing import Annotated

import typer

from hallmark.errors import HallmarkError
from hallmark.output import Json, ModelArgument, client, emit, example, out, stage, table, text
from hallmark.output import app as noun
from hallmark.results import FoundVersion

app = noun("search", "Search: MLflow's filter language, with OR, NOT, parentheses, stage, alias and metrics.")
Filter = Annotated[str, typer.Argument(help="Such as \"metrics.auc > 0.9 AND tags.team = 'risk'\".")]
OrderBy = Annotated[list[str] | None, typer.Option(help="Such as 'metrics.auc DESC'; may be given again.")]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1)]


@app.command(epilog=example("hallmark search versions \"stage = 'Staging'\" --order-by 'metrics.auc DESC'"))
def versions(
    ctx: typer.Context,
    filter_string: Filter = "",
    order_by: OrderBy = None,
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Find versions."""
    with client(ctx) as hallmark:
        found = list(hallmark.search_versions(filter_string, order_by=order_by or (), model=model, limit=limit))
    emit(as_json, found, lambda: _print(found))


@app.command(epilog=example("hallmark search models \"tags.team = 'risk'\""))
def models(
    ctx: typer.Context,
    filter_string: Filter = "",
    order_by: OrderBy = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Find models."""
    with client(ctx) as hallmark:
        found = list(hallmark.search_models(filter_string, order_by=order_by or (), limit=limit))
    rows = [(m.name, m.versions, m.owner, m.description) for m in found]
    emit(as_json, found, lambda: out.print(table(("model", "versions", "owner", "description"), rows)))


@app.command(epilog=example("hallmark search best fraud auc"))
def best(
    ctx: typer.Context,
    model: ModelArgument,
    metric: Annotated[str, typer.Argument(help="Name of the metric.", show_default=False)],
    filter_string: Annotated[str, typer.Option("--filter", help="Among those that match.")] = "",
    lower: Annotated[bool, typer.Option("--lower", help="The lowest value is the best.")] = False,
    as_json: Json = False,
) -> None:
    """Find the version with the best value of a metric."""
    with client(ctx) as hallmark:
        found = hallmark.best(model, metric, filter_string=filter_string, lower=lower)
    if found is None:
        raise HallmarkError("nothing-found", f"no ready version of {model} has the metric {metric}")
    emit(as_json, found, lambda: _print([found]))


def _print(found: list[FoundVersion]) -> None:
    rows = [
        (
            f"{v.name} {v.version}",
            stage(v.stage),
            v.status,
            v.aliases,
            ", ".join(f"{name} {text(value)}" for name, value in sorted(v.metrics.items())),
        )
        for v in found
    ]
    out.print(table(("version", "stage", "status", "aliases", "metrics"), rows))
