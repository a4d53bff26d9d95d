"""`hallmark decision`"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from hallmark import decisions, engine
from hallmark.approval_output import print_decision
from hallmark.decisions import Record, Verification
from hallmark.output import FAILED, Json, client, emit, example, out, table
from hallmark.output import app as noun

app = noun("decision", "Decisions: signed, and judged again from their record years later.")
ID = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"
RequestId = Annotated[str, typer.Argument(help="Id of the request (the transition's).", show_default=False)]


@app.command(epilog=example(f"hallmark decision show {ID}"))
def show(ctx: typer.Context, request_id: RequestId, as_json: Json = False) -> None:
    """Show a decision: on which gates, by whose votes, under which policies. With --json: its whole record."""
    with client(ctx) as hallmark:
        found = hallmark.decision_record(request_id)
    emit(as_json, found, lambda: print_decision(found.decision))


@app.command(epilog=example(f"hallmark decision save {ID} decision.json"))
def save(
    ctx: typer.Context,
    request_id: RequestId,
    file: Annotated[Path, typer.Argument(help="Where to write it.", dir_okay=False, show_default=False)],
    as_json: Json = False,
) -> None:
    """Write a decision with all that it rests on to a file, for 'decision verify' without a service."""
    with client(ctx) as hallmark:
        hallmark.save_decision(request_id, file)
    made = {"file": str(file), "bytes": file.stat().st_size}
    emit(as_json, made, lambda: out.print(f"{file}: {made['bytes']} bytes", markup=False, soft_wrap=True))


@app.command(
    epilog=example(f"hallmark decision verify {ID}", "hallmark decision verify decision.json --keys keys.json")
)
def verify(
    ctx: typer.Context,
    decision: Annotated[
        str,
        typer.Argument(metavar="ID|FILE", help="A request's id, or what 'decision save' wrote.", show_default=False),
    ],
    keys: Annotated[
        Path | None,
        typer.Option(help="The public keys ('key list --json'). Default: ask.", exists=True, dir_okay=False),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody: needs a file and --keys.")] = False,
    as_json: Json = False,
) -> None:
    """Check who signed a decision, and judge it again from its record. Exit 1, and why, when a check fails.

    Needs the policy engine: pip install 'hallmark-registry\\[policy]'.
    """
    engine.require()
    record, trusted = _gather(ctx, decision, keys, offline)
    found = decisions.verify_record(record, trusted)
    emit(as_json, found, lambda: _print(found))
    if not found.verified:
        raise typer.Exit(FAILED)


def _gather(ctx: typer.Context, given: str, keys: Path | None, offline: bool) -> tuple[Record, dict[str, Any]]:
    """The record, and the keys to trust. Whatever is at hand in a file is not asked for."""
    file = Path(given) if Path(given).is_file() else None
    if offline and file is None:
        raise typer.BadParameter(f"{given!r} is no file; hallmark decision save writes one", param_hint="ID|FILE")
    if offline and keys is None:
        raise typer.BadParameter("needed with --offline; hallmark key list --json prints them", param_hint="--keys")
    record: Record | None = decisions.read_record(file) if file else None
    trusted = decisions.read_keys(keys) if keys else None
    if record is None or trusted is None:
        with client(ctx) as hallmark:
            record = record if record is not None else hallmark.decision_record(given)
            trusted = trusted if trusted is not None else hallmark.decision_keys()
    return record, trusted


def _print(found: Verification) -> None:
    styles = {"ok": "green", "failed": "bold red"}
    rows = [(c.name, Text(c.result, style=styles.get(c.result, "yellow")), c.text) for c in found.checks]
    out.print(table(("check", "result", ""), rows))
    what = f"{found.about}: {found.verdict} (decision {found.decision_id})" if found.about else "no decision"
    if found.verified:
        out.print(f"verified: {what}", style="green", markup=False)
    else:
        out.print(f"NOT VERIFIED: {what}", style="bold red", markup=False)
