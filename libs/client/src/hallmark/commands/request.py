"""`hallmark request`"""

from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.text import Text

from hallmark import seen
from hallmark.approval_output import STATUS_COLOURS, confirm, exit_for, print_request, print_rules, print_state
from hallmark.approval_results import Request
from hallmark.approvals import View
from hallmark.client import Client
from hallmark.connection import PAGE
from hallmark.errors import HallmarkError
from hallmark.output import Json, Reason, client, emit, err, example, out, table
from hallmark.output import app as noun

app = noun("request", "Requests for approval: read the evidence, then vote.")
ID = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"
RequestId = Annotated[str, typer.Argument(help="Id of the request (the transition's).", show_default=False)]
Comment = Annotated[str, typer.Option(help="Kept with your vote.")]
Because = Annotated[str, typer.Option("--comment", help="Why; kept with your vote.", show_default=False)]
RuleOption = Annotated[str | None, typer.Option("--rule", help="The rule you vote for, if several ask you (risk).")]
For = Annotated[str | None, typer.Option("--for", metavar="PERSON", help="Who delegated to you; the vote is theirs.")]
Digest = Annotated[
    str | None,
    typer.Option(
        help="Only if the request is still this one (sha256:...). Default: as 'request show' showed it last.",
        show_default=False,
    ),
]


@app.command(
    "list",
    epilog=example("hallmark request list --needs-me", "hallmark request list --status open --model fraud"),
)
def list_(
    ctx: typer.Context,
    needs_me: Annotated[bool, typer.Option("--needs-me", help="What waits for you, the oldest first.")] = False,
    asked: Annotated[bool, typer.Option("--asked", help="What you asked for.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="All that you may read (the default).")] = False,
    status: Annotated[
        str | None, typer.Option(help="open, approved, rejected, expired or cancelled.", show_default=False)
    ] = None,
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Of this model (or policy) only.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="How many at most; 0: all of them.", min=0)] = 50,
    after: Annotated[str | None, typer.Option(help="Go on after this request.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List requests for approval, the newest first."""
    if needs_me + asked + all_ > 1:
        raise typer.BadParameter("choose one of --needs-me, --asked and --all")
    view: View = "needs-me" if needs_me else "asked" if asked else "all"
    found: list[Request] = []
    following: str | int | None = after
    with client(ctx) as hallmark:
        where = workspace or _named_workspace(ctx)
        while True:
            count = min(PAGE, limit - len(found)) if limit else PAGE
            page = hallmark.request_page(status, view=view, workspace=where, model=model, limit=count, after=following)
            found += page.items
            following = page.next
            if following is None or (limit and len(found) >= limit):
                break
    emit(as_json, found, lambda: _print_list(found))
    if following is not None:
        err.print(f"there are more: --after {following} shows the next, --limit 0 all of them", markup=False)


@app.command(epilog=example(f"hallmark request show {ID}"))
def show(ctx: typer.Context, request_id: RequestId, as_json: Json = False) -> None:
    """Show a request: what is asked, what the gates said, who voted, what it waits for, and whether you may vote."""
    with client(ctx) as hallmark:
        found = hallmark.request(request_id)
        before = _in_force(hallmark, found) if found.document is not None else None
    seen.remember(found)
    emit(as_json, found, lambda: print_request(found, before))


@app.command(epilog=example(f"hallmark request watch {ID} --wait 3600"))
def watch(
    ctx: typer.Context,
    request_id: RequestId,
    wait: Annotated[float | None, typer.Option(help="Seconds at most. Default: until it ends.", min=0)] = None,
    as_json: Json = False,
) -> None:
    """Follow a request until it ends. Exit 0: approved; 3: still open; 4: rejected, expired or cancelled."""
    with client(ctx) as hallmark, err.status("waiting for the decision (Ctrl-C leaves it open)") as told:
        for found in hallmark.watch_request(request_id, wait):
            if found.open:
                told.update(escape(f"waiting for {found.phase or 'the decision'}: {found.waits_for}"))
            if not as_json:
                print_state(found)
    if as_json:
        emit(as_json, found, lambda: None)
    exit_for(found)


@app.command(epilog=example(f"hallmark request approve {ID} --comment 'looks sound'"))
def approve(
    ctx: typer.Context,
    request_id: RequestId,
    comment: Comment = "",
    rule: RuleOption = None,
    for_: For = None,
    digest: Digest = None,
    as_json: Json = False,
) -> None:
    """Approve what you have read. Whoever asked for it, or made the version, cannot."""
    _vote(ctx, request_id, "approve", comment, rule, for_, digest, as_json)


@app.command(epilog=example(f"hallmark request reject {ID} --comment 'trained on the test set'"))
def reject(
    ctx: typer.Context,
    request_id: RequestId,
    comment: Because,
    rule: RuleOption = None,
    for_: For = None,
    digest: Digest = None,
    as_json: Json = False,
) -> None:
    """Reject, and say why. By default one rejection ends the request."""
    _vote(ctx, request_id, "reject", comment, rule, for_, digest, as_json)


def _vote(
    ctx: typer.Context,
    request_id: str,
    choice: Literal["approve", "reject"],
    comment: str,
    rule: str | None,
    for_: str | None,
    digest: str | None,
    as_json: bool,
) -> None:
    with client(ctx) as hallmark:
        asked = hallmark.request(request_id)
        bound = digest or seen.digest_to_sign(asked)
        rule = full_name(rule, [one.id for one in asked.rules], "--rule") if rule else None
        found = hallmark.vote(request_id, choice, comment, request_digest=bound, rule=rule, on_behalf_of=for_)
    emit(as_json, found, lambda: _print_outcome(found, f"your vote to {choice} is recorded"))


@app.command("withdraw-vote", epilog=example(f"hallmark request withdraw-vote {ID} --reason 'new evaluation'"))
def withdraw_vote(
    ctx: typer.Context,
    request_id: RequestId,
    reason: Annotated[str, typer.Option(help="Why; kept for ever.")] = "",
    as_json: Json = False,
) -> None:
    """Take your vote back, or one that somebody cast for you, as long as the request is open."""
    with client(ctx) as hallmark:
        found = hallmark.withdraw_vote(request_id, reason)
    emit(as_json, found, lambda: _print_outcome(found, "no vote of yours counts"))


@app.command(epilog=example(f"hallmark request comment {ID} 'what does the June data say?'"))
def comment(
    ctx: typer.Context,
    request_id: RequestId,
    words: Annotated[str, typer.Argument(metavar="TEXT", help="The comment; kept for ever.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Comment on a request, without a vote."""
    with client(ctx) as hallmark:
        found = hallmark.comment(request_id, words)
    emit(as_json, found, lambda: out.print(f"commented on {found.about}", markup=False))


@app.command(epilog=example(f"hallmark request waive {ID} production/latency --reason 'batch use only'"))
def waive(
    ctx: typer.Context,
    request_id: RequestId,
    gate: Annotated[str, typer.Argument(help="The gate, as 'request show' names it.", show_default=False)],
    reason: Reason,
    digest: Digest = None,
    as_json: Json = False,
) -> None:
    """Let a request pass though a gate does not, if the policy names you for that. Signed like a vote."""
    with client(ctx) as hallmark:
        asked = hallmark.request(request_id)
        bound = digest or seen.digest_to_sign(asked)
        gate = full_name(gate, [one.gate for one in asked.gates], "GATE")
        found = hallmark.waive(request_id, gate, reason, request_digest=bound)
    emit(as_json, found, lambda: _print_outcome(found, f"you waived {gate}"))


@app.command("break-glass", epilog=example(f"hallmark request break-glass {ID} --reason 'fraud wave, v3 is blind'"))
def break_glass(
    ctx: typer.Context,
    request_id: RequestId,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Let a request pass in an emergency. People are paged at once, and others review it afterwards."""
    with client(ctx) as hallmark:
        asked = hallmark.request(request_id)
        what = f"{asked.about} enters {asked.to_stage} without the approvals it needs, and people are paged"
        confirm(what, yes)
        found = hallmark.break_glass(request_id, reason)
    emit(as_json, found, lambda: print_request(found))


@app.command(epilog=example(f"hallmark request review {ID} --justified --comment 'losses ran at 9 k an hour'"))
def review(
    ctx: typer.Context,
    request_id: RequestId,
    justified: Annotated[bool, typer.Option("--justified/--unjustified", help="Was it one?", show_default=False)],
    comment: Annotated[str, typer.Option(help="What you found; kept for ever.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Say of an emergency whether it was one. Until enough people have, the model may be frozen."""
    with client(ctx) as hallmark:
        found = hallmark.review(request_id, comment, justified=justified)
    emit(as_json, found, lambda: _print_outcome(found, "your review is recorded"))


@app.command(epilog=example(f"hallmark request manifest {ID} > signatures.txt"))
def manifest(ctx: typer.Context, request_id: RequestId, as_json: Json = False) -> None:
    """Print who signed what, when, in which meaning and by which method (21 CFR 11.50)."""
    with client(ctx) as hallmark:
        found = hallmark.signature_manifest(request_id)
    emit(as_json, {"request_id": request_id, "manifest": found}, lambda: print(found, end=""))


@app.command(epilog=example(f"hallmark request withdraw {ID}"))
def withdraw(ctx: typer.Context, request_id: RequestId, as_json: Json = False) -> None:
    """Take an open change of a policy back: its author may, and administrators."""
    with client(ctx) as hallmark:
        try:
            found = hallmark.withdraw_request(request_id)
        except HallmarkError as error:
            if error.code != "not-a-policy":
                raise
            detail = f"it asks for a stage, not for a policy: hallmark stage cancel {request_id} --reason '...'"
            raise HallmarkError(error.code, detail, status=error.status, request_id=error.request_id) from error
    emit(as_json, found, lambda: print_state(found))


def full_name(given: str, names: list[str], option: str) -> str:
    """The name of a rule or a gate, which may be given without that of its policy where that is clear."""
    short = [name for name in names if name.partition("/")[2] == given]
    if given in names:
        return given
    if len(short) == 1:
        return short[0]
    raise typer.BadParameter(f"{given!r} is none of {', '.join(names) or 'nothing'}", param_hint=option)


def _named_workspace(ctx: typer.Context) -> str | None:
    """That of `hallmark --workspace W`. Where models live by default says nothing about who is asked to vote."""
    root = ctx.find_root()
    source = root.get_parameter_source("workspace")
    return root.params.get("workspace") if source is not None and source.name == "COMMANDLINE" else None


def _in_force(hallmark: Client, request: Request) -> str | None:
    """The text that a change of a policy would replace."""
    earlier = [p for p in hallmark.policies(request.model) if p.revision < request.version]
    return earlier[0].document if earlier else None


def _print_list(found: list[Request]) -> None:
    if not found:
        out.print("no such requests")
        return
    rows = [
        (
            r.request_id,
            r.about,
            None if r.kind == "policy" else f"{r.from_stage} -> {r.to_stage}",
            Text(r.status, style=STATUS_COLOURS.get(r.status, "")),
            r.waits_for or ("a review" if r.phase == "review" else None),
            r.requested_by,
            r.opened_at,
            r.reason,
        )
        for r in found
    ]
    out.print(table(("request", "about", "move", "status", "waits for", "asked by", "at (UTC)", "reason"), rows))


def _print_outcome(request: Request, done: str) -> None:
    out.print(f"{done}; it binds to {request.request_digest}" if request.open else done, markup=False)
    print_rules(request.rules)
    print_state(request)
