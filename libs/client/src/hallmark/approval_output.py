"""Requests, votes and decisions as people read them."""

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from rich.markup import escape
from rich.text import Text

from contracts.approval import Decision
from hallmark.approval_results import Request, Rule
from hallmark.output import AWAITING, REFUSED, out, table, text, verdict
from hallmark.results import Criterion

STATUS_COLOURS = {"approved": "green", "rejected": "red", "expired": "red", "cancelled": "dim", "open": "yellow"}


def print_request(request: Request, before: str | None = None) -> None:
    """All of it. `before`: of a change of a policy, the text in force."""
    r = request
    print_state(r)
    out.print(f"asked by {r.requested_by} at {moment(r.opened_at)}: {r.reason}", markup=False)
    for name, value in r.fields.items():
        out.print(f"{name}: {value}", markup=False)
    print_policies(r.policies)
    if r.document is not None:
        print_difference(before or "", r.document)
    print_gates(r.gates)
    print_rules(r.rules)
    print_votes(r.votes)
    void = [(p["vote"]["voter"], p["vote"]["choice"], p["vote"]["at"], p["why"]) for p in r.past_votes]
    section("votes that count no more", ("voter", "vote", "at (UTC)", "why"), void)
    refused = [(v["voter"], v["choice"], f"{v['detail']} [{v['code']}]") for v in r.refusals]
    section("votes that were refused", ("voter", "vote", "why"), refused)
    print_waivers(r.waivers)
    idle = [(p["waiver"]["gate"], p["waiver"]["by"], p["waiver"]["at"], p["why"]) for p in r.past_waivers]
    section("waivers that count no more", ("gate", "by", "at (UTC)", "why"), idle)
    comments = [(c["at"], c["author"], c["text"]) for c in r.comments]
    section("comments", ("at (UTC)", "by", ""), comments)
    steps = [(e["step"], e["action"], e["to"], e.get("rule")) for e in r.escalations]
    section("escalations", ("step", "done", "to", "rule"), steps)
    if r.emergency is not None:
        print_emergency(r.emergency)
    over = [
        (p["emergency"]["by"], p["emergency"]["reason"], p["emergency"]["at"], p["why"]) for p in r.past_emergencies
    ]
    section("emergencies that count no more", ("by", "reason", "at (UTC)", "why"), over)
    reviews = [
        (v["at"], v["reviewer"], "justified" if v["justified"] else "unjustified", v["comment"]) for v in r.reviews
    ]
    section("reviews of the emergency", ("at (UTC)", "by", "it was", "comment"), reviews)
    if r.open:
        out.print(f"expires {moment(r.expires_at)}, unless it is decided before", markup=False)
    if r.decision is not None:
        out.print(f"decided at {moment(r.decided_at)}: {r.decision['reason']}", markup=False)
    if r.request_digest is not None:
        out.print(f"votes bind to {r.request_digest}", style="dim", markup=False)
    print_you(r)


def print_state(request: Request) -> None:
    """What it is, where it stands, and what it waits for."""
    r = request
    move = None if r.kind == "policy" else (r.from_stage, r.to_stage)
    out.print(_headline(r.about, move, r.status))
    if r.open and r.waits_for:
        out.print(f"waits for {r.phase}: {r.waits_for}", markup=False)
    elif r.phase == "review":
        out.print("waits for a review of the emergency", markup=False)


def _headline(about: str, move: tuple[str, str] | None, status: str) -> Text:
    told = Text(f"{about}: ")
    if move is not None:
        told.append(f"{move[0]} -> ").append(move[1], "bold").append(": ")
    return told.append(status, STATUS_COLOURS.get(status, ""))


def print_you(request: Request) -> None:
    """Whether the reader may vote, and how; or why not."""
    you = request.you
    if you is None or not request.open:
        return
    others = you.on_behalf_of
    if you.may_vote and you.code is None:
        out.print(f"You may vote: [bold]hallmark request approve {escape(request.request_id)} --comment '...'[/bold]")
    elif you.voted:
        out.print(f"You have voted; to think again: hallmark request withdraw-vote {request.request_id}", markup=False)
    elif you.detail:
        out.print(f"You may not vote: {you.detail} [{you.code}]", markup=False)
    if others:
        out.print(
            f"You may vote for {', '.join(others)}: hallmark request approve {request.request_id} --for {others[0]}",
            markup=False,
        )


def print_policies(policies: Sequence[Mapping[str, Any]]) -> None:
    names = ", ".join(f"{p['name']} (revision {p['revision']})" for p in policies)
    out.print(f"policies: {names or 'none applies, which refuses it'}", markup=False)


def print_gates(gates: Sequence[Criterion]) -> None:
    rows = [(g.gate, g.expression, Text(g.result, style=gate_style(g.result)), g.message) for g in gates]
    section(None, ("gate", "expression", "result", ""), rows)


def print_rules(rules: Sequence[Rule]) -> None:
    rows = [(r.id, r.meaning, f"{r.have} of {r.count}", r.voters) for r in rules]
    section(None, ("rule", "meaning", "approvals", "from"), rows)


def print_votes(votes: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            f"{v['voter']} for {v['on_behalf_of']}" if v.get("on_behalf_of") else v["voter"],
            v["choice"],
            v.get("rule"),
            v.get("comment"),
            v.get("at"),
            v.get("auth_method"),
        )
        for v in votes
    ]
    section(None, ("voter", "vote", "rule", "comment", "at (UTC)", "signed in by"), rows)


def print_waivers(waivers: Sequence[Mapping[str, Any]]) -> None:
    rows = [(w["gate"], w["by"], w["reason"], w["at"]) for w in waivers]
    section("waivers", ("gate", "by", "reason", "at (UTC)"), rows)


def print_emergency(glass: Mapping[str, Any]) -> None:
    out.print(f"EMERGENCY: {glass['by']} broke the glass: {glass['reason']}", style="bold red", markup=False)
    out.print(
        f"skipped: {text(glass['skips'])}; good until {when(glass['until'])}; "
        f"to be reviewed by {glass['review_count']} of {text(glass['review'])} before {when(glass['review_by'])}",
        markup=False,
    )


def print_decision(decision: Decision) -> None:
    d = decision
    out.print(_headline(f"{d.model} version {d.version}", (str(d.from_stage), str(d.to_stage)), str(d.verdict)))
    out.print(d.reason, markup=False)
    out.print(f"asked by {d.requested_by}; decided at {moment(d.decided_at)}", markup=False)
    print_policies([ref.model_dump() for ref in d.policies])
    print_gates([Criterion.model_validate(gate.model_dump()) for gate in d.gates])
    print_votes([vote.model_dump(mode="json") for vote in d.votes])
    print_waivers([waiver.model_dump(mode="json") for waiver in d.waived])
    if d.break_glass is not None:
        print_emergency(d.break_glass.model_dump(mode="json"))
    if d.rollback_to is not None:
        out.print(f"approved with it, to roll back to: version {d.rollback_to}")
    out.print(f"decision {d.decision_id} of request {d.transition_id}", style="dim", markup=False)


def print_difference(before: str, after: str) -> None:
    """What a change of a policy changes, as a unified diff; a first revision whole."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), "in force", "proposed", lineterm="")
    for line in found if before else after.splitlines():
        out.print(line, style=styles.get(line[:1], "") if before else "", markup=False)


def section(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table, or nothing where there are no rows."""
    found = [
        [when(cell) if name == "at (UTC)" else cell for name, cell in zip(columns, row, strict=True)] for row in rows
    ]
    if found:
        out.print(table(columns, found, title=title))


def gate_style(result: str) -> str:
    return {"inconclusive": "yellow", "pending": "yellow", "waived": "yellow"}.get(result, verdict(result))


def when(value: object) -> str:
    """A time that came as text, as `text` writes it."""
    if isinstance(value, str):
        try:
            return text(_utc(datetime.fromisoformat(value)))
        except ValueError:
            return value
    return text(_utc(value)) if isinstance(value, datetime) else text(value)


def moment(value: datetime | None) -> str:
    return f"{text(_utc(value))} UTC" if value else "-"


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC) if value.tzinfo else value


def span(seconds: float | None) -> str:
    """`5 minutes`, `3 days`: the largest unit that it has whole numbers of."""
    if not seconds:
        return "-"
    for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % size == 0:
            count = seconds / size
            return f"{count:g} {name}{'' if count == 1 else 's'}"
    return str(timedelta(seconds=seconds))


def confirm(what: str, yes: bool) -> None:
    """Asks before something that cannot be undone. Where nobody can be asked, `--yes` has to be given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{what}. If that is meant, say --yes")
    typer.confirm(f"{what}. Go on?", abort=True, err=True)


def exit_for(request: Request) -> None:
    """0 when it was approved, 3 while it is open, 4 when it was rejected, expired or taken back."""
    if request.status != "approved":
        raise typer.Exit(AWAITING if request.open else REFUSED)
