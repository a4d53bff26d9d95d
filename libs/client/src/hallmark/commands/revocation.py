"""`hallmark version revoke`: of the noun `version`, decided and signed by the approval service."""

from typing import Annotated

import typer

from hallmark.approval_output import confirm
from hallmark.output import Json, ModelArgument, Reason, VersionArgument, client, emit, example, out


def add_to(version: typer.Typer) -> None:
    """Makes it a verb of the noun."""
    version.command("revoke", epilog=example("hallmark version revoke fraud 4 --reason 'trained on leaked labels'"))(
        revoke
    )


def revoke(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    reason: Reason,
    fallback: Annotated[
        int | None,
        typer.Option(help="What its stage returns to. Default: what was approved with it for that.", min=1),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Order that nobody uses a version any more. Servers stop using it at once, and there is no way back."""
    confirm(f"Every server stops using {model} version {version}, for ever", yes)
    with client(ctx) as hallmark:
        made = hallmark.revoke_version(model, version, reason, fallback=fallback)
    back = made.revocation.fallback
    then = f"its stage returns to version {back}" if back else "its stage returns to the last good version, if any"
    told = f"{model} version {version} is revoked; {then} (hallmark serving status {model} shows it)"
    emit(as_json, made, lambda: out.print(told, markup=False))
