"""What filters select: stages and expressions. Globs and audiences are in test_domain and test_audience."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.envelope import Envelope
from contracts.notifier import Channel
from notifier.domain import Subscription, matching
from notifier.matching import MOST_STEPS, Seen, compiled
from policy.expressions import ExpressionError

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PLAIN = Subscription(
    subscription_id="s1",
    owner="ana",
    channel=Channel.WEBHOOK,
    address="https://example.org",
    types=("*",),
    workspace="default",
    model="*",
    created_at=AT,
)
PROMOTED = {"from_stage": "Staging", "to_stage": "Production", "requested_by": "ana", "metrics": {"auc": 0.9, "n": 3}}


def seen(data: Any, kind: str = "hallmark.stage.changed.v1", subject: str = "default/churn/2") -> Seen:
    value = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Seen(
        Envelope(
            id="e1",
            source="hallmark/registry",
            type=kind,
            subject=subject,
            time=AT,
            dataschema=f"{kind}.json",
            key="default/churn",
            sequence=7,
            correlationid="c1",
            actor="ana",
            value=value,
        )
    )


@pytest.mark.parametrize(
    ("stages", "data", "wanted"),
    [
        (("Production",), PROMOTED, True),
        (("Staging",), PROMOTED, True),
        (("production",), PROMOTED, True),
        (("Archived",), PROMOTED, False),
        (("Archived", "Staging"), PROMOTED, True),
        (("@champion",), {"from_stage": "Staging", "to_stage": "@champion"}, True),
        (("Production",), {"decision": PROMOTED}, True),
        (("Production",), {"decision": "eyJ...", **PROMOTED}, True),
        (("Archived",), {"decision": PROMOTED}, False),
        (("Production",), {"stage": "Production"}, False),  # names a stage, but nothing enters or leaves it
        (("Production",), {"to_stage": None}, False),
        (("Production",), {"to_stage": ["Production"]}, False),
    ],
)
def test_stages_are_those_that_a_version_enters_or_leaves(
    stages: tuple[str, ...], data: dict[str, Any], wanted: bool
) -> None:
    assert replace(PLAIN, stages=stages).wants(seen(data)) is wanted


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('data.to_stage == "Production"', True),
        ('data.to_stage == "Archived"', False),
        ("data.metrics.auc > 0.85 && data.metrics.n >= 3", True),
        ("data.metrics.n > 2.5", True),
        ('has(data.nothing) && data.nothing == "x"', False),
        ('event.model.startsWith("ch") && event.version == 2 && event.workspace == "default"', True),
        ('event.type == "hallmark.stage.changed.v1" && event.actor == "ana" && event.sequence == 7', True),
        ('event.time < timestamp("2026-11-21T12:00:01Z")', True),
        ("data.metrics.exists(name, name == 'auc')", True),
    ],
)
def test_an_expression_looks_at_the_whole_event(text: str, holds: bool) -> None:
    assert replace(PLAIN, cel=text).wants(seen(PROMOTED)) is holds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("event.typo == 'x'", "undeclared reference to 'event.typo'"),
        ("data.to_stage ==", "mismatched input"),
        ("data.to_stage", "must give a boolean"),
        ("event.version + 1", "must give a boolean"),
        ("event.model == 3", "no matching overload"),
        ("data.all(a, data.all(b, data.all(c, data.all(d, a == b))))", "steps"),
        ("event.model.matches(event.actor)", "pattern as a text"),
        ("true || " * 300 + "true", "longer than"),
    ],
)
def test_a_wrong_expression_is_told_when_it_is_saved(text: str, says: str) -> None:
    with pytest.raises(ExpressionError, match=says):
        compiled(text)


@pytest.mark.parametrize(
    ("text", "data", "says"),
    [
        ("data.to_stage == 'x'", {}, r"has\(data.NAME\)"),
        ("!data.flag", {"flag": "yes"}, "overload"),
        ("data.a.b == 1", {"a": 3}, "SELECT"),
        ("data.exists(k, k == 'x')", {f"k{n}": "v" for n in range(60_000)}, "budget"),
    ],
)
def test_an_expression_without_an_answer_matches_nothing_and_stops_nobody(
    text: str, data: dict[str, Any], says: str
) -> None:
    broken, good = replace(PLAIN, subscription_id="broken", cel=text), replace(PLAIN, subscription_id="good")
    found = matching([broken, good], seen(data))
    assert [one.subscription_id for one in found.wanted] == ["good"]
    [(failed, why)] = found.failed
    assert failed.subscription_id == "broken"
    with pytest.raises(ExpressionError, match=says):
        raise ExpressionError(why)


def test_an_expression_is_not_asked_about_what_the_other_filters_leave_out() -> None:
    broken = replace(PLAIN, cel="data.nothing == 1")
    for changed in ({"types": ("hallmark.vote.*",)}, {"model": "fraud"}, {"workspace": "other"}, {"stages": ("X",)}):
        assert matching([replace(broken, **changed)], seen(PROMOTED)).failed == []


@pytest.mark.parametrize("body", [b"[1]", b"x", b"[" * 100_000, b'{"big": 1' + b"0" * 400 + b"}"])
def test_odd_bodies_are_no_obstacle(body: bytes) -> None:
    assert replace(PLAIN, cel="event.version == 2").wants(seen(body))
    assert not replace(PLAIN, stages=("Production",)).wants(seen(body))


def test_the_steps_of_a_filter_are_fewer_than_those_of_a_gate() -> None:
    assert MOST_STEPS <= 1_000_000


@pytest.mark.parametrize(
    ("data", "request_id"),
    [
        ({"transition_id": "t1"}, "t1"),
        ({"request_id": "r1"}, "r1"),
        ({"decision": {"transition_id": "t2"}}, "t2"),
        ({"decision": "jws", "transition_id": "t3"}, "t3"),
        ({"model": "churn"}, None),
    ],
)
def test_the_request_an_event_is_about(data: dict[str, Any], request_id: str | None) -> None:
    assert seen(data).request == request_id
