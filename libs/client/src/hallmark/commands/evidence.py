"""`hallmark evidence`"""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.text import Text

from hallmark.approval_output import gate_style
from hallmark.evidence import Finding
from hallmark.output import Json, ModelArgument, VersionArgument, client, emit, err, example, out, table
from hallmark.output import app as noun

app = noun("evidence", "Evidence: files, links and findings of checks that speak for a version.")


@app.command("list", epilog=example("hallmark evidence list fraud 4"))
def list_(ctx: typer.Context, model: ModelArgument, version: VersionArgument, as_json: Json = False) -> None:
    """List what was attached to a version."""
    with client(ctx) as hallmark:
        found = list(hallmark.evidence(model, version))
    rows = [
        (
            e.evidence_id,
            e.type,
            e.title,
            Text(e.result, style=gate_style(e.result)) if e.result else None,
            e.url or e.digest,
            e.posted_by,
            e.at,
        )
        for e in found
    ]
    columns = ("evidence", "type", "title", "result", "link or file", "by", "at (UTC)")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(
    epilog=example(
        "hallmark evidence attach fraud 4 --type model_card --title 'Model card' --file card.pdf",
        "hallmark evidence attach fraud 4 --type fairness --title 'CI run 812' --result pass --url https://ci/812",
    )
)
def attach(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    type_: Annotated[str, typer.Option("--type", help="As policies name it, such as model_card.", show_default=False)],
    title: Annotated[str, typer.Option(help="One line for people.", show_default=False)],
    file: Annotated[
        Path | None, typer.Option(help="Goes to the object store, by its SHA-256.", exists=True, dir_okay=False)
    ] = None,
    url: Annotated[str | None, typer.Option(help="A link, such as to the CI run.", show_default=False)] = None,
    result: Annotated[
        Finding | None, typer.Option(help="What a check found: makes it an attestation.", show_default=False)
    ] = None,
    detail: Annotated[str, typer.Option(help="More to say.")] = "",
    media_type: Annotated[str | None, typer.Option(help="Of the file. Default: by its name.")] = None,
    as_json: Json = False,
) -> None:
    """Attach a file, a link or a finding to a version. Open requests see it at once."""
    if file is None and url is None and result is None:
        raise typer.BadParameter("say what speaks for it: --file, --url or --result", param_hint="--file")
    bar = Progress(
        TextColumn("uploading"), BarColumn(), DownloadColumn(), console=err, transient=True, disable=file is None
    )
    with client(ctx) as hallmark, bar:
        task = bar.add_task("", total=file.stat().st_size if file else None)
        made = hallmark.attach_evidence(
            model,
            version,
            type_,
            title,
            file=file,
            url=url,
            result=result,
            detail=detail,
            media_type=media_type,
            progress=lambda count: bar.advance(task, count),
        )
    what = made.digest or made.url or made.result
    emit(as_json, made, lambda: out.print(f"attached {made.type} {made.evidence_id}: {what}", markup=False))


@app.command(epilog=example("hallmark evidence save 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b card.pdf"))
def save(
    ctx: typer.Context,
    evidence_id: Annotated[str, typer.Argument(help="As 'evidence list' names it.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="Where to write it.", dir_okay=False, show_default=False)],
    as_json: Json = False,
) -> None:
    """Write the file of some evidence, once its SHA-256 is checked."""
    with client(ctx) as hallmark, err.status("downloading"):
        found = hallmark.piece_of_evidence(evidence_id)
        hallmark.save_evidence(found, file)
    made = {"file": str(file), "digest": found.digest, "size": found.size}
    emit(as_json, made, lambda: out.print(f"{file}: {found.digest}", markup=False, soft_wrap=True))
