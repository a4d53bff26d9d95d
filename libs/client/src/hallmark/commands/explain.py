"""`hallmark audit explain`: of the noun `audit`, from a logged decision back to everything behind it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hallmark.audit_results import Explained, Fact
from hallmark.errors import HallmarkError
from hallmark.output import Json, client, emit, example, instant, out, people, table, text

LONGEST_PATH = 200
PARTS = (
    *("registration", "checks", "evaluations", "evidence", "remarks", "request", "gates", "votes", "decision"),
    *("policies", "revocations", "deletions"),
)


def add_to(audit: typer.Typer) -> None:
    """Makes it a verb of the noun."""
    audit.command(
        "explain",
        epilog=example(
            "hallmark audit explain prediction.json",
            "hallmark audit explain --model fraud --at 2026-11-02T14:30:00Z",
        ),
    )(explain)


def explain(
    ctx: typer.Context,
    pin: Annotated[
        str | None,
        typer.Argument(
            help="The pin, what hallmark.decision logged, or a file with one of them; - reads it.", show_default=False
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Instead of a pin: this model ...")] = None,
    at: Annotated[str | None, typer.Option(help="... at this moment; without a zone it is UTC. Default: now.")] = None,
    target: Annotated[str, typer.Option(help="A stage, or @ and an alias.")] = "Production",
    known_at: Annotated[str | None, typer.Option(help="As the log knew it at this moment.")] = None,
    as_json: Json = False,
) -> None:
    """Explain a decision: which version made it, trained on what, how good it was, and who let it in."""
    if (pin is None) == (model is None):
        raise typer.BadParameter("give a pin, or --model")
    known = instant(known_at) if known_at else None
    with client(ctx) as hallmark:
        found = (
            hallmark.explain(pin_in(pin), known_at=known)
            if pin is not None
            else hallmark.explain(model=model, at=instant(at), target=target, known_at=known)
        )
    emit(as_json, found, lambda: print_explained(found))


def pin_in(given: str) -> str:
    """The pin itself, or the one in a record, or in a file with either. Raises HallmarkError, code `no-pin`."""
    text_ = sys.stdin.read() if given == "-" else given
    if len(given) < LONGEST_PATH and Path(given).is_file():
        text_ = Path(given).read_text(encoding="utf-8", errors="replace")
    text_ = text_.strip()
    if text_.startswith("{"):
        try:
            text_ = str(json.loads(text_).get("pin") or "")
        except (ValueError, AttributeError):
            text_ = ""
    if text_.count(".") != 2:
        raise HallmarkError("no-pin", f"{given[:60]!r} holds no pin; hallmark.decision logs one with each decision")
    return text_


def print_explained(found: Explained) -> None:
    if found.version is None:
        out.print(f"{found.model}: nothing was in {found.target} at {text(found.at)} UTC", markup=False)
        return
    rows: list[tuple[str, object]] = [
        ("decided by", f"{found.model} version {found.version}"),
        ("as", f"{found.target} at {text(found.at)} UTC"),
    ]
    if found.pin is not None:
        rows.append(("pin", "the log says the same" if found.pin.get("agrees") else "THE LOG SAYS OTHERWISE"))
    if found.stay is not None:
        stay = found.stay
        rows += [
            ("there", f"from {text(stay.since)} until {text(stay.until)}"),
            ("asked by", stay.requested_by),
            ("approved by", people(stay.approved_by)),
            ("reason", stay.reason),
            *(("criterion", f"{c.gate}: {c.expression}: {c.result}") for c in stay.criteria),
        ]
    content = found.registration[0].data.get("content", {}) if found.registration else {}
    rows += _trained(content)
    out.print(table(("", ""), rows))
    facts = [(fact.index, fact.at, part, fact.actor, _said(fact)) for part in PARTS for fact in getattr(found, part)]
    out.print()
    out.print(table(("entry", "at (UTC)", "part", "who", "what"), facts))


def _trained(content: dict[str, Any]) -> list[tuple[str, object]]:
    lineage = content.get("lineage") or {}
    data = [f"{d['name']} {d.get('digest') or d.get('version') or ''}".strip() for d in lineage.get("datasets") or []]
    run = lineage.get("run") or {}
    return [
        ("trained on", data),
        ("code", " ".join(str(lineage[n]) for n in ("git_repository", "git_commit") if lineage.get(n))),
        ("run", f"{run['system']} {run['id']}" if run else None),
        ("metrics", [f"{name} {text(value)}" for name, value in sorted((content.get("metrics") or {}).items())]),
        ("artifact", (content.get("artifact") or {}).get("digest")),
    ]


def _said(fact: Fact) -> str:
    return f"{fact.summary} ({fact.problem})" if fact.problem else fact.summary
