"""Words for policies, revocations, evidence, and for who votes for whom. Pure."""

from contracts.approval import (
    AccountLinked,
    AccountUnlinked,
    DelegationEnded,
    DelegationGranted,
    EvidenceAttached,
    MembershipChanged,
    PolicyProposed,
    PolicyPublished,
    RevocationOrdered,
)
from contracts.envelope import Envelope
from contracts.payload import Message
from notifier.approval_words import moment, request, under, until
from notifier.notices import Notice, by, names_of


def of_people(event: Message, envelope: Envelope) -> Notice | None:  # noqa: PLR0911  # one per group
    """None for what it has no words for."""
    match event:
        case PolicyProposed() | PolicyPublished():
            return _policy(event)
        case DelegationGranted() | DelegationEnded() | MembershipChanged():
            return _person(event, envelope)
        case AccountLinked():
            return Notice(
                f"{event.subject}: an account of {event.system} acts for them now",
                who=by("Linked", envelope.actor),
                reason="If that was not you: hallmark notify slack unlink, and tell the operator.",
            )
        case AccountUnlinked():
            return Notice(f"{event.subject}: no account of {event.system} acts for them any more")
        case RevocationOrdered():
            order = event.revocation
            return Notice(
                f"{order.model}: v{order.version} is to be revoked, nobody may use it",
                who=f"Ordered by {order.revoked_by}",
                reason=order.reason,
                facts=(("Returns to", f"v{order.fallback}"),) if order.fallback else (),
            )
        case EvidenceAttached():
            return _evidence(event)
    return None


def _policy(event: PolicyProposed | PolicyPublished) -> Notice:
    name = f"Policy {event.policy.name}: revision {event.policy.revision}"
    if isinstance(event, PolicyProposed):
        return Notice(
            f"{name} waits for approval",
            who=f"Asked by {event.requested_by}",
            reason=event.reason,
            facts=(*under(event.policies), *until(event.expires_at), *request(event.request_id)),
        )
    agreed = names_of([approval.name for approval in event.approved_by])
    who = by("Published", event.published_by) + (f", approved by {agreed}" if agreed else "")
    return Notice(f"{name} is in force", who=who)


def _person(event: DelegationGranted | DelegationEnded | MembershipChanged, envelope: Envelope) -> Notice:
    match event:
        case DelegationGranted():
            return Notice(
                f"{event.delegate} may vote for {event.delegator} until {moment(event.ends)}",
                who=by("Granted", envelope.actor),
                reason=event.reason,
                facts=(("From", moment(event.starts)), ("To", moment(event.ends)), ("Delegation", event.delegation_id)),
            )
        case DelegationEnded():
            return Notice(
                f"{event.delegate} votes for {event.delegator} no more",
                who=by("Ended", event.ended_by),
                facts=(("Delegation", event.delegation_id),),
            )
        case MembershipChanged():
            groups = names_of(event.groups) or "no group"
            return Notice(f"{event.subject}: is known to be in {groups} now", who=f"Told by {event.by}")


def _evidence(event: EvidenceAttached) -> Notice:
    evidence = event.evidence
    version = f"{event.model}: v{event.version}"
    headline = f"{version} has new evidence, {evidence.type}: {evidence.title}"
    if evidence.result:
        headline = f"{version}: the check {evidence.type} says {evidence.result}: {evidence.title}"
    facts = (("Link", evidence.url), ("File", evidence.digest))
    return Notice(
        headline,
        who=f"Posted by {evidence.posted_by}",
        reason=evidence.detail,
        facts=tuple((label, value) for label, value in facts if value),
    )
