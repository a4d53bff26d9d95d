"""Where a request stands: its gates, and whether it is decided, or whom or what it waits for.

The order is that of the design: static gates, then people, then the schedule. People are not asked while a blocking
gate fails.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from contracts.approval import GateAnswered, Verdict, Waiver
from contracts.registry import Criterion
from policy.case import Case, Members, nobody
from policy.evidence import impartial
from policy.gates import evaluate, variables_of
from policy.glass import void
from policy.needs import UNSAFE_GATE, UNSAFE_WAIVER, Gate, Needs
from policy.people import approvals, barred, denial, tally
from policy.schedule import next_open

Phase = Literal["gates", "people", "settling", "schedule", "frozen", "decided"]
GOOD = ("pass", "waived")
LONGEST = 9_000
HELD = ("promotion", "alias")  # what a freeze of the model holds back: a rollback is the way out of trouble


@dataclass(frozen=True)
class Outlook:
    """`verdict` is None while the request waits: `phase` and `reason` say what for, `next_at` when time alone may
    change it. `emergency`: it passes because somebody broke the glass."""

    verdict: Verdict | None
    reason: str
    phase: Phase
    gates: tuple[Criterion, ...] = ()
    next_at: datetime | None = None
    emergency: bool = False

    @property
    def waivers(self) -> tuple[str, ...]:
        """What the decision lets pass in the registry, too."""
        waived = any(gate.gate == UNSAFE_GATE and gate.result == "waived" for gate in self.gates)
        return (UNSAFE_WAIVER,) if waived else ()


def outlook(
    case: Case,
    needs: Needs,
    at: datetime,
    *,
    members: Members = nobody,
    settle: timedelta = timedelta(0),
    frozen: str | None = None,
    gates: Sequence[Criterion] | None = None,
) -> Outlook:
    """Where the case stands at that time. `settle`: how long a complete quorum waits for a rejection that was cast at
    the same moment. `frozen`: why the model may not be promoted now, if so. `gates`: what `gates_of` found already."""
    gates = tuple(gates_of(case, needs, at, members) if gates is None else gates)
    held = frozen if case.inputs["request"]["kind"] in HELD else None
    emergency = _emergency(case, needs, gates, at, members) if held is None else None
    if why := _refused(case, needs, gates, at, members):
        found = Outlook(Verdict.REJECTED, why, "decided")
    elif emergency is not None and emergency.verdict is not None:
        found = emergency
    elif why := _failed(needs, gates):
        found = Outlook(Verdict.REJECTED, why, "decided")
    elif held is not None:
        found = Outlook(None, held, "frozen")
    else:
        found = (
            _at_gates(case, needs, gates)
            or _at_people(case, needs, at, members)
            or _at_time(case, needs, at, settle)
            or Outlook(Verdict.APPROVED, _approved(case, needs, at, members), "decided")
        )
    if emergency is not None and found.verdict is None:
        found = replace(found, next_at=_sooner(found.next_at, emergency.next_at))
    return replace(found, reason=found.reason[:LONGEST], gates=gates)


def gates_of(case: Case, needs: Needs, at: datetime, members: Members = nobody) -> tuple[Criterion, ...]:
    """What each gate says at that time, waivers counted; first the policies that may or may not apply."""
    variables = variables_of(case.inputs, at) if needs.gates else {}
    said = ((gate, _said(case, gate, at, variables)) for gate in needs.gates)
    return (*needs.doubts, *(waived(case, needs, gate, one, members) for gate, one in said))


def _refused(case: Case, needs: Needs, gates: Sequence[Criterion], at: datetime, members: Members) -> str | None:
    """Why nothing, not even an emergency, can let the case pass."""
    asked = case.inputs["request"]
    if not (needs.matched or needs.doubts):
        what = "an alias" if asked["kind"] == "alias" else f"a {asked['kind']}"
        return f"no policy allows {what} from {asked['from']} to {asked['to']}"
    if not needs.matched:
        return _told(gates)
    if needs.mistakes:
        return "; ".join(needs.mistakes)
    against = denial(case, needs, at, members)
    if against is None:
        return None
    who = f"{against.voter} for {against.on_behalf_of}" if against.on_behalf_of else against.voter
    return f"{who} rejected: {against.comment}"


def _failed(needs: Needs, gates: Sequence[Criterion]) -> str | None:
    """What the gates say when one fails for good: nobody may let it pass, and no emergency could skip it."""
    skippable = needs.emergency is not None and "gates" in needs.emergency.skips
    for said in gates:
        gate = needs.gate(said.gate)
        if gate is None or not _blocks(needs, said) or said.result == "pending":
            continue
        if not gate.may_pass_by(said.result) and (gate.never_skipped or not skippable):
            return _told(gates)
    return None


def _at_gates(case: Case, needs: Needs, gates: Sequence[Criterion]) -> Outlook | None:
    told, until = [], []
    if needs.missing_evidence:
        told.append(f"evidence is missing: {', '.join(needs.missing_evidence)}")
    for said in gates:
        gate = needs.gate(said.gate)
        if gate is None or not _blocks(needs, said):
            continue
        if said.result == "pending":
            told.append(f"{gate.id} has not answered")
            until.append(case.bound_at + gate.timeout)
        elif wanted := gate.may_pass_by(said.result):
            groups = " and ".join("/".join(sorted(one)) for one in wanted)
            told.append(f"{gate.id} is {said.result}: somebody of {groups} may waive it")
        else:
            why = f", {said.message}" if said.message else ""
            told.append(f"{gate.id} is {said.result}{why}: only an emergency may skip it")
    return Outlook(None, "; ".join(told), "gates", next_at=min(until, default=None)) if told else None


def _at_people(case: Case, needs: Needs, at: datetime, members: Members) -> Outlook | None:
    have = tally(case, needs, at, members)
    short = [rule for rule in needs.rules if have[rule.id] < rule.count]
    return Outlook(None, "; ".join(f"{r.id}: {have[r.id]} of {r.count}" for r in short), "people") if short else None


def _at_time(case: Case, needs: Needs, at: datetime, settle: timedelta) -> Outlook | None:
    settled = max((vote.at + settle for vote in case.votes), default=at)
    if needs.rules and settled > at:
        return Outlook(None, "a rejection of this moment would still count", "settling", next_at=settled)
    opens = next_open(needs.schedules, max(at, case.opened_at + needs.min_wait))
    if opens == at:
        return None
    when = "never in the next year" if opens is None else f"at {opens.isoformat()}"
    return Outlook(None, f"approved; to be carried out {when}", "schedule", next_at=opens)


def _approved(case: Case, needs: Needs, at: datetime, members: Members) -> str:
    if needs.preapproved:
        return f"approved beforehand, with request {needs.preapproved}"
    names = ", ".join(sorted({vote.voter for vote in approvals(case, needs, at, members)}))
    return f"approved by {names}" if needs.rules else "no approval is asked for"


def _emergency(case: Case, needs: Needs, gates: Sequence[Criterion], at: datetime, members: Members) -> Outlook | None:
    """Where the case stands by an emergency, if one is on."""
    glass = case.glass
    if glass is None or at >= glass.until or void(glass, needs, members) or unskippable(needs, gates):
        return None
    waits = (
        ("gates" not in glass.skips and _at_gates(case, needs, gates))
        or ("approvals" not in glass.skips and _at_people(case, needs, at, members))
        or ("schedule" not in glass.skips and _at_time(case, needs, at, timedelta(0)))
    )
    if waits:
        return replace(waits, next_at=_sooner(waits.next_at, glass.until))
    why = f"emergency: {glass.by} broke the glass: {glass.reason}"
    return Outlook(Verdict.APPROVED, why, "decided", emergency=True)


def _sooner(*moments: datetime | None) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)


def not_in_time(until: datetime) -> str:
    """Why a request was rejected that nobody decided before that time."""
    return f"not decided before {until.isoformat()}"


def unskippable(needs: Needs, gates: Sequence[Criterion]) -> list[Criterion]:
    """The gates that fail and that not even an emergency skips."""
    never = {gate.id for gate in needs.gates if gate.never_skipped}
    return [gate for gate in gates if gate.gate in never and gate.result not in GOOD]


def _blocks(needs: Needs, said: Criterion) -> bool:
    gate = needs.gate(said.gate)
    return gate is not None and gate.blocks and said.result not in GOOD


def waived(case: Case, needs: Needs, gate: Gate, said: Criterion, members: Members = nobody) -> Criterion:
    """The same, or that it is waived."""
    if said.result in ("pass", "pending") or not gate.blocks:
        return said
    waiver = next((w for w in case.waivers if _holds(case, needs, gate, said.result, w, members)), None)
    if waiver is None:
        return said
    text = f"{said.result}; waived by {waiver.by}: {waiver.reason}; {said.message}"
    return said.model_copy(update={"result": "waived", "message": text[:LONGEST]})


def before_waiver(said: Criterion) -> str:
    """What the gate said before somebody let it pass."""
    return said.message.partition(";")[0] if said.result == "waived" else said.result


def holding(case: Case, needs: Needs, gates: Sequence[Criterion], members: Members = nobody) -> tuple[Waiver, ...]:
    """The waivers that let these gates pass."""
    waived = {said.gate: before_waiver(said) for said in gates if said.result == "waived"}
    return tuple(
        waiver
        for waiver in case.waivers
        if waiver.gate in waived
        and (gate := needs.gate(waiver.gate)) is not None
        and _holds(case, needs, gate, waived[waiver.gate], waiver, members)
    )


def _holds(case: Case, needs: Needs, gate: Gate, result: str, waiver: Waiver, members: Members) -> bool:
    """Whether a recorded waiver lets this result pass now."""
    known = members(waiver.by)
    groups = frozenset(waiver.groups) & (known.groups if known is not None else frozenset(waiver.groups))
    return (
        waiver.gate == gate.id
        and (known is None or known.person)
        and barred(case, needs, waiver.by, known.email if known else None, members) is None
        and may_waive(gate, result, groups)
    )


def may_waive(gate: Gate, result: str, groups: frozenset[str]) -> bool:
    needed = gate.may_pass_by(result)
    return bool(needed) and not gate.spec.never_skip and all(groups & one for one in needed)


def _said(case: Case, gate: Gate, at: datetime, variables: Mapping[str, Any]) -> Criterion:
    """What the gate itself says."""
    spec = gate.spec
    trouble: Literal["error", "inconclusive"] = "inconclusive" if spec.on_error == "inconclusive" else "error"
    if spec.cel is not None:
        return evaluate(
            gate.id,
            spec.cel,
            variables,
            message=spec.message or "",
            on_no_baseline=spec.on_no_baseline or "inconclusive",
            on_error=trouble,
        )
    about = (
        f"webhook {spec.webhook.url}" if spec.webhook else f"attestation {spec.attestation and spec.attestation.type}"
    )
    empty = Criterion(gate=gate.id, expression=about, result="pending", message="asked; no answer yet")
    found = _answer(case, gate) if spec.webhook else _attested(case, gate)
    if found is not None:
        result, text = found
        notes = [text] if result == "pass" else [spec.message or "", text]
        return empty.model_copy(
            update={
                "result": trouble if result == "error" else result,
                "message": "; ".join(filter(None, notes))[:LONGEST],
            }
        )
    if at >= case.bound_at + gate.timeout:
        return empty.model_copy(update={"result": trouble, "message": f"no answer within {gate.timeout}"})
    return empty


def _answer(case: Case, gate: Gate) -> tuple[str, str] | None:
    said: list[GateAnswered] = [answer for answer in case.answers if answer.gate == gate.id]
    return (said[-1].result, said[-1].message) if said else None


def _attested(case: Case, gate: Gate) -> tuple[str, str] | None:
    """The latest attestation of that type by one of those whose word counts: a pass needs a file, and nobody attests
    what they made or ask for themselves."""
    wanted, candidate = gate.spec.attestation, case.inputs.get("candidate") or {}
    assert wanted is not None
    for one in reversed(candidate.get("attestations") or ()):
        own = not impartial(one["posted_by"], candidate.get("registered_by") or "", case.requested_by)
        if own or (one["result"] == "pass" and not one.get("digest")):
            continue
        posters = {f"user:{one['posted_by']}", *(f"group:{group}" for group in one.get("groups") or ())}
        if one["type"] == wanted.type and posters & {*wanted.posters}:
            shown = f" (sha256 {one['digest'].removeprefix('sha256:')[:12]})" if one.get("digest") else ""
            return one["result"], f"{one['posted_by']}: {one['title']}{shown}"
    return None


def _told(gates: Sequence[Criterion]) -> str:
    told = [f"{g.gate}: {g.result}{', ' + g.message if g.message else ''}" for g in gates if g.result not in GOOD]
    return "gates failed: " + "; ".join(told)
