"""`hallmark request`"""

from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.text import Text

from hallmark.output import Json, client, emit, example, out, table, text, verdict
from hallmark.output import app as noun
from hallmark.results import Request

app = noun("request", "Requests for approval: read the evidence, then vote.")
RequestId = Annotated[str, typer.Argument(help="Id of the request (the transition's).", show_default=False)]
Comment = Annotated[str, typer.Option(help="Kept with your vote.")]


@app.command("list", epilog=example("hallmark request list --status open"))
def list_(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help="open, approved, rejected or expired.")] = None,
    as_json: Json = False,
) -> None:
    """List requests for approval."""
    with client(ctx) as hallmark:
        found = list(hallmark.requests(status))
    rows = [
        (r.request_id, r.model, r.version, f"{r.from_stage} -> {r.to_stage}", r.status, r.requested_by, r.reason)
        for r in found
    ]
    columns = ("request", "model", "version", "move", "status", "by", "reason")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark request show 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"))
def show(ctx: typer.Context, request_id: RequestId, as_json: Json = False) -> None:
    """Show a request: what is asked, what the gates said, who voted."""
    with client(ctx) as hallmark:
        found = hallmark.request(request_id)
    emit(as_json, found, lambda: print_request(found))


@app.command(epilog=example("hallmark request approve 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b --comment 'looks sound'"))
def approve(ctx: typer.Context, request_id: RequestId, comment: Comment = "", as_json: Json = False) -> None:
    """Approve. Requesters cannot approve their own request."""
    _vote(ctx, request_id, "approve", comment, as_json)


@app.command(epilog=example("hallmark request reject 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b --comment 'data leak?'"))
def reject(ctx: typer.Context, request_id: RequestId, comment: Comment = "", as_json: Json = False) -> None:
    """Reject."""
    _vote(ctx, request_id, "reject", comment, as_json)


def _vote(
    ctx: typer.Context, request_id: str, choice: Literal["approve", "reject"], comment: str, as_json: bool
) -> None:
    with client(ctx) as hallmark:
        seen = hallmark.request(request_id)
        found = hallmark.vote(request_id, choice, comment, request_digest=seen.request_digest)
    emit(as_json, found, lambda: print_request(found))


def print_request(request: Request) -> None:
    r = request
    out.print(f"{escape(r.model)} version {r.version}: {r.from_stage} -> [bold]{r.to_stage}[/bold]: {r.status}")
    out.print(escape(f"asked by {r.requested_by}: {r.reason}"))
    if r.gates:
        rows = [(g.gate, g.expression, Text(g.result, style=verdict(g.result)), g.message) for g in r.gates]
        out.print(table(("gate", "expression", "result", ""), rows))
    if r.rules:
        rules = [(x.id, x.meaning, f"{x.have} of {x.count}", text(x.voters)) for x in r.rules]
        out.print(table(("rule", "meaning", "approvals", "from"), rules))
    if r.votes:
        votes = [(v.get("voter"), v.get("choice"), v.get("comment"), v.get("at")) for v in r.votes]
        out.print(table(("voter", "vote", "comment", "at"), votes))
