"""Requests over HTTP: lists, why one may not vote, votes, comments, and what their errors look like."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from tests.integration.approval.conftest import Document, Harness, transition_id
from tests.integration.approval.surface import POLICY, STRANGER, asked, good, problem, signed_in

from contracts.lifecycle import Stage

# One loop for all: the shared service must go on running during the other tests.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
PAGED = """
kind: PromotionPolicy
metadata: {name: paged}
spec:
  match: {transition: {to: Archived}, models: ['paged*']}
  approvals: {rules: [{id: safe, meaning: It is safe, from: ['group:security'], count: 1}]}
"""
WRONG = f"sha256:{'0' * 64}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acts(approval: Harness) -> AsyncIterator[Harness]:
    """The service, with policies of its own for models called `acts...` and `paged...`."""
    await approval.publish_policy(POLICY % {"name": "acts"})
    await approval.publish_policy(PAGED)
    yield approval


# -- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["all", "asked", "needs-me"])
async def test_pages_have_no_gap_and_no_double_while_requests_arrive(acts: Harness, view: str) -> None:
    model, asker = f"paged-{view}", f"pat-{view}"
    reader = acts.client("sue", "security") if view == "needs-me" else acts.client(asker, "ml-engineers")
    there = [(await asked(acts, model, by=asker))["request_id"] for _ in range(5)]
    come: list[str] = []
    seen: list[str] = []
    query: Document = {"view": view, "model": model, "limit": 2}
    while True:
        page = good(await reader.get("/v1/requests", params=query))
        assert all(item["you"] is None for item in page["items"])
        seen += [item["request_id"] for item in page["items"]]
        if page["next"] is None:
            break
        assert len(page["items"]) == 2
        query["after"] = page["next"]
        if len(come) < 2:
            come.append((await asked(acts, model, by=asker))["request_id"])
    # The newest first: what has come meanwhile is before the first page. The oldest first: it is at the end.
    assert seen == ([*there, *come] if view == "needs-me" else there[::-1])


async def test_the_inbox_goes_on_where_a_decided_request_was(acts: Harness) -> None:
    sue = acts.client("sue", "security")
    ids = [(await asked(acts, "paged-on"))["request_id"] for _ in range(4)]
    query: Document = {"view": "needs-me", "model": "paged-on", "limit": 2}
    first = good(await sue.get("/v1/requests", params=query))
    assert [item["request_id"] for item in first["items"]] == ids[:2]
    for request_id, choice, status in ((ids[1], "approve", "approved"), (ids[2], "reject", "rejected")):
        assert good(await acts.vote(sue, request_id, choice, comment="seen"))["status"] == status
    rest = good(await sue.get("/v1/requests", params={**query, "after": first["next"]}))
    assert ([item["request_id"] for item in rest["items"]], rest["next"]) == (ids[3:], None)


@pytest.mark.parametrize("view", ["needs-me", "all", "asked"])
async def test_a_page_after_an_unknown_request_is_refused(acts: Harness, view: str) -> None:
    response = await acts.ana.get("/v1/requests", params={"view": view, "after": "unknown"})
    assert problem(response) == (404, "request-not-found")


async def test_statuses_go_by_the_words_of_other_registries(acts: Harness) -> None:
    ids = {"open": (await asked(acts, "acts-words"))["request_id"]}
    ids["rejected"] = (await asked(acts, "acts-words"))["request_id"]
    good(await acts.vote(acts.ben, ids["rejected"], "reject", comment="no"))
    ids["approved"] = (await asked(acts, "acts-words"))["request_id"]
    for who in ("ben", "bo"):
        good(await acts.vote(acts.client(who, "reviewers"), ids["approved"], "approve"))
    withdrawn = await acts.registry.request("acts-words", to=Stage.ARCHIVED)
    await acts.registry.refused(withdrawn, "withdrawn")
    late = await acts.registry.request("acts-words", to=Stage.ARCHIVED, expires_in=0.5)
    for envelope, status in ((withdrawn, "cancelled"), (late, "expired")):
        assert (await acts.decided(envelope))["status"] == status
        ids[status] = transition_id(envelope)
    words = {
        "open": ["open", "pending", "Pending", "PendingManualApproval", "pendingmanualapproval"],
        "approved": ["approved", "Approved", "APPROVED"],
        "rejected": ["rejected", "Rejected", "denied"],
        "cancelled": ["cancelled", "canceled", "Canceled"],
        "expired": ["expired"],
    }
    for status, named in words.items():
        for word in named:
            found = good(await acts.ana.get("/v1/requests", params={"model": "acts-words", "status": word}))
            assert [item["request_id"] for item in found["items"]] == [ids[status]], word
    for word in ("", "PENDING_APPROVAL", "in review"):
        assert problem(await acts.ana.get("/v1/requests", params={"status": word})) == (422, "unknown-status")
    assert problem(await acts.ana.get("/v1/requests", params={"view": "mine"})) == (422, "invalid-request")


# -- why I may not ---------------------------------------------------------------------------------------------------


async def test_you_are_told_why_you_may_not_vote(acts: Harness) -> None:
    request = await asked(acts, "acts-you", committers=("cem",))
    url = f"/v1/requests/{request['request_id']}"
    for client, code, words in (
        (acts.client("ana", "reviewers"), "own-request", "ana asked for this"),
        (acts.client("carl", "reviewers"), "own-version", "carl registered this version"),
        (acts.client("CEM", "reviewers"), "own-commits", "cem has commits in this version"),
        (acts.client("dora", "leads"), "not-an-approver", "asked are: reviewers"),
        (acts.client("emil", "ml-engineers"), "not-an-approver", "emil has no role that lets them vote"),
        (acts.client("bot", "reviewers", kind="service"), "service-account", "only people vote"),
        (signed_in(acts, "ben", "reviewers", minutes_ago=6), "authentication-too-old", "the last 5 minutes"),
    ):
        you = good(await client.get(url))["you"]
        assert (you["may_vote"], you["code"], you["voted"], you["on_behalf_of"]) == (False, code, False, [])
        assert words in you["detail"]
        refused = await acts.vote(client, request["request_id"], "approve")
        assert problem(refused) == (401 if code == "authentication-too-old" else 403, code)
        assert refused.json()["detail"] == you["detail"]
    may: Document = {"may_vote": True, "code": None, "detail": None, "on_behalf_of": [], "voted": False}
    assert good(await acts.ben.get(url))["you"] == may
    assert good(await signed_in(acts, "ben", "reviewers", minutes_ago=4).get(url))["you"] == may
    voted = good(await acts.vote(acts.ben, request["request_id"], "approve"))["you"]
    assert (voted["may_vote"], voted["voted"]) == (False, True)
    good(await acts.vote(acts.client("bo", "reviewers"), request["request_id"], "approve"))
    for client in (acts.client("bea", "reviewers"), acts.client("dora", "ml-engineers")):
        you = good(await client.get(url))["you"]
        assert (you["may_vote"], you["code"]) == (False, "request-closed")


# -- votes -----------------------------------------------------------------------------------------------------------


async def test_a_vote_for_a_rule_that_is_not_there(acts: Harness) -> None:
    request_id = (await asked(acts, "acts-rules"))["request_id"]
    refused = await acts.vote(acts.ben, request_id, "approve", rule="acts/nothing")
    assert problem(refused) == (403, "not-an-approver")
    assert "asked are: nobody" in refused.json()["detail"]
    assert good(await acts.vote(acts.ben, request_id, "approve", rule="acts/review"))["rules"][0]["have"] == 1


async def test_votes_with_mistakes(acts: Harness) -> None:
    request_id = (await asked(acts, "acts-mistakes"))["request_id"]
    url = f"/v1/requests/{request_id}/votes"
    bodies: list[Any] = [
        {},
        {"choice": "APPROVE"},
        {"choice": None},
        {"choice": ["approve"]},
        {"choice": "approve", "rule": ""},
        {"choice": "approve", "on_behalf_of": "a\nb"},
        {"choice": "approve", "comment": "x" * 2001},
        {"choice": "approve", "voter": "bo"},
        [],
    ]
    for body in bodies:
        response = await acts.ben.post(url, json=body)
        assert problem(response) == (422, "invalid-request"), body
        assert all(error["field"].startswith("body") for error in response.json()["errors"])
    broken = await acts.ben.post(url, content=b'{"choice": ', headers={"content-type": "application/json"})
    assert problem(broken) == (422, "invalid-request")
    behalf = await acts.vote(acts.ben, request_id, "approve", on_behalf_of="bo")
    assert problem(behalf) == (403, "no-delegation")
    wrong = await acts.vote(acts.ben, request_id, "approve", request_digest=WRONG)
    assert problem(wrong) == (409, "request-changed")
    assert good(await acts.ana.get(f"/v1/requests/{request_id}"))["votes"] == []


async def test_a_vote_is_withdrawn_once_and_may_be_cast_again(acts: Harness) -> None:
    request_id = (await asked(acts, "acts-withdrawn"))["request_id"]
    url = f"/v1/requests/{request_id}/votes"
    assert good(await acts.vote(acts.ben, request_id, "approve"))["rules"][0]["have"] == 1
    assert problem(await acts.client("bo", "reviewers").delete(url)) == (409, "no-vote")
    for reason in ("a second thought", "another"):
        found = good(await acts.ben.delete(url, params={"reason": reason}))
        assert (found["votes"], found["you"]["voted"], found["you"]["may_vote"]) == ([], False, True)
        assert [past["why"] for past in found["past_votes"]] == ["withdrawn: a second thought"]
    assert problem(await acts.ben.delete(url, params={"reason": "x" * 2001})) == (422, "invalid-request")
    good(await acts.vote(acts.ben, request_id, "approve"))
    assert good(await acts.vote(acts.client("bo", "reviewers"), request_id, "approve"))["status"] == "approved"
    assert problem(await acts.ben.delete(url)) == (409, "request-closed")
    assert problem(await acts.ben.delete("/v1/requests/unknown/votes")) == (404, "request-not-found")


# -- comments --------------------------------------------------------------------------------------------------------


async def test_comments_are_kept_and_checked(acts: Harness) -> None:
    request_id = (await asked(acts, "acts-comments"))["request_id"]
    url = f"/v1/requests/{request_id}/comments"
    for body in (
        {},
        {"text": ""},
        {"text": " \n\t"},
        {"text": "x" * 10_001},
        {"text": "\x00"},
        {"text": 1},
        {"text": "x", "author": "bo"},
    ):
        assert problem(await acts.ana.post(url, json=body)) == (422, "invalid-request"), body
    unknown = await acts.ana.post("/v1/requests/unknown/comments", json={"text": "x"})
    assert problem(unknown) == (404, "request-not-found")
    good(await acts.ana.post(url, json={"text": "Why now?"}))
    good(await acts.client("bot", "ml-engineers", kind="service").post(url, json={"text": "x" * 10_000}))
    good(await acts.vote(acts.ben, request_id, "reject", comment="not now"))
    found = good(await acts.ana.post(url, json={"text": "Later, then."}))  # also afterwards
    assert [(one["author"], len(one["text"])) for one in found["comments"]] == [
        ("ana", 8),
        ("bot", 10_000),
        ("ana", 12),
    ]
    assert found["status"] == "rejected"
    assert [one["at"] for one in found["comments"]] == sorted(one["at"] for one in found["comments"])


# -- records ---------------------------------------------------------------------------------------------------------


async def test_a_request_that_is_not_decided_has_a_manifest_and_no_record(acts: Harness) -> None:
    request_id = (await asked(acts, "acts-record"))["request_id"]
    url = f"/v1/requests/{request_id}"
    good(await acts.vote(acts.ben, request_id, "approve", comment="fine"))
    assert problem(await acts.ana.get(f"{url}/record")) == (409, "not-decided")
    manifest = await acts.ana.get(f"{url}/manifest")
    assert manifest.headers["content-type"] == "text/plain; charset=utf-8"
    for line in ("ben: approve", "comment: fine", "Status: open", "default/acts-record/1: promotion from Staging"):
        assert line in manifest.text
    assert "JWS" not in manifest.text
    decided = good(await acts.vote(acts.client("bo", "reviewers"), request_id, "approve"))
    record = good(await acts.ana.get(f"{url}/record"))
    assert (record["decision"], record["jws"], record["inputs"]) == (
        decided["decision"],
        decided["jws"],
        decided["inputs"],
    )
    assert list(record["documents"]) == [policy["digest"] for policy in decided["policies"]]
    assert decided["jws"] in (await acts.ana.get(f"{url}/manifest")).text
    for what in ("record", "manifest"):
        assert problem(await acts.ana.get(f"/v1/requests/unknown/{what}")) == (404, "request-not-found")


# -- rights ----------------------------------------------------------------------------------------------------------

ACTS: list[tuple[str, str, Document | None]] = [
    ("GET", "", None),
    ("POST", "/votes", {"choice": "approve"}),
    ("DELETE", "/votes", None),
    ("POST", "/comments", {"text": "let me in"}),
    ("POST", "/waivers", {"gate": "acts/hint", "reason": "because"}),
    ("POST", "/break-glass", {"reason": "production is down"}),
    ("POST", "/reviews", {"justified": True, "comment": "it was"}),
    ("POST", "/withdraw", None),
    ("GET", "/record", None),
    ("GET", "/manifest", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ACTS)
async def test_who_may_not_read_may_do_nothing(acts: Harness, method: str, path: str, body: Document | None) -> None:
    request = await asked(acts, "acts-rights")
    url = f"/v1/requests/{request['request_id']}{path}"

    async def told(client: httpx2.AsyncClient, url: str) -> tuple[int, str]:
        return problem(await client.request(method, url, json=body))

    # Who may read elsewhere only is told no more than that.
    assert await told(acts.client(*STRANGER), url) == (403, "forbidden")
    assert await told(acts.client("nobody"), url) == (403, "forbidden")
    assert await told(acts.ana, f"/v1/requests/unknown{path}") == (404, "request-not-found")
    nobody = acts.ana
    del nobody.headers["authorization"]
    assert await told(nobody, url) == (401, "unauthenticated")
    forged = acts.ana
    forged.headers["authorization"] += "x"
    assert await told(forged, url) == (401, "token-invalid")
    found = good(await acts.ana.get(f"/v1/requests/{request['request_id']}"))
    assert (found["status"], found["votes"], found["comments"], found["refusals"]) == ("open", [], [], [])
