"""What anybody with a token might do very often, and lists that are longer than a page."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from tests.integration.approval.conftest import Direct
from tests.integration.approval.surface import problem
from tests.integration.approval.test_features import REVIEW, RISK, approvals, asked, delegating, document, only

from approval import api, people
from approval.api.requests import MOST_DELEGATORS
from contracts.envelope import now
from kit import problems
from kit.keys import ensure_key, make_token
from kit.web import Guard

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
Open = Callable[..., httpx2.AsyncClient]


@pytest.fixture
def http(only: Direct) -> Open:
    """Clients of the routes of requests, policies and people."""
    parts, guard, app = only.parts, Guard(only.settings), FastAPI()
    callers = api.Callers(guard, parts.desk)
    problems.install(app)
    app.include_router(api.requests(parts.desk, callers, parts.people, parts.emergencies, parts.revisions))
    app.include_router(api.policies(parts.desk, callers, parts.revisions))
    app.include_router(api.people(parts.desk, callers, parts.directory))
    key = ensure_key(only.settings.access_file.parent, "auth")

    def client(subject: str, *groups: str) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {make_token(key, subject, [*groups])}"}
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://approval", headers=headers)

    return client


async def statements(direct: Direct, client: httpx2.AsyncClient, url: str) -> tuple[dict[str, Any], int]:
    """An answer, and how many statements it took."""
    heard: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        heard.append(statement)

    engine = direct.db.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        return (await client.get(url)).json(), len(heard)
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


async def pages(client: httpx2.AsyncClient, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    after: dict[str, str] = {}
    while True:
        response = await client.get(path, params={**query, **after})
        assert response.status_code == 200, response.text
        found.append(response.json()["items"])
        if response.json()["next"] is None:
            return found
        after = {"after": response.json()["next"]}


# -- delegations ---------------------------------------------------------------------------------------------------


async def test_who_may_vote_nowhere_delegates_nothing(http: Open) -> None:
    body = {"delegate": "rita", "ends": (now() + timedelta(days=3)).isoformat()}
    for who, group in (("sven", "nobodies"), ("gus", "guests"), ("ana", "ml-engineers"), ("otto", "oncall")):
        assert problem(await http(who, group).post("/v1/delegations", json=body)) == (403, "forbidden")
    assert (await http("ben", "reviewers").post("/v1/delegations", json=body)).status_code == 201
    by_root = {**body, "delegator": "gus"}
    assert (await http("root", "admins").post("/v1/delegations", json=by_root)).status_code == 201


async def test_many_delegations_make_reading_a_request_no_slower(only: Direct, http: Open) -> None:
    await only.publish(document(**approvals(REVIEW, delegation={"allowed": True, "max": "14d"})))
    url = f"/v1/requests/{await asked(only)}"
    for days in (5, 6, 7):
        await delegating(only, "ben", "reviewers", to="dora", days=days)
    found, once = await statements(only, http("dora", "leads"), url)
    assert (found["you"]["may_vote"], found["you"]["on_behalf_of"]) == (True, ["ben"])
    for n in range(MOST_DELEGATORS + 5):
        await delegating(only, f"ben-{n}", "reviewers", to="dora")
    found, many = await statements(only, http("dora", "leads"), url)
    latest = [f"ben-{n}" for n in reversed(range(5, MOST_DELEGATORS + 5))]
    assert found["you"]["on_behalf_of"] == latest
    assert many - once <= 3 * (MOST_DELEGATORS - 1)


@pytest.mark.parametrize(
    "given",
    [
        {"ends": "9999-12-31T23:59:59-14:00"},
        {"ends": "0001-01-01T00:00:00+14:00"},
        {"starts": "0001-01-01T00:00:00+14:00"},
        {"starts": "9999-12-31T23:59:59-14:00"},
    ],
)
async def test_dates_that_are_none_in_utc_are_refused(http: Open, given: dict[str, str]) -> None:
    body = {"delegate": "rita", "ends": (now() + timedelta(days=3)).isoformat(), **given}
    assert problem(await http("ben", "reviewers").post("/v1/delegations", json=body)) == (422, "invalid-request")


async def test_delegations_come_in_pages(only: Direct, http: Open) -> None:
    for n in range(7):
        await delegating(only, "ben", "reviewers", to=f"dora-{n}")
        await delegating(only, f"bo-{n}", "reviewers", to="ben")
    ben = http("ben", "reviewers")
    found = await pages(ben, "/v1/delegations", limit=3)
    assert [len(page) for page in found] == [3, 3, 3, 3, 2]
    times = [one["granted_at"] for page in found for one in page]
    assert times == sorted(times, reverse=True)
    assert len({one["delegation_id"] for page in found for one in page}) == 14
    everybodys = await pages(http("root", "admins"), "/v1/delegations", of="all", limit=5)
    assert [one for page in everybodys for one in page] == [one for page in found for one in page]
    unknown = await ben.get("/v1/delegations", params={"after": "nonsense"})
    assert problem(unknown) == (404, "delegation-not-found")


# -- policies ------------------------------------------------------------------------------------------------------


async def test_policies_and_their_revisions_come_in_pages(only: Direct, http: Open) -> None:
    for n in range(5):
        await only.publish(document(f"many-{n}", **approvals(RISK)))
        await only.publish(document("often", **approvals({**RISK, "count": n + 1})))
    ana = http("ana", "ml-engineers")
    found = await pages(ana, "/v1/policies", limit=2)
    names = [one["name"] for page in found for one in page]
    assert names == sorted({*names})
    assert {"often", "production", *(f"many-{n}" for n in range(5))} <= {*names}
    assert {one["name"]: one["revision"] for page in found for one in page}["often"] == 5
    revisions = await pages(ana, "/v1/policies", name="often", limit=2)
    assert [[one["revision"] for one in page] for page in revisions] == [[5, 4], [3, 2], [1]]
    for after in ("nonsense", "-1", "", "9" * 20):
        response = await ana.get("/v1/policies", params={"name": "often", "after": after})
        assert problem(response) == (422, "invalid-request")


# -- requests ------------------------------------------------------------------------------------------------------


async def test_a_refusal_is_recorded_once_for_each_reason(only: Direct, http: Open) -> None:
    await only.publish(document(**approvals(REVIEW)))
    request = await asked(only)
    async with http("vic", "leads") as vic:
        for n in range(10):
            body = {"choice": ("approve", "reject")[n % 2], "comment": f"{n}", "on_behalf_of": f"somebody-{n}"}
            assert problem(await vic.post(f"/v1/requests/{request}/votes", json=body)) == (403, "no-delegation")
        for _ in range(2):
            voted = await vic.post(f"/v1/requests/{request}/votes", json={"choice": "approve"})
            assert problem(voted) == (403, "not-an-approver")
    refusals = (await only.request(request)).refusals
    assert [(one.voter, one.code) for one in refusals] == [("vic", "no-delegation"), ("vic", "not-an-approver")]


async def test_comments_have_an_end(only: Direct, http: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "MOST_COMMENTS", 3)
    url = f"/v1/requests/{await asked(only)}/comments"
    async with http("vic", "leads") as vic:
        for n in range(3):
            assert (await vic.post(url, json={"text": f"{n}"})).status_code == 200
        assert problem(await vic.post(url, json={"text": "3"})) == (409, "too-many-comments")
        assert (await vic.post(url, json={"text": "2"})).status_code == 200  # the answer to it was lost


async def test_who_comments_on_a_change_of_policy_has_some_role(only: Direct, http: Open) -> None:
    proposed = await only.parts.revisions.propose(document("zz", **approvals(RISK)), "root", "x")
    assert proposed.request is not None
    url = f"/v1/requests/{proposed.request.request_id}/comments"
    assert problem(await http("sven").post(url, json={"text": "hi"})) == (403, "forbidden")
    assert (await http("gus", "guests").post(url, json={"text": "hi"})).status_code == 200


async def test_to_take_a_request_back_one_must_be_allowed_to_read_it(only: Direct, http: Open) -> None:
    url = f"/v1/requests/{await asked(only)}/withdraw"
    assert problem(await http("gus", "guests").post(url)) == (403, "forbidden")
    assert problem(await http("ana", "ml-engineers").post(url))[0] == 409
    assert problem(await http("gus", "guests").post("/v1/requests/unknown/withdraw")) == (404, "request-not-found")


@pytest.mark.parametrize("view", ["all", "asked", "needs-me"])
async def test_a_page_after_a_request_that_is_not_known_is_refused(http: Open, view: str) -> None:
    response = await http("ben", "reviewers").get("/v1/requests", params={"view": view, "after": "nonsense"})
    assert problem(response) == (404, "request-not-found")
