"""Policies over HTTP: check, explain, simulate, ask for changes and take them back; and what their errors look like."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.approval.conftest import Document, Harness
from tests.integration.approval.surface import POLICY, STRANGER, asked, good, problem

from policy.document import parse

# One loop for all: the shared service must go on running during the other tests.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
ROUTES = ["", "/check", "/simulate"]
TEXT = POLICY % {"name": "plain"}
# Documents with mistakes; the line and the field of each.
MISTAKES: list[tuple[str, list[tuple[int, str]]]] = [
    (TEXT.replace("count: 2", "count: 0"), [(11, "spec.approvals.rules.0.count")]),
    (TEXT.replace("accuracy >= 0.9'", "accuracy >='"), [(7, "spec.gates.0.cel")]),
    (TEXT.replace("level: warn", "level: loud"), [(8, "spec.gates.1.level")]),
    (TEXT.replace("id: hint", "id: Hint"), [(8, "spec.gates.1.id")]),
    (TEXT.replace("id: hint", "id: sane"), [(6, "spec.gates")]),
    (
        TEXT.replace("[requester, version.author, ", "[requester, "),
        [(12, "spec.approvals.separation_of_duties.exclude")],
    ),
    (TEXT.replace("kind: PromotionPolicy", "kind: Policy"), [(2, "kind")]),
    (TEXT.replace("  approvals:", "  aprovals:"), [(10, "spec.aprovals")]),
    (
        TEXT.replace("count: 2", "count: two").replace("within: 2d", "within: soon"),
        [(11, "spec.approvals.rules.0.count"), (20, "spec.break_glass.review.within")],
    ),
    ("", [(1, "")]),
    ("5", [(1, "")]),
    ("a: [", [(1, "")]),
    ("a: 1\na: 2", [(2, "")]),
    ("[" * 9_000, [(1, "")]),
    ("&a [*a]", [(1, "")]),
    ("!!python/object:os.system x", [(1, "")]),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acts(approval: Harness) -> AsyncIterator[Harness]:
    """The service, with a policy of its own for models called `acts...`."""
    await approval.publish_policy(POLICY % {"name": "acts"})
    yield approval


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("text", "places"), MISTAKES)
async def test_mistakes_are_named_by_line_and_field(
    acts: Harness, route: str, text: str, places: list[tuple[int, str]]
) -> None:
    response = await acts.admin.post(f"/v1/policies{route}", json={"document": text})
    assert problem(response) == (422, "invalid-policy")
    errors = response.json()["errors"]
    assert [(error["line"], error["field"]) for error in errors] == places
    assert all(error["message"] for error in errors)


@pytest.mark.parametrize("route", ROUTES)
async def test_bodies_that_hold_no_document(acts: Harness, route: str) -> None:
    url = f"/v1/policies{route}"
    bodies: list[Any] = [{}, {"document": 5}, {"document": "x" * 10_001}, {"document": "\x00"}, {"text": TEXT}, TEXT]
    for body in bodies:
        assert problem(await acts.admin.post(url, json=body)) == (422, "invalid-request"), body
    nobody = acts.admin
    del nobody.headers["authorization"]
    assert problem(await nobody.post(url, json={"document": TEXT})) == (401, "unauthenticated")


async def test_a_good_document_is_checked_and_nothing_more(acts: Harness) -> None:
    before = good(await acts.ana.get("/v1/policies"))
    found = good(await acts.client(*STRANGER).post("/v1/policies/check", json={"document": TEXT}))
    assert found == {"name": "plain", "digest": parse(TEXT).digest}
    assert good(await acts.ana.get("/v1/policies")) == before
    assert good(await acts.ana.get("/v1/policies", params={"name": "plain"}))["items"] == []


# -- explain ---------------------------------------------------------------------------------------------------------


async def test_what_a_request_would_need(acts: Harness) -> None:
    request = await asked(acts, "acts-explained", accuracy=0.5, committers=("cora",))
    body = {"model": "acts-explained", "version": 1, "to": "Archived", "from": "Staging"}
    before = good(await acts.ana.get("/v1/requests", params={"model": "acts-explained"}))
    found = good(await acts.ana.post("/v1/policies/explain", json=body))
    results = {gate["gate"]: (gate["result"], gate["blocks"], gate["waivable_by"]) for gate in found["gates"]}
    assert results == {
        "acts/accuracy": ("fail", True, ["leads"]),
        "acts/hint": ("fail", False, []),
        "acts/sane": ("pass", True, []),
    }
    assert [{**rule, "have": 0} for rule in found["rules"]] == request["rules"]
    assert {one["who"] for one in found["excluded"]} == {"ana", "carl", "cora"}
    assert found["reauthenticate_within_seconds"] == 300
    assert found["emergency"] == {"allowed": ["oncall"], "skips": ["approvals", "gates", "schedule"]}
    waits = "acts/accuracy is fail: somebody of leads may waive it"
    assert (
        found["would"]
        == {"verdict": None, "phase": "gates", "reason": waits}
        == {
            **found["would"],
            "reason": request["waits_for"],
        }
    )
    nowhere = good(await acts.ana.post("/v1/policies/explain", json={**body, "to": "Nowhere"}))
    assert (nowhere["policies"], nowhere["would"]["verdict"]) == ([], "rejected")
    assert good(await acts.ana.get("/v1/requests", params={"model": "acts-explained"})) == before


async def test_explanations_of_what_is_not_there_or_not_ones_own(acts: Harness) -> None:
    await asked(acts, "acts-unexplained")
    url, body = "/v1/policies/explain", {"model": "acts-unexplained", "version": 1, "to": "Archived"}
    assert problem(await acts.client(*STRANGER).post(url, json=body)) == (403, "forbidden")
    for missing in ({"model": "nothing"}, {"version": 2}, {"workspace": "elsewhere"}):
        assert problem(await acts.ana.post(url, json={**body, **missing})) == (404, "version-not-found")
    for wrong in (
        {"version": 0},
        {"version": 2**31},
        {"model": "a/b"},
        {"workspace": "*"},
        {"to": ""},
        {"to": "@"},
        {"from": "@champion"},
        {"kind": "policy"},
        {"fields": {"rollback_to": 1}},
        {"by": "bo"},
    ):
        response = await acts.ana.post(url, json={**body, **wrong})
        assert problem(response) == (422, "invalid-request"), wrong
        assert next(iter(wrong)) in response.json()["errors"][0]["field"]


# -- simulate --------------------------------------------------------------------------------------------------------


async def test_how_a_policy_would_have_decided(acts: Harness) -> None:
    url, text = "/v1/policies/simulate", POLICY % {"name": "acts"}
    ids = []
    for choice in ("approve", "reject"):
        ids.append((await asked(acts, "acts-simulated"))["request_id"])
        for who in ("ben", "bo")[: 2 if choice == "approve" else 1]:
            good(await acts.vote(acts.client(who, "reviewers"), ids[-1], choice, comment="so"))
    for document, would in ((text, ["rejected", "approved"]), (text.replace("0.9'", "0.97'"), ["rejected", "waiting"])):
        found = good(await acts.ana.post(url, json={"document": document, "last": 2}))
        assert [(one["request_id"], one["would"]) for one in found["items"]] == [*zip(ids[::-1], would, strict=True)]
        assert [one["decided"] for one in found["items"]] == ["rejected", "approved"]
        differs = [one["differs"] for one in found["items"]]
        assert (found["looked_at"], found["applied_to"], found["differing"]) == (2, 2, sum(differs))
        assert differs == [False, would[1] == "waiting"]
    stranger = good(await acts.client(*STRANGER).post(url, json={"document": text}))
    assert (stranger["looked_at"], stranger["items"]) == (0, [])
    for last in (0, 501, "all", 1.5):
        assert problem(await acts.ana.post(url, json={"document": text, "last": last})) == (422, "invalid-request")


# -- changes ---------------------------------------------------------------------------------------------------------


async def test_a_change_of_a_policy_is_taken_back(acts: Harness) -> None:
    document = POLICY % {"name": "taken-back"}
    made = await acts.admin.post("/v1/policies", json={"document": document, "reason": "an idea"})
    assert made.status_code == 202
    change: Document = made.json()
    url, vera = f"/v1/requests/{change['request_id']}", acts.client("vera", "admins")
    # Changes of policies are everybody's to read and to talk about.
    found = good(await acts.client(*STRANGER).post(f"{url}/comments", json={"text": "Why?"}))
    assert (found["kind"], found["model"], found["document"], found["reason"]) == (
        "policy",
        "taken-back",
        document,
        "an idea",
    )
    assert found["you"]["code"] == "not-an-approver"
    assert problem(await acts.ana.post(f"{url}/withdraw")) == (403, "forbidden")
    assert problem(await acts.client(*STRANGER).post(f"{url}/withdraw")) == (403, "forbidden")
    assert problem(await acts.ana.get(f"{url}/record")) == (409, "not-decided")
    for _ in range(2):
        assert good(await acts.admin.post(f"{url}/withdraw"))["status"] == "cancelled"
    assert problem(await acts.vote(vera, change["request_id"], "approve")) == (409, "request-closed")
    assert problem(await acts.ana.post("/v1/requests/unknown/withdraw")) == (404, "request-not-found")
    transition = await asked(acts, "acts-not-a-policy")
    withdrawn = await acts.ana.post(f"/v1/requests/{transition['request_id']}/withdraw")
    assert problem(withdrawn) == (409, "not-a-policy")
    again = await acts.admin.post("/v1/policies", json={"document": document})
    assert (again.status_code, again.json()["revision"]) == (202, 1)
    assert good(await acts.vote(vera, again.json()["request_id"], "approve"))["status"] == "approved"
    late = await acts.admin.post(f"/v1/requests/{again.json()['request_id']}/withdraw")
    assert problem(late) == (409, "request-closed")
    assert problem(await acts.ana.get(f"/v1/requests/{again.json()['request_id']}/record")) == (409, "not-decided")


async def test_another_admin_may_take_a_change_back(acts: Harness) -> None:
    made = await acts.admin.post("/v1/policies", json={"document": POLICY % {"name": "by-another"}})
    url = f"/v1/requests/{made.json()['request_id']}/withdraw"
    assert good(await acts.client("vera", "admins").post(url))["status"] == "cancelled"


async def test_policies_are_asked_for_by_admins_only(acts: Harness) -> None:
    for client in (acts.ben, acts.client("olga", "oncall"), acts.client(*STRANGER)):
        assert problem(await client.post("/v1/policies", json={"document": TEXT})) == (403, "forbidden")
    locked = "{kind: PromotionPolicy, metadata: {name: policy-changes}, spec: {match: {transition: {to: Nowhere}}}}"
    assert problem(await acts.admin.post("/v1/policies", json={"document": locked})) == (409, "policies-locked")
