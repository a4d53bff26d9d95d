"""A service that signs what it must not: times, names and words that are not those of the request."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import AT, HOUR, LEADS, OPENED, REVIEW, asks, document, in_force, inputs, person
from tests.unit.policy.records import (
    ACCURATE,
    PLAIN,
    SHORT,
    WAITS,
    Act,
    added,
    changed,
    failed,
    gated,
    good,
    judged,
    keys,
    record,
    resigned,
    text,
    votes,
    waives,
)

from contracts.approval import Verdict
from policy.case import Case
from policy.judge import judge
from policy.matching import InForce

REJECTED = {"verdict": Verdict.REJECTED}


def since(opened_at: Any, bound_at: Any = None) -> Act:
    def act(case: Case) -> Case:
        return replace(case, opened_at=opened_at, bound_at=bound_at or opened_at)

    return act


def escalates(after: str) -> InForce:
    step = {"after": after, "do": "add_approvers", "rule": "review", "to": ["group:leads"]}
    return in_force(document("p", **asks(REVIEW), escalation=[step]))


def test_an_approval_forty_hours_after_it_had_expired() -> None:
    policies = in_force(document("p", request={"expires_after": "30m"}, **asks(REVIEW)))
    found = judge(record(policies, votes(policies), at=AT + 40 * HOUR), keys())
    assert failed(found) == ["expiry"]
    when = (OPENED + HOUR / 2).isoformat()
    assert text(found, "expiry") == f"failed: it had to be decided, and to be used, before {when}"


def test_a_decision_that_lives_longer_than_the_policies_let_it() -> None:
    assert judged(record(SHORT, votes(SHORT, at=OPENED), at=AT - HOUR, expires_at=AT + HOUR)) == ["expiry"]
    assert judged(record(SHORT, votes(SHORT, at=OPENED), at=AT - HOUR, expires_at=AT)) == []


def test_what_was_not_open_for_the_minimum_wait() -> None:
    found = judge(record(WAITS, since(AT - HOUR / 2), votes(WAITS), changes={"verdict": Verdict.APPROVED}), keys())
    assert failed(found) == ["minimum wait", "verdict"]
    assert judged(record(WAITS, since(AT - HOUR), votes(WAITS))) == []


@pytest.mark.parametrize(
    "times",
    [(AT + HOUR, AT + HOUR), (AT - HOUR, AT - 2 * HOUR), (AT - HOUR, AT + HOUR)],
)
def test_times_out_of_order(times: tuple[Any, Any]) -> None:
    assert "times" in judged(record(PLAIN, votes(), changes={"opened_at": times[0], "bound_at": times[1]}))


def test_a_vote_from_before_the_request_rested_on_what_it_rests_on() -> None:
    assert judged(record(PLAIN, since(OPENED, AT - HOUR), votes(PLAIN, at=AT - HOUR))) == []
    assert judged(record(PLAIN, since(OPENED, AT - HOUR), votes(PLAIN, at=AT - 2 * HOUR))) == ["vote of ben"]


def test_a_waiver_from_before_the_request() -> None:
    policies, given = gated({**ACCURATE, **LEADS}), inputs(candidate={"metrics": {"accuracy": 0.5}})
    made = record(policies, waives("p/accuracy", at=OPENED - HOUR), given=given)
    assert judged(made) == ["waiver of p/accuracy by lea"]


def test_approvers_that_were_added_before_their_time() -> None:
    lea = person("lea", "leads")
    assert judged(record(escalates("1h"), added, votes(escalates("1h"), lea))) == []
    early = record(escalates("1h"), added, votes(escalates("1h"), lea, at=OPENED))
    assert judged(early) == ["vote of lea"]
    never = record(escalates("3h"), added, votes(escalates("3h"), lea))
    assert judged(never) == ["approvers added to p/review", "vote of lea"]


def test_a_request_that_is_said_to_have_expired_early() -> None:
    expired = {**REJECTED, "reason": f"not decided before {(AT - HOUR).isoformat()}"}
    assert judged(record(PLAIN, expires_at=AT - HOUR, changes=expired)) == ["verdict"]
    assert judged(record(SHORT, expires_at=AT + HOUR, at=AT + HOUR)) == ["verdict"]


def test_another_model() -> None:
    found = judge(record(PLAIN, votes(), changes={"model": "other"}), keys())
    assert failed(found) == ["transition"]
    assert "model 'fraud' instead of 'other'" in text(found, "transition")


@pytest.mark.parametrize("reason", ["", "approved by the board", "approved by ben, bo"])
def test_another_reason(reason: str) -> None:
    assert judged(record(PLAIN, votes(), changes={"reason": reason})) == ["reason"]
    assert judged(record(SHORT, expires_at=AT, changes={"reason": reason})) == ["reason"]


def test_a_gate_with_other_words() -> None:
    made = good()
    said = [{**gate, "message": "candidate.metrics.accuracy = 0.99"} for gate in made["decision"]["gates"]]
    assert judged(resigned(changed(made, "gates", said))) == ["gate p/accuracy", "gate p/fresh"]


def test_a_waived_gate_with_other_words() -> None:
    policies, given = gated({**ACCURATE, **LEADS}), inputs(candidate={"metrics": {"accuracy": 0.5}})
    made = record(policies, waives("p/accuracy"), given=given)
    said = [{**gate, "message": "fail; waived by lea: the board said so"} for gate in made["decision"]["gates"]]
    assert judged(resigned(changed(made, "gates", said))) == ["gate p/accuracy"]


def test_an_error_in_the_words_of_another_engine() -> None:
    made = record(gated({**ACCURATE, "level": "warn"}), given=inputs(candidate={"metrics": {}}))
    said = [{**gate, "message": "too low; there is no accuracy"} for gate in made["decision"]["gates"]]
    assert judged(resigned(changed(made, "gates", said))) == []


def test_a_record_that_holds_more_than_records_do() -> None:
    found = judge({**good(), "note": "approved by the board too"}, keys())
    assert failed(found) == ["record"]
    assert text(found, "record") == "failed: it holds what no record does: note"


def test_what_a_policy_names_in_its_own_time_is_evaluated_at_the_decision() -> None:
    assert judged(record(PLAIN, votes(), at=AT + timedelta(hours=20))) == []
