"""Waivers, broken glass and its review over HTTP, and what their errors look like."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.integration.approval.conftest import Document, Harness
from tests.integration.approval.surface import POLICY, asked, good, problem, signed_in

from contracts.lifecycle import Stage

# One loop for all: the shared service must go on running during the other tests.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
WRONG = f"sha256:{'0' * 64}"
DOWN = "production is down"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acts(approval: Harness) -> AsyncIterator[Harness]:
    """The service, with a policy of its own for models called `acts...`."""
    await approval.publish_policy(POLICY % {"name": "acts"})
    yield approval


# -- waivers ---------------------------------------------------------------------------------------------------------


async def test_waivers_that_are_refused(acts: Harness) -> None:
    request = await asked(acts, "acts-refused", accuracy=0.5, committers=("cora",))
    assert (request["status"], request["phase"]) == ("open", "gates")
    url = f"/v1/requests/{request['request_id']}/waivers"
    lea = acts.client("lea", "leads")
    for client, gate, answer in (
        (lea, "acts/nothing", (404, "gate-not-found")),
        (lea, "accuracy", (404, "gate-not-found")),
        (lea, "acts/sane", (409, "gate-is-good")),
        (lea, "acts/hint", (409, "gate-not-waivable")),
        (acts.ben, "acts/accuracy", (403, "not-entitled")),
        (acts.client("ana", "leads"), "acts/accuracy", (403, "own-request")),
        (acts.client("carl", "leads"), "acts/accuracy", (403, "own-version")),
        (acts.client("cora", "leads"), "acts/accuracy", (403, "own-commits")),
        (acts.client("bot", "leads", kind="service"), "acts/accuracy", (403, "service-account")),
        (signed_in(acts, "lea", "leads", minutes_ago=6), "acts/accuracy", (401, "authentication-too-old")),
    ):
        refused = await client.post(url, json={"gate": gate, "reason": "because"})
        assert problem(refused) == answer, (client.headers, gate)
    named = await lea.post(url, json={"gate": "acts/nothing", "reason": "because"})
    assert "its gates: acts/accuracy, acts/hint, acts/sane" in named.json()["detail"]
    other: Document = {"gate": "acts/accuracy", "reason": "because", "request_digest": WRONG}
    assert problem(await lea.post(url, json=other)) == (409, "request-changed")
    for body in ({"gate": "acts/accuracy"}, {"gate": "acts/accuracy", "reason": ""}, {"reason": "x"}, {"gate": "a\nb"}):
        assert problem(await lea.post(url, json=body)) == (422, "invalid-request"), body
    found = good(await acts.ana.get(f"/v1/requests/{request['request_id']}"))
    assert (found["waivers"], found["phase"]) == ([], "gates")


async def test_a_waiver_is_one_however_often_it_is_sent(acts: Harness) -> None:
    request = await asked(acts, "acts-waived", accuracy=0.5)
    url, lea = f"/v1/requests/{request['request_id']}/waivers", acts.client("lea", "leads")
    body = {"gate": "acts/accuracy", "reason": "measured by hand", "request_digest": request["request_digest"]}
    for _ in range(2):
        found = good(await lea.post(url, json=body))
        assert [(w["by"], w["gate"], w["reason"], w["auth_method"]) for w in found["waivers"]] == [
            ("lea", "acts/accuracy", "measured by hand", "token")
        ]
        assert (found["phase"], found["gates"][0]["result"]) == ("people", "waived")
    another = await acts.client("leo", "leads").post(url, json=body)
    assert problem(another) == (409, "gate-is-good")
    for who in ("ben", "bo"):
        found = good(await acts.vote(acts.client(who, "reviewers"), request["request_id"], "approve"))
    assert (found["status"], [w["by"] for w in found["decision"]["waived"]]) == ("approved", ["lea"])
    late = await acts.client("leo", "leads").post(url, json=body)
    assert problem(late) == (409, "request-closed")


async def test_a_gate_that_is_never_skipped_ends_the_request(acts: Harness) -> None:
    request = await asked(acts, "acts-never", accuracy=0.05)
    assert request["status"] == "rejected"
    url, lea = f"/v1/requests/{request['request_id']}", acts.client("lea", "leads", "oncall")
    waived = await lea.post(f"{url}/waivers", json={"gate": "acts/sane", "reason": "because"})
    broken = await lea.post(f"{url}/break-glass", json={"reason": DOWN})
    assert (problem(waived), problem(broken)) == ((409, "request-closed"), (409, "request-closed"))


# -- break-glass and its review --------------------------------------------------------------------------------------


async def test_glass_that_stays_whole(acts: Harness) -> None:
    request = await asked(acts, "acts-whole")
    url, otto = f"/v1/requests/{request['request_id']}/break-glass", acts.client("otto", "oncall")
    for client, reason, answer in (
        (acts.ben, DOWN, (403, "not-entitled")),
        (acts.client("bot", "oncall", kind="service"), DOWN, (403, "service-account")),
        (otto, "down", (422, "reason-required")),
        (otto, " " * 20, (422, "invalid-request")),
        (otto, "", (422, "invalid-request")),
        (signed_in(acts, "otto", "oncall", minutes_ago=6), DOWN, (401, "authentication-too-old")),
    ):
        assert problem(await client.post(url, json={"reason": reason})) == answer
    assert problem(await otto.post(url, json={})) == (422, "invalid-request")
    unskippable = await asked(acts, "acts-usual", to=Stage.PRODUCTION)
    no_exit = await otto.post(f"/v1/requests/{unskippable['request_id']}/break-glass", json={"reason": DOWN})
    assert problem(no_exit) == (409, "no-break-glass")
    found = good(await acts.ana.get(f"/v1/requests/{request['request_id']}"))
    assert (found["status"], found["emergency"]) == ("open", None)


async def test_an_emergency_and_its_review(acts: Harness) -> None:
    request = await asked(acts, "acts-broken", accuracy=0.5)
    url, rita = f"/v1/requests/{request['request_id']}", acts.client("rita", "risk")
    review = {"justified": True, "comment": "It was down."}
    assert problem(await rita.post(f"{url}/reviews", json=review)) == (409, "request-closed")
    otto = signed_in(acts, "otto", "oncall", "risk", minutes_ago=4)
    found = good(await otto.post(f"{url}/break-glass", json={"reason": DOWN}))
    emergency = found["emergency"]
    assert (found["status"], found["phase"], found["votes"]) == ("approved", "review", [])
    assert (emergency["by"], emergency["reason"], emergency["page"]) == ("otto", DOWN, ["group:risk"])
    assert found["decision"]["break_glass"] == emergency
    assert problem(await otto.post(f"{url}/break-glass", json={"reason": DOWN})) == (409, "request-closed")
    waiting = {"view": "needs-me", "model": "acts-broken"}
    assert good(await otto.get("/v1/requests", params=waiting))["items"] == []  # not by who broke it
    [item] = good(await rita.get("/v1/requests", params=waiting))["items"]
    assert item["request_id"] == request["request_id"]
    for client, answer in (
        (otto, (403, "own-request")),
        (acts.client("ana", "risk"), (403, "own-request")),
        (acts.ben, (403, "not-an-approver")),
        (acts.client("bot", "risk", kind="service"), (403, "service-account")),
    ):
        assert problem(await client.post(f"{url}/reviews", json=review)) == answer
    for body in ({"justified": True}, {"justified": True, "comment": ""}, {"justified": "perhaps", "comment": "x"}):
        assert problem(await rita.post(f"{url}/reviews", json=body)) == (422, "invalid-request"), body
    for _ in range(2):
        found = good(await rita.post(f"{url}/reviews", json=review))
        assert [(one["reviewer"], one["justified"], one["closes"]) for one in found["reviews"]] == [
            ("rita", True, True)
        ]
    assert (found["status"], found["phase"]) == ("approved", "decided")
    assert good(await rita.get("/v1/requests", params=waiting))["items"] == []
    manifest = (await acts.ana.get(f"{url}/manifest")).text
    for line in (
        "otto: breaks the glass",
        f"reason: {DOWN}",
        "rita: the emergency was justified",
        "comment: It was down.",
    ):
        assert line in manifest
