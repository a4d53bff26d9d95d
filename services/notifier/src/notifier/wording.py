"""Words for every event: what moved, and why. Pure."""

from contracts.audit import SearchAlerted
from contracts.catalog import MESSAGES
from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind
from contracts.notifier import GroupComposed
from contracts.payload import Message
from contracts.registry import (
    CommandRejected,
    StageChanged,
    StageRefused,
    StageRequested,
)
from notifier.approval_words import about_of, moment, of_approval, until
from notifier.domain import delivery_id
from notifier.notices import Notice, criteria_lines, goal, names_of, one_line
from notifier.own_words import of_own
from notifier.people_words import of_people
from notifier.registry_words import of_registry


def notice(envelope: Envelope) -> Notice:
    """Words for an event. A type this version does not know gets its plain name."""
    kind = MESSAGES.get(envelope.type)
    if kind is None:
        return Notice(f"{envelope.subject}: {envelope.type}", who=f"By {envelope.actor}" if envelope.actor else "")
    return words(envelope.payload(kind), envelope)


def words(event: Message, envelope: Envelope) -> Notice:  # noqa: PLR0911  # one an event
    """Words for a payload."""
    match event:
        case StageChanged():
            return _changed(event)
        case StageRequested():
            return Notice(
                f"{event.model}: v{event.version} asks to {goal(event)}",
                who=f"Asked by {event.requested_by}",
                reason=event.reason,
                facts=until(event.expires_at),
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
        case GroupComposed():
            return _group(event, envelope)
        case SearchAlerted():
            return Notice(
                f"Saved search {event.name}: {event.matches} new entries match, more than {event.above}",
                who=f"Saved by {event.owner}",
                facts=(
                    ("Looked at", f"entries {event.first} to {event.until - 1} of the audit log"),
                    ("First matches", ", ".join(map(str, event.indexes))),
                ),
            )
    told = (
        of_registry(event, envelope)
        or of_approval(event, envelope)
        or of_people(event, envelope)
        or of_own(event, envelope)
    )
    return told or Notice(f"{about_of(envelope)}: {envelope.type}")


def _group(event: GroupComposed, envelope: Envelope) -> Notice:
    of = f" of {event.labels}" if event.labels else ""
    still = " (still open, nothing new)" if event.repeats else ""
    message = delivery_id(event.subscription_id, envelope.id)
    kinds = [f"{name.removeprefix('hallmark.').removesuffix('.v1')}: {n}" for name, n in event.kinds.items()]
    more = event.count - len(event.newest)
    lines = tuple(f"{moment(one.at)}: {one.headline}" for one in event.newest)
    return Notice(
        f"{event.count} event{'s' if event.count > 1 else ''}{of}{still}",
        criteria=(*lines, f"and {more} more") if more > 0 else lines,
        heading="Newest",
        facts=(
            ("Kinds", ", ".join(kinds)),
            ("From", moment(event.first_at)),
            ("Until", moment(event.last_at)),
            ("All of them", f"hallmark notify deliveries --in {message}"),
        ),
    )


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


def _refused(event: StageRefused) -> str:
    return f"not made {event.to_stage}" if event.to_stage.startswith("@") else f"refused {event.to_stage}"
