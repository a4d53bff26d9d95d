"""`hallmark audit`"""

import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hallmark.commands import explain, keeping, person, saved
from hallmark.errors import HallmarkError
from hallmark.output import (
    REFUSED,
    Json,
    ModelArgument,
    VersionArgument,
    client,
    duration,
    emit,
    err,
    example,
    instant,
    out,
    people,
    table,
    text,
)
from hallmark.output import app as noun
from hallmark.proofs import Proved, verify_any
from hallmark.results import Entered, Held, Tenure
from hallmark.verify import VerificationError

LONGEST_PATH = 200
KnownAt = Annotated[str | None, typer.Option(help="As the log knew it at this moment. Default: as it knows it now.")]
app = noun("audit", "What happened, what was in production when, and the proof that nobody changed the record.")
app.add_typer(person.app)
app.add_typer(keeping.hold)
app.add_typer(keeping.retention)
explain.add_to(app)
app.add_typer(saved.app)


@app.command(epilog=example("hallmark audit timeline fraud"))
def timeline(ctx: typer.Context, model: ModelArgument, as_json: Json = False) -> None:
    """Show everything that happened to a model, oldest first."""
    with client(ctx) as hallmark:
        found = list(hallmark.timeline(model))
    rows = [(item.index, item.at, item.actor, item.summary) for item in found]
    emit(as_json, found, lambda: out.print(table(("entry", "at (UTC)", "who", "what"), rows)))


@app.command(epilog=example("hallmark audit production fraud --at 2026-11-02T14:30:00Z"))
def production(
    ctx: typer.Context,
    model: ModelArgument,
    at: Annotated[str | None, typer.Option(help="ISO 8601; without a zone it is UTC. Default: now.")] = None,
    of_stage: Annotated[str, typer.Option("--stage", help="Another stage.")] = "Production",
    known_at: KnownAt = None,
    as_json: Json = False,
) -> None:
    """Show what was in Production at a moment, who let it in, and on which criteria."""
    moment = instant(at)
    with client(ctx) as hallmark:
        found = hallmark.production(model, moment, stage=of_stage, known_at=instant(known_at) if known_at else None)
    emit(as_json, found, lambda: print_tenure(found, moment))


@app.command(epilog=example("hallmark audit changes fraud --since 2026-11-01"))
def changes(
    ctx: typer.Context,
    model: ModelArgument,
    since: Annotated[str, typer.Option(help="ISO 8601; without a zone it is UTC.", show_default=False)],
    until: Annotated[str | None, typer.Option(help="As --since. Default: now.")] = None,
    known_at: KnownAt = None,
    as_json: Json = False,
) -> None:
    """Show what is different between two moments: versions in other stages, aliases that point elsewhere."""
    with client(ctx) as hallmark:
        known = instant(known_at) if known_at else None
        found = list(hallmark.changes(model, instant(since), instant(until), known_at=known))
    rows = [
        (f"@{c.alias}" if c.alias else f"version {c.version}", _held(c.before), _held(c.after), _why(c.after), c.index)
        for c in found
    ]
    emit(as_json, found, lambda: out.print(table(("what", "before", "after", "who and why", "entry"), rows)))


@app.command("four-eyes", epilog=example("hallmark audit four-eyes --finding violation"))
def four_eyes(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    finding: Annotated[
        str | None,
        typer.Option(help="Only these: violation, refused, undecided, unapproved, unverified, unknown-author or good."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show whose eyes saw what got into gated stages and protected aliases, and what was refused."""
    with client(ctx) as hallmark:
        found = list(hallmark.four_eyes(model, finding))
    rows = [
        (
            item.index,
            item.at,
            f"{item.model} v{item.version}",
            item.target,
            item.finding,
            item.requested_by,
            _eyes(item),
        )
        for item in found
    ]
    names = ("entry", "at (UTC)", "what", "into", "finding", "asked by", "let in by")
    emit(as_json, found, lambda: out.print(table(names, rows)))


@app.command("lead-times", epilog=example("hallmark audit lead-times --model fraud --stage Staging"))
def lead_times(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    of_stage: Annotated[str, typer.Option("--stage", help="Until they came here.")] = "Production",
    as_json: Json = False,
) -> None:
    """Show how long versions took from their registration to a stage."""
    with client(ctx) as hallmark:
        found = list(hallmark.lead_times(of_stage, model=model))
    rows = [(f"{one.model} v{one.version}", one.registered_at, one.at, duration(one.seconds)) for one in found]
    emit(
        as_json, found, lambda: out.print(table(("version", "registered (UTC)", f"in {of_stage} (UTC)", "took"), rows))
    )


@app.command(epilog=example("hallmark audit export log.ndjson"))
def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write the whole audit log, with its signed checkpoint, to a file."""
    with client(ctx) as hallmark:
        hallmark.export_log(file)
        key = hallmark.verifier_key()
    made = {"file": str(file), "bytes": file.stat().st_size, "key": key}
    emit(as_json, made, lambda: out.print(f"{file}: {made['bytes']} bytes\nkey: {key}", markup=False, soft_wrap=True))


@app.command(epilog=example("hallmark audit evidence fraud 3 fraud-3.zip --since old-checkpoint"))
def evidence(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    file: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)],
    since: Annotated[
        Path | None,
        typer.Option(help="An old checkpoint: have it proved that the log extends it.", exists=True, dir_okay=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write all that the log knows of a version, with proofs, to a file (`VERIFY.md` in it says how to check it)."""
    with client(ctx) as hallmark:
        hallmark.evidence_bundle(model, version, file, since=_size(since) if since else None)
    made = {"file": str(file), "bytes": file.stat().st_size}
    emit(as_json, made, lambda: out.print(f"{file}: {made['bytes']} bytes", markup=False, soft_wrap=True))


@app.command(epilog=example("hallmark audit verify log.ndjson --key 'hallmark.example/log+5b3f1c2d+AY5l...'"))
def verify(
    file: Annotated[
        Path,
        typer.Argument(help="An export, an evidence bundle, or a directory of tiles.", exists=True, show_default=False),
    ],
    key: Annotated[
        str, typer.Option(help="The log's key line, kept from before, or a file of them.", show_default=False)
    ],
    since: Annotated[
        Path | None, typer.Option(help="An old checkpoint: also prove that the log extends it.", exists=True)
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a copy offline. Exit 4, and the first bad entry, when it is not what was signed."""
    try:
        keys = Path(key).read_text() if len(key) < LONGEST_PATH and Path(key).is_file() else key
        old = since.read_text("utf-8") if since else None
        proved = verify_any(file, keys, old_checkpoint=old)
    except (VerificationError, UnicodeDecodeError) as error:
        failure = {"verified": False, "detail": str(error), "index": getattr(error, "index", None)}
        emit(as_json, failure, lambda: err.print(f"NOT VERIFIED: {failure['detail']}", style="bold red", markup=False))
        raise typer.Exit(REFUSED) from None
    facts = {"verified": True, **asdict(proved)}
    emit(as_json, facts, lambda: out.print(_proved(proved), markup=False, soft_wrap=True))


def _proved(proved: Proved) -> str:
    told = f"verified: {proved.what}; root {proved.root}"
    return told + "".join(f"\nnot checked here (no ML-DSA in this library): the key of {n}" for n in proved.unchecked)


def _size(checkpoint: Path) -> int:
    lines = checkpoint.read_text("utf-8", "replace").splitlines()
    if len(lines) < 2 or not re.fullmatch("[0-9]{1,18}", lines[1]):
        raise HallmarkError("bad-checkpoint", f"{checkpoint} is no checkpoint")
    return int(lines[1])


def print_tenure(tenure: Tenure, moment: datetime) -> None:
    if tenure.version is None:
        out.print(f"{text(moment)} UTC: nothing was in {tenure.stage}")
        return
    rows = [
        ("at", f"{text(moment)} UTC"),
        (tenure.stage, f"version {tenure.version}"),
        ("since", tenure.since),
        ("until", tenure.until),
        ("asked by", tenure.requested_by),
        ("approved by", people(tenure.approved_by)),
        ("reason", tenure.reason),
        *(("criterion", f"{c.gate}: {c.expression}: {c.result}") for c in tenure.criteria),
        ("log entry", tenure.index),
        *((("deleted", "{at} by {by}: {reason}".format(**gone)),) if (gone := tenure.deleted) else ()),
        *((("revoked", "{at} by {by}: {reason}".format(**gone)),) if (gone := tenure.revoked) else ()),
    ]
    out.print(table(("", ""), rows))


def _held(held: Held | None) -> str:
    if held is None:
        return "nothing"
    return f"version {held.version}" if held.target.startswith("@") else held.target


def _why(held: Held | None) -> str:
    return f"{held.requested_by}: {held.reason}" if held else ""


def _eyes(item: Entered) -> str:
    told = [*item.approvers, *(f"{name} (waiver)" for name in item.waived_by)]
    told += [f"{item.broken_by} (break-glass)"] if item.broken_by else []
    return ", ".join(told) or item.problem or "nobody"
