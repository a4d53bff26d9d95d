"""Whether what an entry tells of went well: ok, refused (somebody or a rule said no), or failed. Pure."""

from typing import Literal

from audit.domain import NOT_VERIFIED, Reading
from contracts import approval, audit, notifier, registry
from contracts.payload import Message

Outcome = Literal["ok", "refused", "failed"]
_REFUSED = (
    registry.StageRefused,
    registry.VersionRejected,
    registry.CommandRejected,
    approval.VoteRefused,
    approval.RequestClosed,
)
_FAILED = (
    notifier.DeliveryFailed,
    notifier.DeliveryDead,
    notifier.SubscriptionDisabled,
    notifier.SubscriptionFaltered,
    approval.ReviewOverdue,
    audit.RecordSkipped,
)


def outcome_of(reading: Reading) -> Outcome:
    """A record that is no good event has failed; one whose decision does not verify is refused."""
    message = reading.message
    if reading.flaw is not None:
        return "refused" if reading.flaw.code == NOT_VERIFIED else "failed"
    if isinstance(message, _REFUSED) or _says_no(message):
        return "refused"
    return "failed" if isinstance(message, _FAILED) or _went_wrong(message) else "ok"


def _says_no(message: Message | None) -> bool:
    match message:
        case approval.RequestDecided():
            return message.decision.verdict is not approval.Verdict.APPROVED
        case approval.ReviewGiven():
            return not message.justified
        case audit.SearchRan():
            return message.outcome != "allowed"
    return False


def _went_wrong(message: Message | None) -> bool:
    match message:
        case approval.GatesEvaluated():
            return not message.passed
        case approval.GateAnswered():
            return message.result != "pass"
        case registry.ServingReported():
            return message.state == "failed"
        case registry.VersionVerified():
            return message.inspection.unsafe
    return False
