"""Words for requests for approval: who asks whom, what people and gates say, what was decided. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from contracts.approval import (
    ApprovalLapsed,
    Decision,
    GateAnswered,
    GatesEvaluated,
    GateWaived,
    GlassBroken,
    PolicyRef,
    RequestClosed,
    RequestCommented,
    RequestDecided,
    RequestEscalated,
    RequestOpened,
    RequestRebound,
    ReviewGiven,
    ReviewOverdue,
    Vote,
    VoteCast,
    VoteRefused,
    VoteWithdrawn,
)
from contracts.envelope import Envelope
from contracts.lifecycle import parse_subject
from contracts.payload import Message
from notifier.notices import Notice, by, criteria_lines, goal, names_of, one_line

Facts = tuple[tuple[str, str], ...]


def of_approval(event: Message, envelope: Envelope) -> Notice | None:  # noqa: PLR0911  # one per group
    """None for what it has no words for."""
    about = about_of(envelope)
    match event:
        case RequestOpened():
            return _opened(event)
        case RequestRebound():
            void = (
                f"The votes, waivers and emergencies of {names_of(event.voided)} count no more" if event.voided else ""
            )
            return Notice(
                f"{about}: the request has changed: {one_line(event.cause)}",
                who=void,
                facts=(*under(event.policies), *until(event.expires_at), *request(event.request_id)),
            )
        case GatesEvaluated() | GateAnswered() | GateWaived():
            return _gates(event, about)
        case VoteCast() | VoteWithdrawn() | VoteRefused() | RequestCommented():
            return _people(event, about)
        case RequestEscalated():
            return _escalated(event, about)
        case GlassBroken() | ReviewGiven() | ReviewOverdue():
            return _emergency(event, about)
        case RequestDecided():
            return _decided(event.decision)
        case RequestClosed():
            return Notice(f"{about}: the request for approval was closed ({event.code}): {one_line(event.detail)}")
        case ApprovalLapsed():
            return _lapsed(event, about)
    return None


def about_of(envelope: Envelope) -> str:
    """What an event is about that names it in its subject only."""
    if envelope.subject.startswith("policy:"):
        return f"Policy {envelope.subject.removeprefix('policy:')}"
    try:
        _, model, version = parse_subject(envelope.subject)
    except ValueError:
        return envelope.subject
    return f"{model}: v{version}" if version else model


def until(at: datetime, label: str = "Open until") -> Facts:
    return ((label, moment(at)),)


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def request(request_id: str) -> Facts:
    return (("Request", request_id),)


def under(policies: Sequence[PolicyRef]) -> Facts:
    return (("Under", names_of([f"{ref.name} r{ref.revision}" for ref in policies]) or "no policy"),)


def _opened(event: RequestOpened) -> Notice:
    return Notice(
        f"{event.model}: v{event.version} waits for approval to {goal(event, now=False)}",
        who=f"Asked by {event.requested_by}",
        reason=event.reason,
        criteria=_metrics(event),
        heading=_against(event),
        facts=(
            *under(event.policies),
            ("Next", "the gates; when they pass, the people whom the policies ask"),
            *sorted(event.fields.items())[:5],
            *until(event.expires_at),
            *request(event.transition_id),
        ),
    )


def _against(event: RequestOpened) -> str:
    now = _part(event, "baseline").get("version")
    return f"Metrics, against v{now} in {event.to_stage} now" if now else "Metrics"


def _metrics(event: RequestOpened) -> tuple[str, ...]:
    """What the version measures, beside what the one does that it would take the place of."""
    new, old = _numbers(event, "candidate"), _numbers(event, "baseline")
    return tuple(
        f"{name} {new[name]:g}" + (f" (now {old[name]:g}, {new[name] - old[name]:+.3g})" if name in old else "")
        for name in sorted(new)
    )


def _numbers(event: RequestOpened, part: str) -> dict[str, float]:
    metrics = _part(event, part).get("metrics")
    given = metrics if isinstance(metrics, dict) else {}
    return {n: v for n, v in given.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _part(event: RequestOpened, part: str) -> dict[str, Any]:
    found = event.inputs.get(part)
    return found if isinstance(found, dict) else {}


def _gates(event: GatesEvaluated | GateAnswered | GateWaived, about: str) -> Notice:
    match event:
        case GatesEvaluated():
            verdict = "the gates passed" if event.passed else "the gates do not let it pass"
            return Notice(f"{about}: {verdict}", criteria=criteria_lines(event.gates))
        case GateAnswered():
            return Notice(
                f"{about}: the gate {event.gate} says {event.result}",
                who=f"Answered by {event.by}",
                reason=event.message,
                facts=(("Evidence", event.evidence),) if event.evidence else (),
            )
        case GateWaived():
            waiver = event.waiver
            return Notice(
                f"{about}: the gate {waiver.gate} was waived", who=f"Waived by {waiver.by}", reason=waiver.reason
            )


def _people(event: VoteCast | VoteWithdrawn | VoteRefused | RequestCommented, about: str) -> Notice:
    match event:
        case VoteCast():
            vote = event.vote
            of = f", on behalf of {vote.on_behalf_of}" if vote.on_behalf_of else ""
            return Notice(
                f"{about}: {vote.voter} voted to {vote.choice}{of}",
                who=f"Meaning: {vote.meaning}",
                reason=vote.comment,
                facts=(("For", vote.rule), *request(event.request_id)),
            )
        case VoteWithdrawn():
            taker = event.by or event.voter
            of = f" of {event.voter} on behalf of {event.on_behalf_of}" if event.on_behalf_of else ""
            return Notice(f"{about}: {taker} took the vote{of} back", who=by("Withdrawn", taker), reason=event.reason)
        case VoteRefused():
            return Notice(f"{about}: the vote of {event.voter} was refused: {one_line(event.detail)}")
        case RequestCommented():
            return Notice(
                f"{about}: a comment on the request",
                who=f"Written by {event.author}",
                reason=event.text,
                facts=request(event.request_id),
            )


def _escalated(event: RequestEscalated, about: str) -> Notice:
    to = names_of(event.to) or "those who are asked"
    who = {
        "remind": f"A reminder to {to}",
        "notify": f"{to} should know",
        "add_approvers": f"From now on {to} may vote too, for {event.rule}",
    }[event.action]
    waits = f": {one_line(event.ask)}" if event.ask else ""
    return Notice(
        f"{about}: the request still waits{waits}", who=who, facts=(("Step", event.step), *request(event.request_id))
    )


def _emergency(event: GlassBroken | ReviewGiven | ReviewOverdue, about: str) -> Notice:
    match event:
        case GlassBroken():
            glass = event.glass
            people = f"{glass.review_count} of {names_of(glass.review)} before {moment(glass.review_by)}"
            return Notice(
                f"{about}: EMERGENCY, {glass.by} lets it pass without {names_of(glass.skips)}",
                who=_paging(glass.by, glass.page) or f"Glass broken by {glass.by}",
                reason=glass.reason,
                facts=(*until(glass.until, "Good until"), ("To be reviewed by", people), *request(event.request_id)),
            )
        case ReviewGiven():
            found = "justified" if event.justified else "NOT justified"
            after = "; the review is closed" if event.closes else "" if event.justified else "; the model is frozen"
            return Notice(
                f"{about}: the emergency was {found}{after}",
                who=_paging(event.reviewer, event.page) or f"Reviewed by {event.reviewer}",
                reason=event.comment,
                facts=request(event.request_id),
            )
        case ReviewOverdue():
            frozen = "; the model is not promoted until somebody has" if event.frozen else ""
            return Notice(
                f"{about}: nobody has reviewed the emergency in time{frozen}",
                who=_paging("This", event.page),
                facts=request(event.request_id),
            )


def _paging(who: str, page: Sequence[str]) -> str:
    return f"{who} pages {names_of(page)}" if page else ""


def _decided(decision: Decision) -> Notice:
    voters = names_of([_voter(vote) for vote in decision.votes])
    how = " in an emergency" if decision.break_glass else ""
    facts = [(f"{waiver.gate} waived by {waiver.by}", one_line(waiver.reason)) for waiver in decision.waived]
    if decision.break_glass:
        facts.append((f"Emergency, by {decision.break_glass.by}", one_line(decision.break_glass.reason)))
    if decision.rollback_to:
        facts.append(("If revoked, back to", f"v{decision.rollback_to}"))
    return Notice(
        f"{decision.model}: v{decision.version} was {decision.verdict} for {decision.to_stage}{how}",
        who=f"Asked by {decision.requested_by}" + (f", votes of {voters}" if voters else ""),
        reason=decision.reason,
        criteria=criteria_lines(decision.gates),
        facts=(*facts, *request(decision.transition_id)),
    )


def _voter(vote: Vote) -> str:
    return f"{vote.voter} (for {vote.on_behalf_of})" if vote.on_behalf_of else vote.voter


def _lapsed(event: ApprovalLapsed, about: str) -> Notice:
    then = "nothing rests on it any more" if event.on_lapse == "moot" else "ask for it again"
    return Notice(
        f"{about}: the approval of {event.decided_at:%Y-%m-%d} has lapsed; {then}", facts=request(event.request_id)
    )
