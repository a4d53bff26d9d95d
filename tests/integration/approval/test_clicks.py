"""Votes by a click in Slack, as Slack sends them: form bodies over HTTP, signed with Slack's own library.

The two of acceptance test (h) of notifications are named by it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from slack_sdk.signature import Clock, SignatureVerifier
from tests.integration.approval.conftest import SLACK_SECRET, Direct, Document, Harness
from tests.integration.approval.surface import asked, good, problem
from tests.support.receiver import Receiver

from approval import views
from approval.clicks import Clicks
from approval.keyring import Keyring, published
from approval.tables import mechanism
from contracts.approval import Choice, RequestDecided
from contracts.slack import Button, account_of, read_button
from kit.inbox import Inbox
from policy.judge import judge

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
POLICY = """
kind: PromotionPolicy
metadata: {name: %(name)s}
spec:
  match: {transition: {to: Archived}, models: ['%(name)s*']}
  approvals:
    rules: [{id: review, meaning: I reviewed it, from: ['group:reviewers'], count: 2}]
    signature: %(signature)s
"""
TEAM, UBEN = "T0001", "U2CERLKJA"
DIGEST = f"sha256:{'a' * 64}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slack(approval: Harness) -> AsyncIterator[Harness]:
    """Policies for models called `clicks...` (which take Slack), `silent...` and `fresh...` (which do not)."""
    await approval.publish_policy(POLICY % {"name": "clicks", "signature": "{methods: [token, slack]}"})
    await approval.publish_policy(POLICY % {"name": "silent", "signature": "{}"})
    await approval.publish_policy(
        POLICY % {"name": "fresh", "signature": "{methods: [token, slack], reauthenticate_within: 5m}"}
    )
    yield approval


@pytest.fixture
def told() -> Iterator[Receiver]:
    """Where Slack takes what is said to whoever clicked."""
    server = Receiver()
    yield server
    server.stop()


def by_slack(approval: Harness) -> httpx2.AsyncClient:
    """Slack calls without a token."""
    client = approval.client("nobody")
    del client.headers["authorization"]
    return client


def signed(body: str, *, secret: str = SLACK_SECRET, ago: int = 0) -> dict[str, str]:
    stamp = str(int(Clock().now()) - ago)
    signature = SignatureVerifier(secret).generate_signature(timestamp=stamp, body=body)
    kind = "application/x-www-form-urlencoded"
    return {"x-slack-request-timestamp": stamp, "x-slack-signature": str(signature), "content-type": kind}


def click_of(request: Document, told: Receiver, choice: str = "approve", user: str = UBEN, **given: Any) -> str:
    """The body of one click. Each has a `trigger_id` of its own."""
    button = Button(Choice(choice), given.get("digest") or request["request_digest"], request["request_id"])
    comment = {"comment": {"hallmark-comment": {"type": "plain_text_input", "value": given.get("comment")}}}
    payload = {
        "type": "block_actions",
        "api_app_id": "A02",
        "team": {"id": TEAM, "domain": "workspace"},
        "user": {"id": user, "username": given.get("username", "ben"), "name": "ben", "team_id": TEAM},
        "trigger_id": given.get("trigger", "12466734323.1395872398"),
        "container": {"type": "message", "message_ts": "1548261231.000200", "channel_id": "CBR2V3XEX"},
        "response_url": f"{told.url}/actions/T0001/1/2",
        "state": {"values": comment},
        "actions": [
            {"action_id": f"hallmark-vote-{choice}", "block_id": "b", "type": "button", "value": button.value()}
        ],
    }
    return urlencode({"payload": json.dumps(payload)})


async def click(approval: Harness, body: str, **options: Any) -> httpx2.Response:
    return await by_slack(approval).post("/v1/slack/interactivity", content=body, headers=signed(body, **options))


async def says(approval: Harness, text: str, user: str = UBEN) -> str:
    """What `/hallmark TEXT` is answered."""
    body = urlencode({"command": "/hallmark", "text": text, "team_id": TEAM, "user_id": user, "user_name": "ben"})
    response = await by_slack(approval).post("/v1/slack/commands", content=body, headers=signed(body))
    answer = good(response)
    assert answer["response_type"] == "ephemeral"
    return str(answer["text"])


async def linked(approval: Harness, subject: str = "ben", user: str = UBEN) -> None:
    await says(approval, "unlink", user)
    code = good(await approval.client(subject, "reviewers").post("/v1/slack/codes"))
    assert (await says(approval, code["say"].removeprefix("/hallmark "), user)).startswith("Linked")


def said(told: Receiver) -> list[str]:
    return [str(hit.document["text"]) for hit in told.hits]


async def votes(approval: Harness, request: Document) -> list[Document]:
    found = good(await approval.ana.get(f"/v1/requests/{request['request_id']}"))
    return list(found["votes"])


async def test_h_a_click_that_is_replayed_six_minutes_later_is_refused(
    slack: Harness, told: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await linked(slack)
    request = await asked(slack, "clicks-replayed")
    body = click_of(request, told)
    headers = signed(body)
    client = by_slack(slack)
    assert (await client.post("/v1/slack/interactivity", content=body, headers=headers)).status_code == 200
    [vote] = await votes(slack, request)
    assert (vote["voter"], vote["choice"], vote["auth_method"]) == ("ben", "approve", "slack")
    assert said(told) == ["Recorded: you approve it. It waits for others still."]
    taken = await slack.ben.delete(f"/v1/requests/{request['request_id']}/votes")
    assert taken.status_code == 200
    # Within the five minutes Slack's signature is still good: the click itself is known.
    assert (await client.post("/v1/slack/interactivity", content=body, headers=headers)).status_code == 200
    assert (await votes(slack, request), len(told.hits)) == ([], 1)
    now = Clock().now
    monkeypatch.setattr(Clock, "now", lambda self: now() + 360)
    late = await client.post("/v1/slack/interactivity", content=body, headers=headers)
    assert problem(late) == (401, "not-slack")
    assert (await votes(slack, request), len(told.hits)) == ([], 1)


async def test_h_a_double_click_is_one_vote(slack: Harness, told: Receiver) -> None:
    await linked(slack)
    request = await asked(slack, "clicks-double")
    bodies = [click_of(request, told, trigger=f"t{n}") for n in range(5)]
    answers = await asyncio.gather(*(click(slack, body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await votes(slack, request)) == 1
    comment = await slack.ben.post(f"/v1/requests/{request['request_id']}/comments", json={"text": "looked"})
    assert comment.status_code == 200
    about = request["request_id"].encode()
    await slack.event(lambda e: e.type == "hallmark.request.commented.v1" and about in e.value)  # later in its stream
    heard = {e.id for e in slack.heard if e.type == "hallmark.vote.cast.v1" and about in e.value}
    assert len(heard) == 1
    assert said(told) == ["Recorded: you approve it. It waits for others still."] * 5


@pytest.mark.parametrize(
    "changed",
    [
        {"x-slack-signature": "v0=" + "0" * 64},
        {"x-slack-signature": "v0=\u00fc".encode("latin-1").decode("latin-1")},
        {"x-slack-signature": ""},
        {"x-slack-request-timestamp": "now"},
        {"x-slack-request-timestamp": ""},
        {"x-slack-request-timestamp": "1"},
    ],
)
async def test_what_slack_has_not_signed_is_refused(slack: Harness, told: Receiver, changed: dict[str, str]) -> None:
    request = await asked(slack, "clicks-forged")
    body = click_of(request, told)
    headers = {n.encode(): v.encode("latin-1") for n, v in (signed(body) | changed).items()}
    for path in ("/v1/slack/interactivity", "/v1/slack/commands"):
        response = await by_slack(slack).post(path, content=body, headers=headers)
        assert problem(response) == (401, "not-slack")
    other = await click(slack, body, secret="another")
    assert problem(other) == (401, "not-slack")
    assert problem(await click(slack, body, ago=360)) == (401, "not-slack")
    assert (await votes(slack, request), told.hits) == ([], [])


@pytest.mark.parametrize("body", ["payload=no+json", "payload=%5B%5D", "nothing=here", ""])
async def test_a_form_that_is_no_click_is_refused(slack: Harness, body: str) -> None:
    assert problem(await click(slack, body)) == (400, "bad-form")


async def test_an_account_that_nobody_linked_votes_for_nobody(slack: Harness, told: Receiver) -> None:
    """Whatever it calls itself: no name and no address links it."""
    request = await asked(slack, "clicks-stranger")
    await click(slack, click_of(request, told, user="U9STRANGER", username="ben"))
    assert await votes(slack, request) == []
    [text] = said(told)
    assert text.startswith(
        "This Slack account is linked to nobody in Hallmark. Say `/hallmark link CODE` with the code"
    )


async def test_a_policy_that_does_not_name_slack_takes_no_click(slack: Harness, told: Receiver) -> None:
    await linked(slack)
    for model in ("silent-a", "fresh-a"):
        request = await asked(slack, model)
        await click(slack, click_of(request, told))
        assert await votes(slack, request) == []
        [text] = said(told)
        assert text.startswith("Not recorded: the policy takes no votes by Slack; sign in to vote. Vote at ")
        assert f"https://console.example/requests/{request['request_id']}" in text
        assert f"`hallmark request approve {request['request_id']}`" in text
        told.hits.clear()


async def test_a_click_binds_to_what_was_shown_and_a_rejection_needs_its_reason(slack: Harness, told: Receiver) -> None:
    await linked(slack)
    request = await asked(slack, "clicks-bound")
    await click(slack, click_of(request, told, digest=f"sha256:{'0' * 64}"))
    assert said(told)[-1].startswith("Not recorded: this is not the request you saw")
    await click(slack, click_of(request, told, "reject"))
    assert said(told)[-1].startswith("Not recorded: say in 'comment' why you reject.")
    assert await votes(slack, request) == []
    await click(slack, click_of(request, told, "reject", comment="the data is old"))
    assert said(told)[-1] == "Recorded: you reject it. The request is rejected now."
    [vote] = await votes(slack, request)
    assert (vote["choice"], vote["comment"]) == ("reject", "the data is old")


async def test_a_code_links_one_account_once(slack: Harness) -> None:
    await says(slack, "unlink")
    code = good(await slack.ben.post("/v1/slack/codes"))["say"].removeprefix("/hallmark ")
    assert (await says(slack, "link 22222-22222")).startswith("There is no such code")
    assert (await says(slack, "")).startswith("Say `/hallmark link CODE`")
    assert await says(slack, code) == "Linked: what you click here counts as ben's, where policies allow it."
    assert (await says(slack, code, "U9STRANGER")).startswith("There is no such code")
    other = good(await slack.client("eve", "reviewers").post("/v1/slack/codes"))["say"].removeprefix("/hallmark ")
    assert await says(slack, other) == "This account acts for ben already; `/hallmark unlink` ends it."
    assert good(await slack.ben.delete("/v1/slack/accounts")) == {"accounts": 1}
    assert good(await slack.ben.delete("/v1/slack/accounts")) == {"accounts": 0}
    assert await says(slack, "unlink") == "This account is linked to nobody."
    linked = await slack.event(lambda e: e.type == "hallmark.account.linked.v1")
    assert json.loads(linked.value)["account"] == account_of(TEAM, UBEN)
    assert UBEN.encode() not in linked.value
    machine = slack.client("robot", "reviewers", kind="service")
    assert problem(await machine.post("/v1/slack/codes")) == (403, "not-a-person")


@pytest.mark.asyncio(loop_scope="function")
async def test_accounts_are_a_fold_and_codes_and_knowledge_grow_old(direct: Direct) -> None:
    clicks = Clicks(direct.parts.desk, direct.parts.people, Inbox(mechanism), SLACK_SECRET, None)
    form = {"team_id": TEAM, "user_id": UBEN}
    ben = await direct.person("ben", "reviewers")
    old, _ = await clicks.code(ben)
    await direct.later(minutes=11)
    assert (await clicks.command(form | {"text": f"link {old}"})).startswith("There is no such code")
    first, _ = await clicks.code(ben)
    second, _ = await clicks.code(ben)
    assert (await clicks.command(form | {"text": f"link {first}"})).startswith("There is no such code")
    assert (await clicks.command(form | {"text": f"link {second.lower()}"})).startswith("Linked")
    third, _ = await clicks.code(await direct.person("eve", "reviewers"))
    assert (await clicks.command({**form, "user_id": "UEVE", "text": f"link {third}"})).startswith("Linked")
    assert await clicks.unlink("eve") == 1
    dump = sa.text("select * from approval.account order by 1")
    async with direct.db.transaction() as tx:
        before = (await tx.execute(dump)).all()
        await views.rebuild(tx, direct.parts.desk.log)
        assert (await tx.execute(dump)).all() == before
    assert [(row.account, row.subject) for row in before] == [(account_of(TEAM, UBEN), "ben")]
    async with direct.db.transaction() as tx:
        at = await direct.parts.desk.clock(tx)
        known = await direct.parts.directory.clicking(tx, "ben", ("default", "churn"), at)
        assert known.groups == frozenset({"reviewers"})  # type: ignore[union-attr]
    await direct.later(days=31)
    async with direct.db.transaction() as tx:
        at = await direct.parts.desk.clock(tx)
        stale = await direct.parts.directory.clicking(tx, "ben", ("default", "churn"), at)
        assert stale.code == "authentication-too-old"  # type: ignore[union-attr]


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize(
    "value", ["", "approve", "approve|x|r", f"maybe|sha256:{'a' * 64}|r", f"approve|sha256:{'a' * 64}|"]
)
async def test_a_button_says_three_things(value: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_button(value)
    button = Button(Choice.REJECT, DIGEST, "r|1")
    assert read_button(button.value()) == button


async def test_a_decision_that_rests_on_a_click_verifies_like_any_other(slack: Harness, told: Receiver) -> None:
    """Its record is judged again without the service: the vote's method is one that the policy names."""
    await linked(slack)
    request = await asked(slack, "clicks-decided")
    await click(slack, click_of(request, told))
    cy = slack.client("cy", "reviewers")
    assert (await slack.vote(cy, request["request_id"], "approve")).json()["status"] == "approved"
    record = good(await slack.ana.get(f"/v1/requests/{request['request_id']}/record"))
    assert sorted(vote["auth_method"] for vote in record["decision"]["votes"]) == ["slack", "token"]
    found = judge(RequestDecided.model_validate(record), published(Keyring(slack.settings.decision_key)))
    assert found.ok, [(check.name, check.text) for check in found.failed]


async def test_two_who_unlink_at_once_are_one_event(slack: Harness) -> None:
    await linked(slack)
    answers = await asyncio.gather(*(slack.ben.delete("/v1/slack/accounts") for _ in range(4)))
    assert sorted(good(answer)["accounts"] for answer in answers) == [0, 0, 0, 1]
