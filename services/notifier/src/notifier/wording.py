"""What an event says to a person: one headline, and the facts under it. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    Criterion,
    ModelRegistered,
    StageChanged,
    StageRefused,
    StageRequested,
    VersionRegistered,
)

_RESULTS = {"pass": "passed", "fail": "failed", "error": "could not be evaluated"}
# How the approval service shows the values that a gate saw.
_VALUE = re.compile(r"((?:candidate|baseline)\.metrics\.[^\s=,;]+) = ([^\s,;]+)")


@dataclass(frozen=True)
class Notice:
    """`headline` names the model first; `who` is one sentence; `criteria` is one line per gate; `facts` are pairs."""

    headline: str
    who: str = ""
    reason: str = ""
    criteria: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def summary(self) -> str:
        """All of it in one line, for subjects of chat messages."""
        head = self.headline if self.headline.endswith(("!", "?")) else f"{self.headline}."
        why = f": '{one_line(self.reason)}'" if self.reason else ""
        tail = f" {'; '.join(self.criteria)}." if self.criteria else ""
        return f"{head} {self.who}{why}.{tail}" if self.who else f"{head}{tail}"


def one_line(text: str) -> str:
    return " ".join(text.split())


def notice(envelope: Envelope) -> Notice:
    """Words for an event. A type this version does not know gets its plain name."""
    kind = MESSAGES.get(envelope.type)
    if kind is None:
        return Notice(f"{envelope.subject}: {envelope.type}", who=f"By {envelope.actor}" if envelope.actor else "")
    return words(envelope.payload(kind), envelope)


def words(event: Message, envelope: Envelope) -> Notice:  # noqa: PLR0911  # one per type
    """Words for a payload."""
    match event:
        case StageChanged():
            return _changed(event)
        case StageRequested():
            return Notice(
                f"{event.model}: v{event.version} asks to enter {event.to_stage} (now {event.from_stage})",
                who=f"Asked by {event.requested_by}",
                reason=event.reason,
                facts=(("Open until", f"{event.expires_at:%Y-%m-%d %H:%M} UTC"),),
            )
        case StageRefused():
            return Notice(
                f"{event.model}: v{event.version} was refused {event.to_stage}: {one_line(event.detail)}",
                who=f"Asked by {event.requested_by}",
                reason=event.reason,
                criteria=_criteria(event.criteria),
                facts=(("Refused because", event.code),),
            )
        case ModelRegistered():
            return Notice(f"{event.model}: new model", who=_by("Registered", envelope.actor), reason=event.description)
        case VersionRegistered():
            metrics = tuple((name, f"{value:g}") for name, value in sorted(event.content.metrics.items())[:20])
            return Notice(
                f"{event.model}: v{event.version} was registered",
                who=_by("Registered", event.registered_by),
                reason=event.content.notes,
                facts=metrics,
            )
        case CommandRejected():
            return Notice(f"A command was rejected ({event.code}): {one_line(event.detail)}")
        case PolicyPublished():
            return Notice(
                f"Policy {event.policy.name}: revision {event.policy.revision} is in force",
                who=_by("Published", event.published_by),
            )
    return _approval(event, envelope)


def _approval(event: Message, envelope: Envelope) -> Notice:  # noqa: PLR0911  # one per type
    about = _about(envelope)
    match event:
        case RequestOpened():
            return Notice(
                f"{event.model}: v{event.version} waits for approval to enter {event.to_stage}",
                who=f"Asked by {event.requested_by}",
                reason=event.reason,
                facts=(("Open until", f"{event.expires_at:%Y-%m-%d %H:%M} UTC"), ("Request", event.transition_id)),
            )
        case GatesEvaluated():
            return Notice(f"{about}: gates {'passed' if event.passed else 'failed'}", criteria=_criteria(event.gates))
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
                who=f"Asked by {decision.requested_by}" + (f", votes of {_names(voters)}" if voters else ""),
                reason=decision.reason,
                criteria=_criteria(decision.gates),
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
    approved = _names([approval.name for approval in event.approved_by])
    facts = [("Model", f"{event.workspace}/{event.model}"), ("Version", str(event.version)), ("From", was)]
    facts += [("To", stage), ("Asked by", event.requested_by), ("Approved by", approved or "nobody had to")]
    facts += [("Policy", event.policy)] if event.policy else []
    return Notice(
        headline,
        who=f"Asked by {event.requested_by}" + (f", approved by {approved}" if approved else ""),
        reason=event.reason,
        criteria=_criteria(event.criteria),
        facts=tuple((label, str(value)) for label, value in facts),
    )


def _criteria(criteria: Sequence[Criterion]) -> tuple[str, ...]:
    return tuple(criterion_line(criterion) for criterion in criteria)


def criterion_line(criterion: Criterion) -> str:
    """`accuracy 0.971 >= 0.9 passed`: the expression with the values it saw, as far as the message tells them."""
    message, text = one_line(criterion.message), one_line(criterion.expression)
    values = dict(_VALUE.findall(message))
    note = one_line(_VALUE.sub("", message)).strip(" ,;")
    for name in sorted(values, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", f"{_short(name)} {values[name]}", text)
    if not values and note:
        text, note = note, ""
    named = text if text.startswith(criterion.gate) else f"{criterion.gate}: {text}"
    result = _RESULTS.get(criterion.result, criterion.result)
    return f"{named} {result}" + (f" ({note})" if note else "")


def _short(name: str) -> str:
    return name.replace("candidate.metrics.", "").replace("baseline.metrics.", "baseline ")


def _names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _by(verb: str, actor: Any) -> str:
    return f"{verb} by {actor}" if actor else ""


def _about(envelope: Envelope) -> str:
    try:
        _, model, version = parse_subject(envelope.subject)
    except ValueError:
        return envelope.subject
    return f"{model}: v{version}" if version else model
