"""What gates say of a case: waivers, and checks outside."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    BAD,
    BROKEN,
    COMPARES,
    DIGEST,
    GOOD,
    HOOK,
    HOUR,
    LEADS,
    OPENED,
    SCAN,
    answer,
    case_of,
    document,
    in_force,
    inputs,
    needs_at,
    policy,
    stands,
    told,
    waiver,
)

from contracts.approval import Verdict
from policy.case import Member
from policy.outlook import gates_of, may_waive

# -- waivers ------------------------------------------------------------------------------------------------------


def gate(given: dict[str, Any], *waivers: dict[str, Any], members: Any = None, **changes: Any) -> str:
    """What one gate says with these waivers of `p/<its id>`."""
    case = case_of(inputs(**changes))
    made = tuple(waiver(case, **{"gate": f"p/{given['id']}", **one}) for one in waivers)
    needs = needs_at(in_force(policy(given)), dict(case.inputs))
    found = gates_of(replace(case, waivers=made), needs, AT, members or (lambda _: None))
    return found[0].result


@pytest.mark.parametrize(
    ("given", "changes", "expected"),
    [
        ({**BAD, **LEADS}, {}, "waived"),
        ({**BAD, **LEADS}, {"groups": ("others",)}, "fail"),
        ({**BAD, **LEADS}, {"gate": "p/other"}, "fail"),
        ({**BAD, **LEADS}, {"by": "ana"}, "fail"),
        ({**BAD, **LEADS}, {"by": "trainer"}, "fail"),
        (BAD, {}, "fail"),
        ({**BAD, "never_skip": True}, {}, "fail"),
        ({**BAD, **LEADS, "level": "warn"}, {}, "fail"),  # it blocks nobody
        ({**GOOD, **LEADS}, {}, "pass"),
        ({**HOOK, **LEADS}, {}, "pending"),  # wait for what it says
        ({**BROKEN, **LEADS}, {}, "waived"),
        ({**COMPARES, **LEADS}, {}, "waived"),
        ({**COMPARES, "asks": ["group:leads"]}, {}, "waived"),
        ({**COMPARES, "asks": ["group:risk"]}, {}, "inconclusive"),
        ({**COMPARES, "asks": ["group:risk"], **LEADS}, {}, "waived"),
    ],
)
def test_waivers(given: dict[str, Any], changes: dict[str, Any], expected: str) -> None:
    assert gate(given, changes) == expected


def test_a_waiver_says_who_and_why() -> None:
    case = case_of()
    case = replace(case, waivers=(waiver(case, "p/bad"),))
    (said,) = stands(case, policy({**BAD, **LEADS})).gates
    assert said.message == "fail; waived by lea: known and harmless; too low"


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (Member(frozenset({"leads"})), "waived"),
        (Member(frozenset()), "fail"),
        (Member(frozenset({"leads"}), person=False), "fail"),
        (None, "waived"),
    ],
)
def test_who_waived_is_checked_again(member: Member | None, expected: str) -> None:
    assert gate({**BAD, **LEADS}, {}, members=lambda _: member) == expected


def test_an_unsafe_artifact_needs_a_waiver_of_its_own() -> None:
    given = inputs(candidate={"unsafe": True})
    text = policy(rules=(), unsafe_artifact={"waivable_by": ["group:leads"]})
    case = case_of(given)
    assert told(stands(case, text))[0] == "gates"
    assert told(stands(case_of(given), policy(rules=())))[0] == "rejected"
    found = stands(replace(case, waivers=(waiver(case, "registry/unsafe-artifact"),)), text)
    assert found.verdict is Verdict.APPROVED
    assert found.waivers == ("unsafe-artifact",)
    assert stands(case_of(), text).waivers == ()


def test_one_person_of_every_group_waives_an_unsafe_artifact() -> None:
    a, b = (document(name, unsafe_artifact={"waivable_by": [f"group:{name}"]}) for name in ("a", "b"))
    case = case_of(inputs(candidate={"unsafe": True}))
    apart = (
        waiver(case, "registry/unsafe-artifact", "x", "a"),
        waiver(case, "registry/unsafe-artifact", "y", "b"),
    )
    assert stands(replace(case, waivers=apart), a, b).phase == "gates"
    both = (waiver(case, "registry/unsafe-artifact", "z", "a", "b"),)
    assert stands(replace(case, waivers=both), a, b).verdict is Verdict.APPROVED


def test_may_waive() -> None:
    (found,) = needs_at(in_force(policy({**BAD, "never_skip": True}))).gates
    assert not may_waive(found, "fail", frozenset({"leads"}))


# -- external checks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "more", "expected"),
    [
        ("pass", {}, "pass"),
        ("fail", {}, "fail"),
        ("inconclusive", {}, "inconclusive"),
        ("error", {}, "error"),
        ("error", {"on_error": "inconclusive"}, "inconclusive"),
    ],
)
def test_what_a_webhook_answers(result: str, more: dict[str, Any], expected: str) -> None:
    case = case_of()
    case = replace(case, answers=(answer(case, "p/hook", "fail"), answer(case, "p/hook", result, "seen")))
    (said,) = stands(case, policy({**HOOK, **more})).gates
    assert (said.result, said.message, said.expression) == (expected, "seen", "webhook https://checks.example.org/x")


def test_an_answer_of_another_gate_is_none() -> None:
    case = case_of()
    assert stands(replace(case, answers=(answer(case, "p/other", "pass"),)), policy(HOOK)).gates[0].result == "pending"


@pytest.mark.parametrize("external", [HOOK, SCAN])
@pytest.mark.parametrize(("on_error", "expected"), [("fail", "error"), ("inconclusive", "inconclusive")])
def test_a_check_that_does_not_answer(external: dict[str, Any], on_error: str, expected: str) -> None:
    text = policy({**external, "on_error": on_error, "asks": ["group:leads"]})
    end = OPENED + 3 * HOUR
    waits = stands(case_of(), text, at=end - timedelta(microseconds=1))
    assert (waits.phase, waits.next_at, waits.gates[0].result) == ("gates", end, "pending")
    late = stands(case_of(), text, at=end)
    assert (late.gates[0].result, late.gates[0].message) == (expected, "no answer within 3:00:00")
    assert told(late)[0] == ("rejected" if expected == "error" else "gates")


def test_the_time_to_answer_begins_anew_with_another_digest() -> None:
    case = replace(case_of(), bound_at=AT)
    assert stands(case, policy(HOOK)).next_at == AT + 3 * HOUR


def test_the_time_to_answer_runs_while_evidence_is_missing() -> None:
    found = stands(case_of(), policy(HOOK, request={"evidence": ["card"]}))
    assert found.reason == "evidence is missing: card; p/hook has not answered"
    assert found.next_at == OPENED + 3 * HOUR


@pytest.mark.parametrize(
    ("posted", "expected"),
    [
        ([], "pending"),
        ([{"posted_by": "scanner"}], "pass"),
        ([{"groups": ["ci"]}], "pass"),
        ([{"groups": ["others"]}], "pending"),
        ([{"groups": ["scanner"]}], "pending"),
        ([{"posted_by": "ci"}], "pending"),
        ([{"posted_by": "scanner", "type": "other"}], "pending"),
        ([{"posted_by": "scanner", "result": "fail"}], "fail"),
        ([{"posted_by": "scanner", "result": "fail"}, {"posted_by": "scanner"}], "pass"),  # the latest counts
        ([{"posted_by": "scanner"}, {"posted_by": "scanner", "result": "inconclusive"}], "inconclusive"),
        ([{"posted_by": "scanner", "result": "fail"}, {"posted_by": "mallory"}], "fail"),
        ([{"posted_by": "scanner", "digest": None}], "pending"),  # a pass needs a file
        ([{"posted_by": "scanner", "digest": None, "result": "fail"}], "fail"),
        ([{"posted_by": "scanner", "result": "fail"}, {"posted_by": "scanner", "digest": None}], "fail"),
        ([{"posted_by": "trainer", "groups": ["ci"]}], "pending"),  # the author of the version
        ([{"posted_by": "ANA", "groups": ["ci"]}], "pending"),  # the requester
        ([{"posted_by": "ana", "groups": ["ci"], "result": "fail"}], "pending"),
    ],
)
def test_attestations(posted: list[dict[str, Any]], expected: str) -> None:
    usual: dict[str, Any] = {
        "type": "scan",
        "posted_by": "somebody",
        "groups": [],
        "title": "a scan",
        "digest": DIGEST,
        "result": "pass",
    }
    given = inputs(candidate={"attestations": [{**usual, **one} for one in posted]})
    (said,) = stands(case_of(given), policy(SCAN)).gates
    assert (said.result, said.expression) == (expected, "attestation scan")


def test_an_attestation_names_its_file() -> None:
    one = {"type": "scan", "posted_by": "scanner", "groups": [], "title": "a scan", "result": "pass"}
    given = inputs(candidate={"attestations": [{**one, "digest": f"sha256:{'ab' * 32}"}]})
    assert stands(case_of(given), policy(SCAN)).gates[0].message == "scanner: a scan (sha256 abababababab)"
