"""People's own words: published by administrators, tried on past events, noted in deliveries, never in the way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from tests.support.receiver import Receiver

from notifier import views
from notifier.templating import Press, Templates

from .asking import As, code, made_by
from .conftest import Mailbox, Rig

SLACK = {"channel": "slack", "types": "hallmark.stage.*", "parts": {"text": "NEWS {{ event.model }} {{ data.reason }}"}}
MAIL = {
    "channel": "email",
    "types": "hallmark.stage.changed.v1",
    "parts": {
        "subject": "{{ event.model }} moved",
        "text": "{{ notice.headline }}",
        "html": "<p>{{ data.reason }}</p>",
    },
}


async def published(client: httpx2.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post("/v1/templates", json=body)
    assert response.status_code == 201, response.text
    document: dict[str, Any] = response.json()
    return document


@asynccontextmanager
async def sending(rig: Rig) -> AsyncIterator[None]:
    press = Press(5)
    try:
        async with rig.worker(templates=Templates(rig.db, press)):
            yield
    finally:
        await press.close()


async def test_events_go_out_in_the_words_of_a_template_and_deliveries_say_which(
    rig: Rig, ana: httpx2.AsyncClient, person: As, receiver: Receiver, mailbox: Mailbox
) -> None:
    root = person("root", "admins")
    assert (await published(root, SLACK))["revision"] == 1
    again = await published(root, {**SLACK, "parts": {"text": "OTHER {{ event.model }} {{ data.reason }}"}})
    assert (again["revision"], again["current"]) == (2, True)
    await published(root, MAIL)
    slack = await made_by(ana, channel="slack", address=f"{receiver.url}/slack")
    post = await made_by(ana, channel="email", address="ana@example.org")
    hook = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook")
    await rig.happens(rig.event(reason="<better>"))
    async with sending(rig):
        [to_slack] = await rig.all_done(slack, 1)
        [to_post] = await rig.all_done(post, 1)
        [to_hook] = await rig.all_done(hook, 1)
    assert (to_slack["template"], to_slack["template_error"]) == ("slack hallmark.stage.* r2", None)
    assert to_post["template"] == "email hallmark.stage.changed.v1 r1"
    assert to_hook["template"] is None
    [hit] = [hit for hit in receiver.hits if hit.path == "/slack"]
    assert hit.document["text"] == "OTHER churn &lt;better&gt;"
    [mail] = mailbox.mails
    assert mail["Subject"] == "churn moved"
    html = mail.get_body(("html",))
    assert html is not None
    assert "<p>&lt;better&gt;" in html.get_content()


async def test_other_channels_have_words_too_and_events_stay_what_they_are(
    rig: Rig, ana: httpx2.AsyncClient, person: As, receiver: Receiver
) -> None:
    root, address = person("root", "admins"), f"{receiver.url}/teams"
    for channel in ("teams", "webhook"):
        text = f"{channel.upper()} {{{{ data.reason }}}}\nsecond line"
        await published(root, {**SLACK, "channel": channel, "parts": {"text": text}})
    made = [
        await made_by(ana, channel="teams", address=address),
        await made_by(ana, channel="webhook", address=f"{receiver.url}/text", format="slack"),
        await made_by(ana, channel="webhook", address=f"{receiver.url}/event"),
    ]
    await rig.happens(rig.event(reason="<better>"))
    async with sending(rig):
        done = [(await rig.all_done(one, 1))[0] for one in made]
    assert [d["template"] for d in done] == ["teams hallmark.stage.* r1", "webhook hallmark.stage.* r1", None]
    sent = {hit.path: hit.document for hit in receiver.hits}
    lines = sent["/teams"]["attachments"][0]["content"]["body"]
    assert [line["inlines"][0]["text"] for line in lines[:2]] == ["TEAMS <better>", "second line"]
    assert sent["/text"] == {"text": "WEBHOOK &lt;better&gt;\nsecond line"}
    assert sent["/event"]["data"]["reason"] == "<better>"


async def test_a_template_that_fails_is_noted_and_the_built_in_words_are_sent(
    rig: Rig, ana: httpx2.AsyncClient, person: As, receiver: Receiver
) -> None:
    await published(person("root", "admins"), {**SLACK, "parts": {"text": "{{ data.nothing.at.all }}"}})
    slack = await made_by(ana, channel="slack", address=f"{receiver.url}/slack")
    await rig.happens(rig.event())
    async with sending(rig):
        [done] = await rig.all_done(slack, 1)
    assert done["status"] == "succeeded"
    assert (done["template"], "nothing" in done["template_error"]) == ("slack hallmark.stage.* r1", True)
    assert "churn: v2 is now in Production" in receiver.hits[0].document["text"]


async def test_a_withdrawn_template_leaves_the_built_in_words_and_its_revisions(
    rig: Rig, ana: httpx2.AsyncClient, person: As, receiver: Receiver
) -> None:
    root = person("root", "admins")
    await published(root, SLACK)
    await published(root, SLACK)  # the same again is no revision
    params = {"channel": "slack", "types": "hallmark.stage.*"}
    assert code(await ana.delete("/v1/templates", params=params)) == "forbidden"
    for _ in range(2):
        assert (await root.delete("/v1/templates", params=params)).status_code == 204
    assert (await ana.get("/v1/templates")).json()["items"] == []
    [kept] = (await ana.get("/v1/templates?every=true")).json()["items"]
    assert (kept["revision"], kept["current"]) == (1, False)
    assert (await published(root, SLACK))["revision"] == 2
    slack = await made_by(ana, channel="slack", address=f"{receiver.url}/slack")
    dump = sa.text("select * from notifier.template order by 1, 2, 3, 4")
    async with rig.db.transaction() as tx:
        before = (await tx.execute(dump)).all()
        assert await views.rebuild(tx, rig.log) == 5
        assert (await tx.execute(dump)).all() == before
    assert slack["status"] == "active"


@pytest.mark.parametrize(
    ("body", "expected", "says"),
    [
        ({**SLACK, "parts": {"text": "{{ notice.headline"}}, "bad-template", "unexpected"),
        ({**SLACK, "parts": {"text": "{{ secret }}"}}, "bad-template", "no secret"),
        ({**SLACK, "parts": {"html": "x"}}, "template-parts", "no part html"),
        ({**MAIL, "parts": {"text": "x"}}, "template-parts", "subject"),
        ({**SLACK, "types": "hallmark.nothing.*"}, "unknown-type", "known are"),
        ({**SLACK, "channel": "pigeon"}, "invalid-request", "channel"),
        ({**SLACK, "channel": "teams", "parts": {"text": "x", "subject": "y"}}, "template-parts", "no part subject"),
        ({**SLACK, "parts": {"text": "x" * 20_001}}, "invalid-request", "parts"),
    ],
)
async def test_a_bad_template_is_refused(rig: Rig, person: As, body: dict[str, Any], expected: str, says: str) -> None:
    response = await person("root", "admins").post("/v1/templates", json=body)
    assert (response.status_code, code(response)) == (422, expected), response.text
    assert says in response.json()["detail"]
    async with rig.db.snapshot() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.event")) == 0


async def test_a_preview_is_of_a_real_event_that_its_caller_may_read(
    rig: Rig, ana: httpx2.AsyncClient, person: As
) -> None:
    assert code(await ana.post("/v1/templates", json=SLACK)) == "forbidden"
    assert code(await ana.post("/v1/templates/preview", json=SLACK)) == "no-such-event"
    older, newer = rig.event(model="fraud-eu", reason="one"), rig.event(reason="two")
    await rig.happens(older, newer)
    made = (await ana.post("/v1/templates/preview", json=SLACK)).json()
    assert (made["event_id"], made["parts"]) == (newer.id, {"text": "NEWS churn two"})
    chosen = (await ana.post("/v1/templates/preview", json={**SLACK, "event_id": older.id})).json()
    assert chosen["parts"] == {"text": "NEWS fraud-eu one"}
    fay = person("fay", "fraud-team")
    assert (await fay.post("/v1/templates/preview", json=SLACK)).json()["event_id"] == older.id
    theirs = await fay.post("/v1/templates/preview", json={**SLACK, "event_id": newer.id})
    assert code(theirs) == "no-such-event"
