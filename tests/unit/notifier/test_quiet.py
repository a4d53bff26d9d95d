"""What silences, rules and the end of a request keep from being sent."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.approval import RequestClosed, RequestCommented, RequestEscalated, ReviewGiven, ReviewOverdue
from contracts.envelope import Envelope
from contracts.notifier import Channel, SilenceCreated, SilenceExpired
from contracts.payload import Message
from notifier.domain import Subscription
from notifier.matching import Seen
from notifier.quiet import Hushed, Inhibition, Silence, evolve_silence, label, quiet
from notifier.reminders import cancel_key, cancels

from .test_matching import PROMOTED, seen

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SILENCE = Silence("s", "default", ("*",), "*", (), None, None, AT, AT + HOUR, "ana", "why", AT)
RULE = Inhibition("i", "default", ("hallmark.glass.*",), None, (), 60, ("hallmark.stage.*",), ("model",), "a", "w", AT)


def hears(owner: str = "ana", workspace: str = "default") -> Subscription:
    return Subscription(f"{owner}@{workspace}", owner, Channel.EMAIL, "a", ("*",), workspace, "*", AT)


@pytest.mark.parametrize(
    ("changed", "silent"),
    [
        ({}, True),
        ({"types": ("hallmark.vote.*",)}, False),
        ({"types": ("hallmark.stage.*",), "model": "ch*"}, True),
        ({"model": "fraud"}, False),
        ({"stages": ("production",)}, True),
        ({"stages": ("Archived",)}, False),
        ({"cel": "data.metrics.auc > 0.5"}, True),
        ({"cel": "data.metrics.auc > 0.95"}, False),
        ({"owner": "ana"}, True),
        ({"owner": "ben"}, False),
        ({"workspace": "other"}, False),
        ({"starts_at": AT + timedelta(seconds=1)}, False),
        ({"ends_at": AT}, False),
    ],
)
def test_a_silence_keeps_what_it_selects_while_it_is_active(changed: dict[str, Any], silent: bool) -> None:
    found = quiet([hears()], seen(PROMOTED), [replace(SILENCE, **changed)], [], AT)
    assert found.hushed == ({"ana@default": Hushed("silenced", "s")} if silent else {})


def test_a_silence_whose_expression_has_no_answer_keeps_nothing_back() -> None:
    broken = replace(SILENCE, cel="data.nothing == 1")
    found = quiet([hears()], seen(PROMOTED), [broken], [], AT)
    assert not found.hushed
    [(silence_id, why)] = found.failed
    assert silence_id == "s"
    assert "has(data.NAME)" in why


def test_a_silence_is_told_before_an_alarm_and_the_oldest_first() -> None:
    second = replace(SILENCE, silence_id="s2")
    assert quiet([hears()], seen(PROMOTED), [SILENCE, second], [RULE], AT).hushed["ana@default"].by == "s"
    hushed = quiet([hears(), hears(workspace="other")], seen(PROMOTED), [], [RULE], AT).hushed
    assert hushed == {"ana@default": Hushed("inhibited", "i")}
    assert not quiet([hears()], seen(PROMOTED, "hallmark.vote.cast.v1"), [], [RULE], AT).hushed


def test_an_end_before_its_time_is_the_end() -> None:
    made = SilenceCreated(
        silence_id="s",
        workspace="default",
        types=("*",),
        model="*",
        starts_at=AT,
        ends_at=AT + HOUR,
        author="ana",
        comment="why",
    )

    def told(message: Message, at: datetime) -> Envelope:
        return Envelope.of(message, source="s", subject="silence:s", key="silence:s", sequence=1, time=at)

    state = evolve_silence(None, told(made, AT))
    assert state == SILENCE
    ended = evolve_silence(state, told(SilenceExpired(silence_id="s", expired_by="ben"), AT + HOUR / 2))
    assert ended is not None
    assert (ended.ends_at, ended.expired_by) == (AT + HOUR / 2, "ben")
    assert [ended.state(AT + HOUR * n / 4) for n in (-1, 0, 1, 2, 3)] == [
        "pending",
        "active",
        "active",
        "expired",
        "expired",
    ]


def test_labels_are_those_of_the_event() -> None:
    event = seen({"transition_id": "t1", **PROMOTED})
    found = {name: label(event, name) for name in ("workspace", "model", "version", "type", "request")}
    kind = "hallmark.stage.changed.v1"
    assert found == {"workspace": "default", "model": "churn", "version": "2", "type": kind, "request": "t1"}
    assert label(seen({}, subject="policy:p"), "model") == label(seen({}), "request") == ""
    assert RULE.labels(event) == "model=churn"


ESCALATED = RequestEscalated(request_id="r", step="s", action="remind", to=("group:risk",))
REVIEWED: dict[str, Any] = {
    "request_id": "r",
    "reviewer": "ben",
    "groups": ("risk",),
    "justified": True,
    "comment": "fine",
    "at": AT,
    "auth_method": "pwd",
}


def told(message: Message) -> Seen:
    return Seen(Envelope.of(message, source="s", subject="default/churn/1", key="k", sequence=1, time=AT))


@pytest.mark.parametrize(
    ("reminder", "end", "cancelled"),
    [
        (ESCALATED, RequestClosed(request_id="r", code="expired", detail="x"), True),
        (ESCALATED, RequestClosed(request_id="other", code="expired", detail="x"), False),
        (ESCALATED, ReviewGiven(**REVIEWED, closes=True), False),
        (ReviewOverdue(request_id="r", page=(), frozen=True), ReviewGiven(**REVIEWED, closes=True), True),
        (ReviewOverdue(request_id="r", page=(), frozen=True), ReviewGiven(**REVIEWED, closes=False), False),
        (
            ReviewOverdue(request_id="r", page=(), frozen=True),
            RequestClosed(request_id="r", code="expired", detail="x"),
            False,
        ),
        (ESCALATED, RequestCommented(request_id="r", author="a", text="x"), False),
    ],
)
def test_what_ends_a_request_cancels_its_reminders(reminder: Message, end: Message, cancelled: bool) -> None:
    key = cancel_key(told(reminder).envelope)
    assert key is not None
    assert (cancels(told(end).envelope) == key) is cancelled


def test_only_reminders_are_cancelled() -> None:
    assert cancel_key(told(RequestCommented(request_id="r", author="a", text="x")).envelope) is None
    assert cancel_key(told(RequestClosed(request_id="r", code="c", detail="x")).envelope) is None
