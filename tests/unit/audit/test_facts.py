"""What is kept of an event for questions, and whether it went well."""

from typing import Any

import pytest

from audit.domain import NOT_VERIFIED, Flaw, Reading, about
from audit.facts import BULKY, NOT_TOLD, fact_of
from audit.outcome import outcome_of
from contracts import approval, notifier, registry
from contracts.envelope import Envelope
from contracts.payload import Message

from .approvals import APPROVALS


def with_fields(kind: type[Message], **fields: Any) -> Message:
    return kind.model_construct(**fields)


def told() -> dict[str, Message]:
    return {message.TYPE: message for message, _ in APPROVALS}


@pytest.mark.parametrize("kind", approval.EVENTS, ids=lambda kind: kind.TYPE)
def test_every_event_of_approval_is_a_fact_without_what_is_bulky(kind: type[Message]) -> None:
    message = told()[kind.TYPE]
    fact = fact_of(Reading(message=message))
    assert fact is not None
    for name in ("inputs", "documents", "document", "jws"):
        assert name not in fact["data"]
    assert {**message.model_dump(mode="json"), **fact["data"]} == message.model_dump(mode="json")


WHO: dict[str, tuple[Any, Any]] = {
    "hallmark.vote.cast.v1": (lambda m: m.vote.voter, lambda m: m.request_id),
    "hallmark.vote.refused.v1": (lambda m: m.voter, lambda m: m.request_id),
    "hallmark.gate.waived.v1": (lambda m: m.waiver.by, lambda m: m.request_id),
    "hallmark.glass.broken.v1": (lambda m: m.glass.by, lambda m: m.request_id),
    "hallmark.review.given.v1": (lambda m: m.reviewer, lambda m: m.request_id),
    "hallmark.request.decided.v1": (lambda m: m.decision.requested_by, lambda m: m.decision.transition_id),
    "hallmark.revocation.ordered.v1": (lambda m: m.revocation.revoked_by, lambda m: None),
    "hallmark.evidence.attached.v1": (lambda m: m.evidence.posted_by, lambda m: None),
    "hallmark.request.opened.v1": (lambda m: m.requested_by, lambda m: m.transition_id),
    "hallmark.policy.published.v1": (lambda m: m.published_by, lambda m: m.request_id),
}


@pytest.mark.parametrize("kind", WHO)
def test_who_did_it_and_for_which_request(kind: str) -> None:
    message = told()[kind]
    fact = fact_of(Reading(message=message))
    person, request = WHO[kind]
    assert fact is not None
    assert (fact["person"], fact["request"]) == (person(message), request(message))
    assert fact["person"] is not None


def test_what_is_left_out_is_in_the_events() -> None:
    """A field that was renamed would come back in."""
    for kind, left in BULKY.items():
        assert set(left) <= set(kind.model_fields), kind


def test_commands_and_the_notifier_are_no_facts() -> None:
    assert fact_of(Reading(message=registry.RegisterModel(model="m"))) is None
    assert fact_of(Reading()) is None
    for kind in NOT_TOLD:
        assert fact_of(Reading(message=with_fields(kind))) is None


OUTCOMES: list[tuple[Message, str]] = [
    (with_fields(registry.StageRefused), "refused"),
    (with_fields(registry.CommandRejected), "refused"),
    (with_fields(registry.VersionRejected), "refused"),
    (with_fields(approval.VoteRefused), "refused"),
    (with_fields(approval.RequestClosed), "refused"),
    (with_fields(notifier.DeliveryFailed), "failed"),
    (with_fields(notifier.DeliveryDead), "failed"),
    (with_fields(notifier.DeliverySucceeded), "ok"),
    (with_fields(approval.GatesEvaluated, passed=False), "failed"),
    (with_fields(approval.GatesEvaluated, passed=True), "ok"),
    (with_fields(approval.GateAnswered, result="inconclusive"), "failed"),
    (with_fields(approval.GateAnswered, result="pass"), "ok"),
    (with_fields(approval.ReviewGiven, justified=False), "refused"),
    (with_fields(approval.ReviewGiven, justified=True), "ok"),
    (with_fields(registry.ServingReported, state="failed"), "failed"),
    (with_fields(registry.ServingReported, state="serving"), "ok"),
    (with_fields(registry.StageChanged), "ok"),
]


@pytest.mark.parametrize(("message", "outcome"), OUTCOMES, ids=lambda given: getattr(given, "TYPE", given))
def test_outcomes_are_those_that_the_events_tell(message: Message, outcome: str) -> None:
    assert outcome_of(Reading(message=message)) == outcome


def test_a_bad_record_has_failed_and_an_unsigned_change_is_refused() -> None:
    assert outcome_of(Reading(flaw=Flaw("bad-event", ""))) == "failed"
    assert outcome_of(Reading(message=with_fields(registry.StageChanged), flaw=Flaw(NOT_VERIFIED, ""))) == "refused"


@pytest.mark.parametrize(("number", "told"), [("2147483647", 2147483647), ("2147483648", None), ("9" * 40, None)])
def test_a_subject_names_no_version_that_cannot_be(number: str, told: int | None) -> None:
    comment = approval.RequestCommented(request_id="q", author="ana", text="x")
    subject = f"default/fraud/{number}"
    envelope = Envelope.of(comment, source="s", subject=subject, key="default/fraud", sequence=1)
    assert about(Reading(envelope, message=comment)).version == told
