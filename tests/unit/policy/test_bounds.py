"""As much is frozen as fits, and what is left out lets nothing pass."""

import json
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from contracts.approval import PolicyRef
from contracts.canonical import canonical_json
from policy.bounds import EVALUATIONS_BYTES, EVIDENCE_BYTES, VERSION_BYTES, frozen, heard
from policy.case import Case
from policy.document import Policy, parse
from policy.gates import evaluate, variables_of
from policy.needs import needs_of
from policy.people import excluded
from policy.situation import NOON, Asked, Attested, Situation, Version

WIDE = "x" * 60_000


def size(value: Any) -> int:
    return len(canonical_json(value))


def measured(name: str, ago: float, auc: float, pad: int = 60_000) -> dict[str, Any]:
    at = (NOON - timedelta(minutes=ago)).isoformat()
    return {"dataset": {"name": name}, "metrics": {"auc": auc}, "evaluated_at": at, "notes": "x" * pad}


def slices(evaluations: list[dict[str, Any]], left: tuple[str, ...] = ()) -> Any:
    return variables_of({"candidate": {"evaluations": evaluations, "left_out": left}}, NOON).get("candidate.slices")


def policy(**spec: Any) -> tuple[PolicyRef, Policy]:
    given = {"match": {"transition": {"to": "Production"}}, **spec}
    found = parse(json.dumps({"kind": "PromotionPolicy", "metadata": {"name": "p"}, "spec": given}))
    return PolicyRef(name="p", revision=1, digest=found.digest), found


def inputs(**candidate: Any) -> dict[str, Any]:
    return Situation(request=Asked(), candidate=Version(**candidate)).inputs()


def _by_name(variables: dict[str, Any]) -> dict[str, Any]:
    return {one["dataset"]["name"]: one for one in variables["candidate.slices"]}


names, ages = st.sampled_from(["a", "b", "c"]), st.floats(-60, 60)


@given(st.lists(st.builds(measured, names, ages, st.floats(0, 1)), max_size=9))
def test_slices_are_what_they_were_or_not_there(evaluations: list[dict[str, Any]]) -> None:
    kept, left = list[dict[str, Any]](), set[str]()
    for one in evaluations:
        kept, gone = heard([*kept, one], NOON)
        left |= {*gone}
    assert sum(map(size, kept)) <= EVALUATIONS_BYTES
    variables = variables_of({"candidate": {"evaluations": kept, "left_out": sorted(left)}}, NOON)
    whole = variables_of({"candidate": {"evaluations": evaluations}}, NOON)
    if "candidate.slices" in variables:
        assert _by_name(variables) == _by_name(whole)
    assert variables.get("candidate.evaluations") in (None, whole.get("candidate.evaluations"))
    if len(evaluations) <= 3:
        assert variables == whole


def test_who_supersedes_makes_room() -> None:
    kept, left = heard([measured("a", 9 - n, n / 10) for n in range(9)], NOON)
    assert ([one["metrics"]["auc"] for one in kept], left) == ([0.6, 0.7, 0.8], ("evaluations",))
    assert [one["metrics"]["auc"] for one in slices(kept, left)] == [0.8]


def test_what_is_left_out_is_an_error_even_where_only_its_presence_is_asked_for() -> None:
    given = inputs(lineage={"git_commit": "x", "committers": ["cem"], "notes": [WIDE] * 10}, notes="short")
    _, found = frozen(given, [policy()], NOON)
    assert size(found["candidate"]) < VERSION_BYTES
    assert found["candidate"]["left_out"] == ["lineage"]
    variables = variables_of(found, NOON)
    for expression in ("has(candidate.lineage.git_commit)", "!has(candidate.lineage.git_dirty)"):
        assert evaluate("g", expression, variables, on_no_baseline="fail").result == "error"
    assert evaluate("g", "candidate.notes == 'short'", variables, on_no_baseline="fail").result == "pass"


def test_committers_never_vote_however_large_the_version_is() -> None:
    given = inputs(lineage={"committers": ["cem"], "notes": [WIDE] * 10})
    _, found = frozen(given, [policy()], NOON)
    case = Case("ana", "d", found, opened_at=NOON, bound_at=NOON)
    exclude = {"separation_of_duties": {"exclude": ["requester", "version.author", "version.committers"]}}
    strict = needs_of([policy(approvals=exclude)], found, opened_at=NOON, now=NOON)
    assert "cem" in excluded(case, strict)
    assert [criterion.gate for criterion in strict.doubts] == ["candidate/left-out"]


def test_evidence_that_is_too_large_is_left_out_and_who_looks_at_it_applies() -> None:
    many = tuple(Attested(type=f"t{n}", title="x" * 500, groups=["g" * 200] * 10) for n in range(60))
    given = inputs(attestations=many)
    match = {"transition": {"to": "Production"}, "when": "candidate.attestations.size() < 3"}
    plain, looks = policy(), policy(match=match)
    policies, found = frozen(given, [plain, looks], NOON)
    assert (len(policies), found["candidate"].get("left_out")) == (1, None)  # it looks at all of them: not few
    gates = [{"id": "all", "cel": "candidate.attestations.all(a, a.result == 'pass')"}]
    policies, found = frozen(given, [policy(gates=gates), looks], NOON)
    assert (len(policies), found["candidate"]["left_out"]) == (2, ["attestations", "evidence"])
    assert size(found["candidate"]) < EVIDENCE_BYTES


def test_what_is_small_is_frozen_as_it_is() -> None:
    given = inputs(notes="n", lineage={"git_commit": "x"}, attestations=(Attested(type="scan"),))
    gates = [{"id": "all", "cel": "candidate.attestations.all(a, a.result == 'pass')"}]
    _, found = frozen(given, [policy(gates=gates)], NOON)
    assert found == given
