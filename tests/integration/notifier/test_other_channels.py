"""PagerDuty, Teams, Apprise and the formats of other registries, from the subscription to a real HTTP receiver."""

import hashlib
import hmac
import json

import httpx2
import pytest
import sqlalchemy as sa
from tests.support.receiver import Hit, Receiver

from contracts.notifier import Channel, Format
from kit.outbound import Guard
from notifier import app, telling

from .asking import As, code, made_by
from .conftest import Rig

KEY = "R0UT1NGK3Y" + "a" * 22


async def test_an_incident_reaches_pagerduty_under_its_key(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = lambda _: (202, {}, b'{"status": "success"}')
    made = await made_by(ana, channel="pagerduty", address=KEY, types=["hallmark.stage.*"])
    assert made["address"] == "pagerduty:****aaaa"
    settings = rig.settings.model_copy(update={"pagerduty_url": receiver.url})
    await rig.happens(rig.event())
    async with rig.worker(senders=app.senders(settings, Guard(settings.webhook_allow), rig.db)):
        (done,) = await rig.all_done(made, 1)
    assert done["status"] == "succeeded"
    (hit,) = receiver.hits
    assert hit.path == "/v2/change/enqueue"
    assert hit.document["routing_key"] == KEY
    assert not any(KEY.encode() in envelope.value for envelope in await rig.events(made))


async def test_pagerduty_pages_for_what_burns_by_default(ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="pagerduty", address=KEY)
    assert made["types"] == [
        "hallmark.glass.*",
        "hallmark.review.*",
        "hallmark.request.*",
        "hallmark.version.revoked.v1",
    ]


async def test_a_card_reaches_teams(rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver) -> None:
    receiver.answer = lambda _: 202
    made = await made_by(ana, channel="teams", address=f"{receiver.url}/workflows/a/triggers/manual?sig=s3cretsig")
    await rig.happens(rig.event())
    async with rig.worker():
        (done,) = await rig.all_done(made, 1)
    assert (done["status"], done["address"]) == ("succeeded", f"{receiver.url}/****")
    (hit,) = receiver.hits
    assert hit.document["attachments"][0]["content"]["type"] == "AdaptiveCard"


async def test_apprise_sends_and_our_queue_repeats(rig: Rig, receiver: Receiver) -> None:
    answers = iter([500, 200])
    receiver.answer = lambda _: next(answers)
    settings = rig.settings.model_copy(update={"apprise_schemes": ("json",)})
    rig.commands._destinations.apprise_schemes = ("json",)
    address = receiver.url.replace("http", "json", 1) + "/hook/s3cretpart"
    made = await rig.commands.subscribe("ana", Channel.APPRISE, address)
    assert made["address"] == "json://****"
    await rig.happens(rig.event())
    async with rig.worker(senders=app.senders(settings, Guard(settings.webhook_allow), rig.db)):
        (done,) = await rig.all_done(made, 1)
    assert (done["status"], done["attempts"]) == ("succeeded", 2)
    assert receiver.hits[-1].document["title"] == "churn: v2 is now in Production (was Staging)"
    async with rig.db.transaction() as tx:
        for table in ("event", "attempt", "delivery"):
            assert "s3cretpart" not in str((await tx.execute(sa.text(f"select t from notifier.{table} t"))).all())


async def test_a_webhook_in_the_format_of_databricks_gets_its_events_only(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    secret = "anyRandomString1"
    made = await made_by(
        ana,
        channel="webhook",
        format="databricks",
        address=f"{receiver.url}/db",
        secret=secret,
        types=["hallmark.stage.*"],
    )
    assert (made["format"], made["types"]) == (
        "databricks",
        ["hallmark.stage.changed.v1", "hallmark.stage.requested.v1"],
    )
    await rig.happens(rig.event())
    async with rig.worker():
        (done,) = await rig.all_done(made, 1)
    assert done["status"] == "succeeded"
    (hit,) = receiver.hits
    assert hit.document["event"] == "MODEL_VERSION_TRANSITIONED_STAGE"
    assert hit.headers["x-databricks-signature"] == hmac.new(secret.encode(), hit.body, hashlib.sha256).hexdigest()
    again = (await ana.get(f"/v1/subscriptions/{made['subscription_id']}")).json()
    assert again["format"] == "databricks"


@pytest.mark.parametrize(
    ("body", "expected", "says"),
    [
        ({"channel": "pagerduty", "address": "short"}, "address-refused", "32 letters"),
        ({"channel": "pagerduty", "address": KEY, "format": "mlflow"}, "format-not-used", "leave 'format' out"),
        (
            {"channel": "pagerduty", "address": KEY, "bundling": {"mode": "grouped"}},
            "channel-has-no-groups",
            "leave 'bundling' out",
        ),
        ({"channel": "teams", "address": "https://10.1.2.3/x"}, "address-refused", "not public"),
        ({"channel": "apprise", "address": "tgram://x"}, "address-refused", "HALLMARK_APPRISE_SCHEMES"),
        ({"channel": "webhook", "format": "xml"}, "invalid-request", "format"),
        (
            {"channel": "webhook", "format": "mlflow", "types": ["hallmark.stage.*"]},
            "type-not-in-format",
            "it has: hall",
        ),
        ({"channel": "webhook", "format": "mlflow", "secret": "short"}, "secret-refused", "16 or more"),
        ({"channel": "webhook", "format": "sagemaker", "secret": "anyRandomString1"}, "secret-refused", "whsec_"),
        ({"channel": "webhook", "format": "databricks", "audience": ["group:a"]}, "type-not-addressed", "to nobody"),
        ({"channel": "webhook", "format": "mlflow", "types": ["hallmark.nothing"]}, "type-not-in-format", "no message"),
    ],
)
async def test_what_cannot_be_sent_is_refused_at_once(
    person: As, body: dict[str, object], expected: str, says: str
) -> None:
    ana = person("ana", "ml-engineers")
    response = await ana.post("/v1/subscriptions", json={"address": "http://127.0.0.1:9/hook", **body})
    assert (response.status_code, code(response)) == (422, expected), response.text
    assert says in response.json()["detail"]


async def test_a_format_keeps_its_types_when_the_filters_change(ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="webhook", format="mlflow", address="http://127.0.0.1:9/hook")
    path = f"/v1/subscriptions/{made['subscription_id']}"
    refused = await ana.patch(path, json={"types": ["hallmark.stage.*"]})
    assert (refused.status_code, code(refused)) == (422, "type-not-in-format")
    changed = (await ana.patch(path, json={"types": ["hallmark.alias.*"]})).json()
    assert changed["types"] == ["hallmark.alias.changed.v1", "hallmark.alias.removed.v1"]


async def test_the_default_of_a_format_is_all_it_has(ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="webhook", format="mlflow", address="http://127.0.0.1:9/hook")
    assert made["types"] == [
        "hallmark.alias.changed.v1",
        "hallmark.alias.removed.v1",
        "hallmark.model.registered.v1",
        "hallmark.version.registered.v1",
    ]
    assert made["secret"].startswith("whsec_")


async def test_generic_slack_text_reaches_whatever_speaks_it(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    made = await made_by(ana, channel="webhook", format="slack", address=f"{receiver.url}/chat")

    def text(hit: Hit) -> str:
        return str(json.loads(hit.body)["text"])

    await rig.happens(rig.event())
    async with rig.worker():
        await rig.all_done(made, 1)
    assert text(receiver.hits[0]).startswith("churn: v2 is now in Production (was Staging). Asked by ana")


async def test_an_owner_is_told_by_no_webhook_that_has_no_words_for_it(rig: Rig, receiver: Receiver) -> None:
    ill = await rig.webhook(f"{receiver.url}/ill")
    await rig.webhook(f"{receiver.url}/theirs", format=Format.DATABRICKS)

    async def way() -> str | None:
        async with rig.db.transaction() as tx:
            found = await telling._other_way(tx, ill["subscription_id"])
        return found.subscription_id if found else None

    assert await way() is None
    other = await rig.webhook(f"{receiver.url}/other")
    assert await way() == other["subscription_id"]
