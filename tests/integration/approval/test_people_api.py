"""Delegations, members and revocations over HTTP: who may, and what their errors look like."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from tests.integration.approval.conftest import Harness
from tests.integration.approval.surface import POLICY, STRANGER, asked, good, problem

from contracts.approval import Revocation, RevocationOrdered
from contracts.envelope import now
from contracts.lifecycle import Stage
from contracts.registry import VersionRevoked

# One loop for all: the shared service must go on running during the other tests.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]


def days(count: float) -> str:
    return (now() + timedelta(days=count)).isoformat()


# -- delegations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"delegate": "dora", "ends": days(-1)}, "bad-dates"),
        ({"delegate": "dora", "starts": days(2), "ends": days(1)}, "bad-dates"),
        ({"delegate": "dora", "starts": days(-2), "ends": days(-1)}, "bad-dates"),
        ({"delegate": "dora", "ends": days(91)}, "bad-dates"),
        ({"delegate": "dora", "starts": days(-60), "ends": days(31)}, "bad-dates"),
        ({"delegate": "ben", "ends": days(1)}, "own-delegate"),
        ({"delegate": "dora", "ends": "2030-01-01T00:00:00"}, "invalid-request"),  # of which time zone?
        ({"delegate": "dora", "ends": "soon"}, "invalid-request"),
        ({"delegate": "", "ends": days(1)}, "invalid-request"),
        ({"delegate": "dora"}, "invalid-request"),
        ({"ends": days(1)}, "invalid-request"),
        ({"delegate": "dora", "ends": days(1), "reason": "x" * 2001}, "invalid-request"),
        ({"delegate": "dora", "ends": days(1), "depth": 2}, "invalid-request"),
    ],
)
async def test_delegations_with_mistakes(approval: Harness, body: dict[str, Any], code: str) -> None:
    before = good(await approval.ben.get("/v1/delegations"))
    assert problem(await approval.ben.post("/v1/delegations", json=body)) == (422, code)
    assert good(await approval.ben.get("/v1/delegations")) == before


async def test_delegations_are_listed_to_both_and_ended_by_whom_they_concern(approval: Harness) -> None:
    uma, dirk, admin = approval.client("uma", "reviewers"), approval.client("dirk", "ml-engineers"), approval.admin
    body = {"delegate": "dirk", "ends": days(7), "reason": "holidays"}
    made = await uma.post("/v1/delegations", json=body)
    first = good(made)
    assert (made.status_code, first["delegator"], first["delegate"], first["ended_at"]) == (201, "uma", "dirk", None)
    second = good(await admin.post("/v1/delegations", json={**body, "delegator": "uma", "starts": days(1)}))
    assert second["delegator"] == "uma"
    for client in (uma, dirk):
        assert good(await client.get("/v1/delegations")) == {"items": [second, first], "next": None}
    assert good(await approval.ana.get("/v1/delegations"))["items"] == []
    everybodys = good(await admin.get("/v1/delegations", params={"of": "all"}))["items"]
    assert [one for one in everybodys if one["delegator"] == "uma"] == [second, first]

    stranger, one, two = approval.ana, f"/v1/delegations/{first['delegation_id']}", second["delegation_id"]
    assert problem(await stranger.delete(one)) == (403, "forbidden")
    assert problem(await stranger.get("/v1/delegations", params={"of": "all"})) == (403, "forbidden")
    assert problem(await stranger.get("/v1/delegations", params={"of": "uma"})) == (422, "invalid-request")
    assert problem(await stranger.post("/v1/delegations", json={**body, "delegator": "uma"})) == (403, "forbidden")
    assert problem(await uma.delete("/v1/delegations/unknown")) == (404, "delegation-not-found")
    bot = approval.client("bot", "reviewers", kind="service")
    assert problem(await bot.post("/v1/delegations", json=body)) == (403, "service-account")

    ended = good(await dirk.delete(one))
    assert (ended["ended_by"], ended["ended_at"] is None) == ("dirk", False)
    assert good(await uma.delete(one)) == ended  # it is over; doing it again does nothing
    assert good(await admin.delete(f"/v1/delegations/{two}"))["ended_by"] == "root"


async def test_a_delegate_is_told_for_whom_they_may_vote(approval: Harness) -> None:
    await approval.publish_policy(POLICY % {"name": "lent"})
    request = await asked(approval, "lent")
    url, dean = f"/v1/requests/{request['request_id']}", approval.client("dean", "leads")
    waiting = {"view": "needs-me", "model": "lent"}
    assert good(await dean.get("/v1/requests", params=waiting))["items"] == []
    for who, groups, until in (("rosa", "reviewers", 7), ("rolf", "risk", 7), ("rudi", "reviewers", 60)):
        lender = approval.client(who, groups)
        made = good(await lender.post("/v1/delegations", json={"delegate": "dean", "ends": days(until)}))
    you = good(await dean.get(url))["you"]
    # Not for rolf, whom nobody asks; nor for rudi, whose delegation is longer than the policy allows.
    assert (you["may_vote"], you["code"], you["on_behalf_of"]) == (True, "not-an-approver", ["rosa"])
    [item] = good(await dean.get("/v1/requests", params=waiting))["items"]
    assert item["request_id"] == request["request_id"]
    too_long = await approval.vote(dean, request["request_id"], "approve", on_behalf_of=made["delegator"])
    assert problem(too_long) == (403, "delegation-too-long")
    found = good(await approval.vote(dean, request["request_id"], "approve", on_behalf_of="rosa"))
    assert [(vote["voter"], vote["on_behalf_of"]) for vote in found["votes"]] == [("dean", "rosa")]
    assert (found["you"]["voted"], found["you"]["on_behalf_of"]) == (True, [])
    rosa = good(await approval.client("rosa", "reviewers").get(url))["you"]
    assert (rosa["may_vote"], rosa["code"]) == (False, "already-voted")
    assert good(await dean.get("/v1/requests", params=waiting))["items"] == []


@pytest.mark.parametrize("why", ["voted", "asked", "forbidden"])
async def test_the_inbox_of_a_delegate_leaves_out_what_the_delegator_may_not_vote_on(
    approval: Harness, why: str
) -> None:
    await approval.publish_policy(POLICY % {"name": "lent"})
    model, lender, deputy = f"lent-{why}", approval.client(f"lu-{why}", "reviewers"), f"del-{why}"
    good(await lender.post("/v1/delegations", json={"delegate": deputy, "ends": days(7)}))
    given: dict[str, Any] = {"by": f"lu-{why}"} if why == "asked" else {}
    # The policy for Production that ships with the service lets nobody vote for somebody else.
    request = await asked(approval, model, **given, **({"to": Stage.PRODUCTION} if why == "forbidden" else {}))
    if why == "voted":
        good(await approval.vote(lender, request["request_id"], "approve"))
    delegate = approval.client(deputy, "leads")
    assert good(await delegate.get(f"/v1/requests/{request['request_id']}"))["you"]["may_vote"] is False
    found = good(await delegate.get("/v1/requests", params={"view": "needs-me", "model": model}))
    assert found["items"] == []


# -- members ---------------------------------------------------------------------------------------------------------


async def test_members_are_told_by_the_directory(approval: Harness) -> None:
    mia, url = approval.client("mia", "reviewers", "risk"), "/v1/members/mia"
    assert problem(await mia.get(url)) == (404, "member-not-found")
    good(await mia.post("/v1/delegations", json={"delegate": "dora", "ends": days(1)}))
    seen = good(await mia.get(url))
    assert (seen["groups"], seen["person"], seen["told_by"]) == (["reviewers", "risk"], True, "token of mia")
    told = good(await approval.admin.put(url, json={"groups": ["risk", "leads"]}))
    assert (told["groups"], told["person"], told["told_by"]) == (["risk"], True, "root")  # it takes away only
    assert good(await mia.get(url)) == told == good(await approval.admin.get(url))
    machine = good(await approval.admin.put("/v1/members/mill", json={"groups": ["risk"], "person": False}))
    assert (machine["groups"], machine["person"]) == ([], False)  # no token of theirs has come yet
    for own in ("root", "ROOT"):
        answer = await approval.admin.put(f"/v1/members/{own}", json={"groups": ["admins", "reviewers"]})
        assert problem(answer) == (403, "own-membership")
    for client in (
        approval.ben,
        approval.client("olga", "oncall"),
        approval.client("bot", "reviewers", kind="service"),
    ):
        assert problem(await client.get(url)) == (403, "forbidden")
        assert problem(await client.put(url, json={"groups": ["admins"]})) == (403, "forbidden")
    assert problem(await mia.put(url, json={"groups": ["admins"]})) == (403, "forbidden")
    assert good(await mia.get(url)) == told


async def test_the_inbox_goes_by_what_the_directory_told(approval: Harness) -> None:
    await approval.publish_policy(POLICY % {"name": "lent"})
    nils = approval.client("nils", "reviewers")
    await asked(approval, "lent-told")
    waiting = {"view": "needs-me", "model": "lent-told"}
    assert len(good(await nils.get("/v1/requests", params=waiting))["items"]) == 1
    good(await approval.admin.put("/v1/members/nils", json={"groups": ["risk"]}))
    assert good(await nils.get("/v1/requests", params=waiting))["items"] == []
    bot = approval.client("bot", "reviewers", kind="service")
    assert good(await bot.get("/v1/requests", params=waiting))["items"] == []  # only people vote


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"groups": "risk"},
        {"groups": [""]},
        {"groups": ["a\nb"]},
        {"groups": ["g"] * 501},
        {"groups": [], "by": "x"},
    ],
)
async def test_members_with_mistakes(approval: Harness, body: dict[str, Any]) -> None:
    assert problem(await approval.admin.put("/v1/members/mona", json=body)) == (422, "invalid-request")
    assert problem(await approval.admin.get("/v1/members/mona")) == (404, "member-not-found")


@pytest.mark.parametrize(
    "subject",
    ["mx", "m@example.org", "m x", "мия", "urn:m?x", "oidc/m", "spiffe://corp/ns/m", "https://idp.example.org/m/", "/"],
)
async def test_members_go_by_any_subject_that_a_token_may_have(approval: Harness, subject: str) -> None:
    url = f"/v1/members/{quote(subject, safe='')}"
    member = approval.client(subject, "risk", "leads")
    good(await member.post("/v1/delegations", json={"delegate": "dora", "ends": days(1)}))
    assert good(await approval.admin.put(url, json={"groups": ["risk"]}))["subject"] == subject
    assert good(await member.get(url))["groups"] == ["risk"]


async def test_an_administrator_takes_no_right_of_somebody_else(approval: Harness) -> None:
    body = {"delegator": "rita", "ends": days(1)}
    good(await approval.admin.put("/v1/members/rita", json={"groups": ["risk"]}))
    for delegate in ("root", "ROOT"):
        answer = await approval.admin.post("/v1/delegations", json={**body, "delegate": delegate})
        assert problem(answer) == (403, "own-delegate")


async def test_a_viewer_votes_for_nobody(approval: Harness) -> None:
    await approval.publish_policy(POLICY % {"name": "lent"})
    request = await asked(approval, "lent-viewer")
    lender = approval.client("lisa", "reviewers")
    good(await lender.post("/v1/delegations", json={"delegate": "vic", "ends": days(1)}))
    viewer = approval.client("vic", "ml-engineers")
    answer = await approval.vote(viewer, request["request_id"], "approve", on_behalf_of="lisa")
    assert problem(answer) == (403, "not-an-approver")
    you = good(await viewer.get(f"/v1/requests/{request['request_id']}"))["you"]
    assert (you["may_vote"], you["on_behalf_of"]) == (False, [])


async def test_a_token_of_more_groups_than_can_be_recorded(approval: Harness) -> None:
    await approval.publish_policy(POLICY % {"name": "lent"})
    request = await asked(approval, "lent-groups")
    crowded = approval.client("gil", "reviewers", *(f"g{n}" for n in range(600)))
    assert problem(await approval.vote(crowded, request["request_id"], "approve")) == (403, "too-many-groups")
    assert good(await crowded.get(f"/v1/requests/{request['request_id']}"))["votes"] == []


# -- revocations -----------------------------------------------------------------------------------------------------


async def test_revocations_need_the_right_and_a_version(approval: Harness) -> None:
    for version in (1, 2):
        await approval.registry.register("recalled", version, accuracy=0.95)
    await asked(approval, "recalled")  # by then the versions have arrived
    olga = approval.client("olga", "oncall")
    body: dict[str, Any] = {"model": "recalled", "version": 2, "reason": "it leaks data"}
    for client in (approval.ana, approval.ben, approval.client("lea", "leads"), approval.client(*STRANGER)):
        assert problem(await client.post("/v1/revocations", json=body)) == (403, "forbidden")
    assert problem(await olga.post("/v1/revocations", json={**body, "version": 3})) == (404, "version-not-found")
    elsewhere = {**body, "workspace": "elsewhere"}
    assert problem(await olga.post("/v1/revocations", json=elsewhere)) == (404, "version-not-found")
    for fallback in (2, 3):
        refused = await olga.post("/v1/revocations", json={**body, "fallback": fallback})
        assert problem(refused) == (422, "bad-fallback")
    for change in (
        {"reason": ""},
        {"version": 0},
        {"version": "two"},
        {"model": "a/b"},
        {"workspace": "*"},
        {"by": "x"},
    ):
        wrong = await olga.post("/v1/revocations", json={**body, **change})
        assert problem(wrong) == (422, "invalid-request"), change
    made = await olga.post("/v1/revocations", json={**body, "fallback": 1})
    assert made.status_code == 201, made.text
    ordered = RevocationOrdered.model_validate(made.json())
    revocation: Revocation = ordered.revocation
    assert (revocation.revoked_by, revocation.version, revocation.fallback) == ("olga", 2, 1)
    said = await approval.event(lambda e: e.type == RevocationOrdered.TYPE and e.key == "default/recalled")
    assert said.payload(RevocationOrdered) == ordered
    revoked = VersionRevoked(
        workspace="default",
        model="recalled",
        version=2,
        digest=revocation.digest,
        revoked_by="olga",
        reason=revocation.reason,
        fallback=1,
        revocation=ordered.jws,
    )
    await approval.registry.publish(revoked, "recalled", 2)
    await approval.opened(await approval.registry.request("recalled"))  # it has arrived
    assert problem(await olga.post("/v1/revocations", json=body)) == (409, "version-revoked")
    back = {**body, "version": 1, "fallback": 2}
    assert problem(await olga.post("/v1/revocations", json=back)) == (422, "bad-fallback")
