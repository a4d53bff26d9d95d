"""Words for every event: what moved, and why. Pure."""

from contracts.approval import (
    GatesEvaluated,
    PolicyPublished,
    RequestClosed,
    RequestDecided,
    RequestOpened,
    VoteCast,
    VoteRefused,
)
from contracts.catalog import MESSAGES
from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind, parse_subject
from contracts.payload import Message
from contracts.registry import (
    CommandRejected,
    StageChanged,
    StageRefused,
    StageRequested,
    Transition,
)
from notifier.notices import Notice, by, criteria_lines, names_of, one_line
from notifier.registry_words import of_registry


def notice(envelope: Envelope) -> Notice:
    """Words for an event. A type this version does not know gets its plain name."""
    kind = MESSAGES.get(envelope.type)
    if kind is None:
        return Notice(f"{envelope.subject}: {envelope.type}", who=f"By {envelope.actor}" if envelope.actor else "")
    return words(envelope.payload(kind), envelope)


def words(event: Message, envelope: Envelope) -> Notice:
    """Words for a payload."""
    match event:
        case StageChanged():
            return _changed(event)
        case StageRequested():
            return Notice(
                f"{event.model}: v{event.version} asks to {_goal(event)}",
                who=f"Asked by {event.requested_by}",
                reason=event.reason,
                facts=(("Open until", f"{event.expires_at:%Y-%m-%d %H:%M} UTC"),),
            )
        case StageRefused():
            return Notice(
                f"{event.model}: v{event.version} was {_refused(event)}: {one_line(event.detail)}",
                who=f"Asked by {event.requested_by}",
                reason=event.reason,
                criteria=criteria_lines(event.criteria),
                facts=(("Refused because", event.code),),
            )
        case CommandRejected():
            return Notice(f"A command was rejected ({event.code}): {one_line(event.detail)}")
        case PolicyPublished():
            return Notice(
                f"Policy {event.policy.name}: revision {event.policy.revision} is in force",
                who=by("Published", event.published_by),
            )
    return of_registry(event, envelope) or _approval(event, envelope)


def _approval(event: Message, envelope: Envelope) -> Notice:  # noqa: PLR0911  # one per type
    about = _about(envelope)
    match event:
        case RequestOpened():
            return Notice(
                f"{event.model}: v{event.version} waits for approval to {_goal(event, now=False)}",
                who=f"Asked by {event.requested_by}",
                reason=event.reason,
                facts=(("Open until", f"{event.expires_at:%Y-%m-%d %H:%M} UTC"), ("Request", event.transition_id)),
            )
        case GatesEvaluated():
            return Notice(
                f"{about}: gates {'passed' if event.passed else 'failed'}", criteria=criteria_lines(event.gates)
            )
        case VoteCast():
            return Notice(
                f"{about}: {event.vote.voter} voted to {event.vote.choice}",
                who=f"Meaning: {event.vote.meaning}",
                reason=event.vote.comment,
            )
        case VoteRefused():
            return Notice(f"{about}: the vote of {event.voter} was refused: {one_line(event.detail)}")
        case RequestDecided():
            decision = event.decision
            voters = [vote.voter for vote in decision.votes]
            return Notice(
                f"{decision.model}: v{decision.version} was {decision.verdict} for {decision.to_stage}",
                who=f"Asked by {decision.requested_by}" + (f", votes of {names_of(voters)}" if voters else ""),
                reason=decision.reason,
                criteria=criteria_lines(decision.gates),
            )
        case RequestClosed():
            return Notice(f"{about}: the request for approval was closed ({event.code}): {one_line(event.detail)}")
    return Notice(f"{about}: {envelope.type}")


def _changed(event: StageChanged) -> Notice:
    version, stage, was = f"v{event.version}", event.to_stage, event.from_stage
    if event.kind is TransitionKind.SUPERSEDED:
        taken = f"; v{event.superseded_by} took its place" if event.superseded_by else ""
        headline = f"{event.model}: {version} is now {stage} (was {was}){taken}"
    elif event.kind is TransitionKind.ROLLBACK:
        out = f"; v{event.replaces} archived" if event.replaces else ""
        headline = f"{event.model}: rolled back, {version} is in {stage} again (was {was}){out}"
    else:
        out = f"; v{event.replaces} archived" if event.replaces else ""
        where = stage if stage == "Archived" else f"in {stage}"
        headline = f"{event.model}: {version} is now {where} (was {was}){out}"
    approved = names_of([approval.name for approval in event.approved_by])
    facts = [("Model", f"{event.workspace}/{event.model}"), ("Version", str(event.version)), ("From", was)]
    facts += [("To", stage), ("Asked by", event.requested_by), ("Approved by", approved or "nobody had to")]
    facts += [("Policy", event.policy)] if event.policy else []
    return Notice(
        headline,
        who=f"Asked by {event.requested_by}" + (f", approved by {approved}" if approved else ""),
        reason=event.reason,
        criteria=criteria_lines(event.criteria),
        facts=tuple((label, str(value)) for label, value in facts),
    )


def _goal(event: Transition, *, now: bool = True) -> str:
    if event.to_stage.startswith("@"):
        return f"become {event.to_stage}"
    return f"enter {event.to_stage}" + (f" (now {event.from_stage})" if now else "")


def _refused(event: StageRefused) -> str:
    return f"not made {event.to_stage}" if event.to_stage.startswith("@") else f"refused {event.to_stage}"


def _about(envelope: Envelope) -> str:
    try:
        _, model, version = parse_subject(envelope.subject)
    except ValueError:
        return envelope.subject
    return f"{model}: v{version}" if version else model
