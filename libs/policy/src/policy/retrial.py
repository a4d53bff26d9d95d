"""The case behind a decision, tried again: its gates, its people, its time, and whether the verdict follows."""

from dataclasses import replace
from typing import Any, get_args

from contracts.approval import Answer, BreakGlass, Choice, Decision, GateAnswered, Verdict, Vote, Waiver
from contracts.registry import Criterion
from policy.case import Case, Person, Refusal
from policy.findings import Findings
from policy.glass import broken
from policy.matching import InForce, applicable
from policy.needs import Gate, Needs, added_by, needs_of
from policy.outlook import before_waiver, gates_of, outlook, unskippable
from policy.people import approvals, barred, denial, signed_by, tally, why_not
from policy.recast import cast_again
from policy.times import expired, in_time, ordered

TAKEN = "taken from the record"


def retry(found: Findings, decision: Decision, inputs: dict[str, Any], policies: InForce) -> None:
    """Adds what is found. The inputs and the policies are those of the decision.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: the inputs are not such as a service freezes.
    """
    at = decision.decided_at
    opened_at = decision.opened_at or at
    needs = needs_of(policies, inputs, opened_at=opened_at, now=at)
    case = Case(
        requested_by=decision.requested_by,
        request_digest=decision.request_digest,
        inputs=inputs,
        opened_at=decision.opened_at or at - needs.min_wait,
        bound_at=decision.bound_at or at,
        votes=decision.votes,
        waivers=decision.waived,
        added={rule: frozenset(groups) for rule, groups in decision.added_approvers.items()},
        glass=decision.break_glass,
    )
    _match(found, decision, policies, inputs)
    ordered(found, decision)
    gates = _gates(found, decision, case, needs)
    _waivers(found, decision, case, needs)
    _added(found, decision, needs)
    _votes(found, decision, case, policies)
    if decision.verdict is Verdict.APPROVED:
        _people(found, decision, case, needs)
        in_time(found, decision, case, needs)
    if decision.break_glass is not None:
        _emergency(found, decision, decision.break_glass, needs, gates)
    _verdict(found, decision, case, needs, gates)


def _match(found: Findings, decision: Decision, policies: InForce, inputs: dict[str, Any]) -> None:
    at = decision.decided_at
    match = [ref.name for ref, _ in applicable(policies, inputs, at)]
    alien = ", ".join(ref.name for ref in decision.policies if ref.name not in match)
    # What has expired is closed as it is, before anybody asks which policies apply by now.
    why = f"not about such a request: {alien}" if alien and at < decision.expires_at else None
    found.say("match", why, "each of the policies is about such a request")
    found.unknown("other policies", "that these revisions were in force, and no other, is in the audit log only")


# -- gates --------------------------------------------------------------------------------------------------------


def _gates(found: Findings, decision: Decision, case: Case, needs: Needs) -> tuple[Criterion, ...]:
    """What the gates say now."""
    wanted = [doubt.gate for doubt in needs.doubts] + [gate.id for gate in needs.gates]
    there = [said.gate for said in decision.gates]
    odd = None if wanted == there else f"the policies have {_list(wanted)}, the decision has {_list(there)}"
    found.say("gates", odd, f"{len(there)} of {len(wanted)} gates are in the decision")
    recorded = {said.gate: said for said in decision.gates}
    again = [*needs.doubts, *(_gate(decision, case, needs, gate, recorded.get(gate.id)) for gate in needs.gates)]
    for n, said in enumerate(again):
        if (was := recorded.get(said.gate)) is not None:
            _compare(found, decision, needs.gate(said.gate), was, said)
            if was.result == said.result and _told_otherwise(needs.gate(said.gate), said):
                again[n] = was
    return tuple(again)


def _told_otherwise(gate: Gate | None, said: Criterion) -> bool:
    """Whether the same result may come with another message: what a webhook said is in the record only, and an engine
    of another year may describe an error in other words."""
    return gate is None or gate.spec.webhook is not None or _before_waiver(said) not in ("pass", "fail")


def _gate(decision: Decision, case: Case, needs: Needs, gate: Gate, was: Criterion | None) -> Criterion:
    at, result = decision.decided_at, _before_waiver(was)
    if gate.spec.webhook is not None and was is not None and result in get_args(Answer):
        answer = GateAnswered(
            request_id=decision.transition_id,
            gate=gate.id,
            result=result,
            message=was.message,
            by=TAKEN,
            request_digest=case.request_digest,
        )
        case = replace(case, answers=(answer,))
    elif result != "pending" and decision.bound_at is None:
        # Nobody answered in time, if nobody did: when the time began is not in the record.
        case = replace(case, bound_at=at - gate.timeout)
    return gates_of(case, replace(needs, gates=(gate,), doubts=()), at)[0]


def _before_waiver(was: Criterion | None) -> Any:
    return "pending" if was is None else before_waiver(was)


def _compare(found: Findings, decision: Decision, gate: Gate | None, was: Criterion, said: Criterion) -> None:
    name = f"gate {said.gate}"
    if was.expression != said.expression:
        found.failed(name, f"the policy asks {said.expression}, the decision says {was.expression}")
    elif was.result != said.result:
        why = f": {said.message}" if said.message else ""
        found.failed(name, f"it is {said.result}{why}; the decision says {was.result}")
    elif gate is not None and gate.spec.webhook is not None:
        found.unknown(name, f"{was.result}, {TAKEN}: a webhook cannot be asked again")
    elif gate is not None and decision.bound_at is None and "no answer within" in said.message:
        found.unknown(name, f"{was.result}, {TAKEN}: when the check was asked for is not in it")
    elif was.message != said.message and not _told_otherwise(gate, said):
        found.failed(name, f"it says {said.message!r}; the decision says {was.message!r}")
    else:
        found.ok(name, f"{said.result}, evaluated again")


def _waivers(found: Findings, decision: Decision, case: Case, needs: Needs) -> None:
    for waiver in decision.waived:
        why = _wrong(decision, case, needs, waiver)
        good = f"{waiver.by} of {_list(waiver.groups)} may let it pass; the groups are {TAKEN}"
        found.say(f"waiver of {waiver.gate} by {waiver.by}", why, good)


def _wrong(decision: Decision, case: Case, needs: Needs, waiver: Waiver) -> str | None:
    gate = needs.gate(waiver.gate)
    if gate is None or gate.spec.never_skip:
        return "nobody may waive it" if gate else "there is no such gate"
    if waiver.request_digest != decision.request_digest:
        return "it is for another request"
    if not (decision.bound_at or waiver.at) <= waiver.at <= decision.decided_at:
        return "it is dated after the decision, or before the request rested on what it binds to"
    if needs.methods is not None and not signed_by(waiver.auth_method, needs.methods):
        return f"the policies want a sign-in by {_list(sorted(needs.methods))}, not by {waiver.auth_method}"
    groups = frozenset(waiver.groups)
    if not groups & gate.asks.union(*gate.waivers):
        return f"{waiver.by} is in none of the groups that may waive it"
    refusal = barred(case, needs, waiver.by)
    return refusal.detail if refusal else None


# -- people -------------------------------------------------------------------------------------------------------


def _added(found: Findings, decision: Decision, needs: Needs) -> None:
    for rule, groups in decision.added_approvers.items():
        alien = {*groups} - added_by(needs, decision.decided_at if decision.opened_at else None).get(rule, frozenset())
        why = f"no policy adds {_list(sorted(alien))} by then" if alien else None
        good = "" if decision.opened_at else f"; when is {TAKEN}"
        found.say(f"approvers added to {rule}", why, f"{_list(groups)}, by an escalation{good}")


def _votes(found: Findings, decision: Decision, case: Case, policies: InForce) -> None:
    for n, vote in enumerate(decision.votes):
        who = f"{vote.voter} for {vote.on_behalf_of}" if vote.on_behalf_of else vote.voter
        why = _uncast(decision, case, policies, vote, decision.votes[:n])
        found.say(f"vote of {who}", why, f"{vote.choice} by {vote.auth_method} at {vote.at.isoformat()}")
    if decision.votes:
        what = "who is a person, in which groups, who voted for whom, how they had signed in and what they wrote"
        found.unknown("people", f"{what} is {TAKEN}")


def _uncast(decision: Decision, case: Case, policies: InForce, vote: Vote, before: tuple[Vote, ...]) -> str | None:
    """Why the vote cannot have been cast."""
    needs = needs_of(policies, case.inputs, opened_at=case.opened_at, now=vote.at)
    if decision.opened_at is not None:
        by_then = added_by(needs, vote.at)
        case = replace(
            case, added={rule: groups & by_then.get(rule, frozenset()) for rule, groups in case.added.items()}
        )
    rule = vote.rule if vote.choice is Choice.APPROVE else None
    again = cast_again(case, needs, vote, before, rule=rule)
    if isinstance(again, Refusal):
        return again.detail
    if again is None:
        return "it is there twice"
    if vote.at > decision.decided_at:
        return "it is dated after the decision"
    if decision.bound_at is not None and vote.at < decision.bound_at:
        return "it is dated before the request rested on what it binds to"
    if vote.choice is Choice.APPROVE and again.meaning != vote.meaning:
        return f"the rule means {again.meaning!r}, not {vote.meaning!r}"
    return None


def _people(found: Findings, decision: Decision, case: Case, needs: Needs) -> None:
    at, glass = decision.decided_at, decision.break_glass
    against = denial(case, needs, at)
    found.say("denial", f"{against.voter} rejected it" if against else None, "nobody who may has rejected it")
    if glass is not None and "approvals" in glass.skips:
        found.ok("quorum", "skipped in an emergency")
        return
    have = tally(case, needs, at)
    short = [f"{r.id} has {have[r.id]} of {r.count}" for r in needs.rules if have[r.id] < r.count]
    counted = approvals(case, needs, at)
    void = [f"{v.voter}: {why}" for v in case.votes if v not in counted and (why := why_not(case, needs, v, at))]
    told = ", ".join(f"{rule.id} has {have[rule.id]} of {rule.count}" for rule in needs.rules) or "nobody is asked"
    found.say("quorum", "; ".join(short + void) if short else None, told)


# -- emergencies, and the verdict ---------------------------------------------------------------------------------


def _emergency(
    found: Findings, decision: Decision, glass: BreakGlass, needs: Needs, gates: tuple[Criterion, ...]
) -> None:
    person = Person(glass.by, frozenset(glass.groups), True, True, glass.auth_method, authenticated_at=glass.at)
    again = broken(needs, person, glass.reason, glass.at, decision.request_digest)
    problems = []
    if isinstance(again, Refusal):
        problems.append(again.detail)
    elif names := [name for name in BreakGlass.model_fields if getattr(again, name) != getattr(glass, name)]:
        problems.append(f"the policies give another {', '.join(names)}")
    if not glass.at <= decision.decided_at < glass.until:
        problems.append(f"it was on from {glass.at.isoformat()} to {glass.until.isoformat()} only")
    if decision.bound_at is not None and glass.at < decision.bound_at:
        problems.append("it began before the request rested on what it binds to")
    if never := unskippable(needs, gates):
        problems.append(f"not even an emergency skips {_list([gate.gate for gate in never])}")
    found.say(
        "emergency", "; ".join(problems) or None, f"{glass.by} might break the glass, without {_list(glass.skips)}"
    )
    if needs.emergency is not None and needs.emergency.within is not None:
        found.unknown("emergency sign-in", f"that {glass.by} had signed in within {needs.emergency.within} is {TAKEN}")


def _verdict(found: Findings, decision: Decision, case: Case, needs: Needs, gates: tuple[Criterion, ...]) -> None:
    at = decision.decided_at
    then = outlook(case, needs, at, gates=gates)
    granted = (then.waivers if decision.verdict is Verdict.APPROVED else (), needs.rollback_to)
    problem = (
        None if granted == (decision.waivers, decision.rollback_to) else f"the request and the policies give {granted}"
    )
    found.say("grants", problem, "waivers and the version to return to are those of the request")
    if decision.verdict is Verdict.REJECTED and at >= decision.expires_at:
        expired(found, decision, case, needs)
    elif then.verdict is decision.verdict:
        found.ok("verdict", f"{then.verdict}: {then.reason}")
        other = f"it is {then.reason!r}; the decision says {decision.reason!r}"
        found.say("reason", None if then.reason == decision.reason else other, "the reason is that of the verdict")
    else:
        follows = str(then.verdict) if then.verdict else f"to wait ({then.phase})"
        found.failed("verdict", f"{decision.verdict} does not follow; what follows is {follows}: {then.reason}")


def _list(names: Any) -> str:
    return ", ".join(names) or "nothing"
