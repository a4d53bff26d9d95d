"""What policies would do, as people read it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.markup import escape
from rich.text import Text

from hallmark.approval_output import gate_style, moment, print_policies, print_state, section, span
from hallmark.approval_results import Explanation, PolicyChange, Request, Simulation, Trial
from hallmark.output import out, table


def print_change(made: PolicyChange, request: Request | None, *, waited: bool) -> None:
    """`waited`: whom it waits for was told before."""
    about = f"policy {made.name} revision {made.revision}"
    if made.published:
        already = " already" if made.request_id is None else ""
        out.print(f"{about} is in force{already}, {made.digest}", markup=False, soft_wrap=True)
    elif request is not None and request.open and not waited:
        print_awaiting(request)
    elif request is not None:
        print_state(request)


def print_awaiting(request: Request) -> None:
    out.print(f"{request.about} is not in force yet: the rules in force ask for approval.", markup=False)
    for rule in request.rules:
        groups = ", ".join(str(one).removeprefix("group:") for one in rule.voters or ())
        out.print(f"  {rule.id}: {rule.count - rule.have} more of {groups} must agree", markup=False)
    out.print(f"Others than you can say: [bold]hallmark request approve {escape(request.request_id)}[/bold]")


def print_explanation(model: str, version: int, to: str, found: Explanation) -> None:
    would = found.would
    outcome = f"would be {would.get('verdict')}" if would.get("verdict") else f"would wait for {would.get('phase')}"
    out.print(f"{model} version {version} -> {to}: {outcome}: {would.get('reason')}", markup=False)
    print_policies(found.policies)
    for mistake in found.mistakes:
        out.print(f"the request lacks: {mistake}", style="red", markup=False)
    for kind in found.missing_evidence:
        hint = f"hallmark evidence attach {model} {version} --type {kind} --title '...' --file FILE"
        out.print(f"evidence is missing: {kind}: {hint}", style="red", markup=False)
    gates = [
        (
            g.gate,
            g.expression,
            Text(g.result, style=gate_style(g.result)),
            g.message if g.blocks else f"{g.message} (only warns)".strip(),
            "nobody, ever" if g.never_skip else " and ".join(g.waivable_by),
        )
        for g in found.gates
    ]
    section(None, ("gate", "expression", "result", "", "may be waived by"), gates)
    rules = [(r.id, r.meaning, r.count, [str(v).removeprefix("group:") for v in r.voters]) for r in found.rules]
    section(None, ("rule", "meaning", "people", "of"), rules)
    section(None, ("must not vote", "why"), [(one["who"], one["why"]) for one in found.excluded])
    section(None, ("may end it", "people"), [(_groups(one["from"]), one["count"]) for one in found.deny])
    steps = [
        (moment(datetime.fromisoformat(one["at"])), one["action"], _groups(one["to"]), one.get("rule") or "")
        for one in found.escalation
    ]
    section(None, ("if it waits until", "then", "whom", "rule"), steps)
    facts = [
        ("votes must be", " ".join(_signing(found))),
        ("votes count for", span(found.valid_for_seconds)),
        ("voting for others", _delegation(found)),
        ("windows", "; ".join(f"{one['days']} {one['from']}-{one['to']} {one['tz']}" for one in found.windows)),
        ("frozen", "; ".join(f"{one['name']}: {one['from']} to {one['to']} {one['tz']}" for one in found.freezes)),
        ("waits at least", span(found.min_wait_seconds)),
        ("may go live", _opening(found.opens_at)),
        ("expires after", span(found.expires_after_seconds)),
    ]
    if found.emergency:
        skips = ", ".join(found.emergency.get("skips", ()))
        facts.append(("in an emergency", f"{' and '.join(found.emergency.get('allowed', ()))} may skip {skips}"))
    out.print(table(("", ""), [fact for fact in facts if fact[1] not in ("", "-")]))


def _groups(names: Sequence[str]) -> str:
    return ", ".join(name.removeprefix("group:") for name in names)


def _signing(found: Explanation) -> list[str]:
    within = found.reauthenticate_within_seconds
    told = [f"signed in within {span(within)}"] if within else []
    if found.methods is not None:
        told.append(
            f"by {' or '.join(found.methods)}" if found.methods else "by nobody: the policies agree on no sign-in"
        )
    return told


def _delegation(found: Explanation) -> str:
    longest = found.delegation_max_seconds
    return f"by delegations of at most {span(longest)}" if longest else "not allowed" if found.rules else ""


def _opening(at: datetime | None) -> str:
    if at is None:
        return "never in the next year"
    return moment(at) if at > datetime.now(UTC) + timedelta(seconds=10) else "at once"


def print_simulation(found: Simulation, every: bool) -> None:
    rows = [
        (
            one.request_id,
            f"{one.workspace}/{one.model}",
            one.version,
            one.to_stage,
            one.decided,
            Text(one.would, style="bold yellow" if one.differs else ""),
            one.reason,
        )
        for one in found.items
        if one.differs or every
    ]
    section(None, ("request", "model", "version", "to", "decided", "would be", "why"), rows)
    out.print(
        f"of the last {found.looked_at} decided requests it applies to {found.applied_to}; "
        f"it would have decided {found.differing} otherwise"
    )


def print_trials(trials: Sequence[Trial], every: bool) -> None:
    """FILE:LINE: CASE: what is not as expected."""
    for trial in trials:
        if trial.passed and not every:
            continue
        style, word = ("green", "ok") if trial.passed else ("red", "FAILED")
        case = f" {trial.case}:" if trial.case else ""
        lines = trial.text.splitlines() or [""]
        out.print(f"{trial.file}:{trial.line}: {word}:{case} {lines[0]}", style=style, markup=False, soft_wrap=True)
        for line in lines[1:]:
            out.print(f"    {line}", style=style, markup=False, soft_wrap=True)
    failed = sum(not trial.passed for trial in trials)
    files = len({trial.file for trial in trials})
    summary = f"{len(trials) - failed} passed, {failed} failed, in {files} file{'' if files == 1 else 's'}"
    out.print(summary, style="bold red" if failed else "bold green")
