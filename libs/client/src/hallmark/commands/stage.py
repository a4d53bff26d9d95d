"""`hallmark stage`"""

from typing import Annotated

import typer

from hallmark.output import (
    DryRun,
    Field,
    Json,
    ModelArgument,
    Reason,
    VersionArgument,
    Wait,
    client,
    emit,
    err,
    example,
    exit_for,
    out,
    pairs,
    print_transition,
    table,
)
from hallmark.output import app as noun
from hallmark.policy_output import print_explanation

app = noun("stage", "Stages: ask for one, or go back to what was good.")


@app.command(
    epilog=example(
        "hallmark stage request fraud 4 Production --reason 'beats v3 by 1 %' --wait 60",
        "hallmark stage request fraud 4 Production --reason 'beats v3' --field change_ticket=CHG0000042",
    )
)
def request(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    to: Annotated[str, typer.Argument(help="The stage to enter.", show_default=False)],
    reason: Reason,
    expected_from: Annotated[str | None, typer.Option(help="Refuse if it is elsewhere by then.")] = None,
    field: Field = None,
    wait: Wait = 10.0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Ask for a stage. Exit 0: entered; 3: awaits approval; 4: refused. A dry run says what the policies would ask."""
    if dry_run:
        with client(ctx) as hallmark:
            known = hallmark.version(model, version)
            given = pairs(field or [], "--field")
            plan = hallmark.explain_policy(
                model, version, to, from_stage=expected_from or known.stage, reason=reason, fields=given
            )
        emit(as_json, plan, lambda: print_explanation(model, version, to, plan))
        return
    with client(ctx) as hallmark, err.status(f"asking for {to}"):
        found = hallmark.request_stage(
            model, version, to, reason, expected_from=expected_from, fields=pairs(field or [], "--field"), wait=wait
        )
    emit(as_json, found, lambda: print_transition(found))
    exit_for(found)


@app.command(epilog=example("hallmark stage rollback fraud --reason 'false alarms doubled since 14:00'"))
def rollback(
    ctx: typer.Context,
    model: ModelArgument,
    reason: Reason,
    stage: Annotated[str, typer.Option(help="The stage to roll back.")] = "Production",
    to_version: Annotated[int | None, typer.Option(help="Instead of the last good one.", min=1)] = None,
    field: Field = None,
    wait: Wait = 10.0,
    as_json: Json = False,
) -> None:
    """Put the last good version back."""
    with client(ctx) as hallmark, err.status("rolling back"):
        fields = pairs(field or [], "--field")
        found = hallmark.rollback(model, reason, stage=stage, to_version=to_version, fields=fields, wait=wait)
    emit(as_json, found, lambda: print_transition(found))
    exit_for(found)


@app.command(epilog=example("hallmark stage cancel 019f... --reason 'found a leak in the features'"))
def cancel(
    ctx: typer.Context,
    transition_id: Annotated[str, typer.Argument(help="Id of the open transition.", show_default=False)],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Take an open request back."""
    with client(ctx) as hallmark:
        found = hallmark.cancel(transition_id, reason)
    emit(as_json, found, lambda: print_transition(found))


@app.command(epilog=example("hallmark stage history fraud --status open"))
def history(
    ctx: typer.Context,
    model: ModelArgument,
    status: Annotated[str | None, typer.Option(help="open, applied, refused, expired or cancelled.")] = None,
    as_json: Json = False,
) -> None:
    """List the transitions of a model, oldest first."""
    with client(ctx) as hallmark:
        found = list(hallmark.transitions(model, status=status))
    rows = [
        (t.transition_id, t.version, f"{t.from_stage} -> {t.to_stage}", t.status, t.requested_by, t.requested_at)
        for t in found
    ]
    columns = ("transition", "version", "move", "status", "asked by", "at (UTC)")
    emit(as_json, found, lambda: out.print(table(columns, rows)))
