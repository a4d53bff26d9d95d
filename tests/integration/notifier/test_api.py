"""Subscriptions and deliveries over HTTP: who may do what, what bad input gets, and that views are folds."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import sqlalchemy as sa
from tests.support.receiver import Receiver
from tests.support.waiting import until

from contracts.notifier import Channel, OwnerSeen
from kit.problems import Problem
from notifier import views

from .asking import As, code, made_by
from .conftest import Rig


async def test_a_secret_is_made_and_shown_once(ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook")
    assert made["secret"].startswith("whsec_")
    assert made["types"] == ["hallmark.stage.*"]
    again = (await ana.get(f"/v1/subscriptions/{made['subscription_id']}")).json()
    assert again["secret"] is None
    assert again == made | {"secret": None}
    given = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook", secret="whsec_" + "aaaa" * 8)
    assert given["secret"] is None


async def test_the_address_of_slack_is_a_password_and_is_not_shown(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="slack", address="http://127.0.0.1:9/services/T1/B1/pa55word")
    assert made["address"] == "http://127.0.0.1:9/****"
    assert not any(b"pa55word" in envelope.value for envelope in await rig.events(made))


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"address": "http://10.1.2.3/hook"}, "address-refused", "need https"),
    ({"address": "https://10.1.2.3/hook"}, "address-refused", "not public"),
    ({"address": "https://169.254.169.254/latest/meta-data"}, "address-refused", "not public"),
    ({"address": "https://[::1]/"}, "address-refused", "not public"),
    ({"address": "https://[::ffff:10.0.0.1]/"}, "address-refused", "not public"),
    ({"address": "http://93.184.216.34/"}, "address-refused", "need https"),
    ({"address": "ftp://example.org/"}, "address-refused", "https://host/path"),
    ({"address": "https://ana:pw@example.org/"}, "address-refused", "no user"),
    ({"address": "https://exa mple.org/"}, "address-refused", "printable"),
    ({"address": "https://example.org:99999/"}, "address-refused", "not a URL"),
    ({"address": "not a url"}, "address-refused", "printable"),
    ({"address": "https://127.0.0.1:9/", "secret": "whsec_short"}, "secret-refused", "base64"),
    ({"address": "https://127.0.0.1:9/", "secret": "hunter2"}, "secret-refused", "whsec_"),
    ({"address": "https://127.0.0.1:9/", "types": ["hallmark.stagee.*"]}, "unknown-type", "hallmark.stage.changed"),
    ({"address": "https://127.0.0.1:9/", "types": ["Robert'); drop"]}, "invalid-request", "types"),
    ({"address": "https://127.0.0.1:9/", "model": "a/b"}, "invalid-request", "model"),
    ({"address": "https://127.0.0.1:9/", "audience": ["risk"]}, "unknown-recipient", "write group:NAME, user:NAME"),
    (
        {"address": "https://127.0.0.1:9/", "audience": ["group:a", "team:b"]},
        "unknown-recipient",
        "addressed to team:b;",
    ),
    ({"address": "https://127.0.0.1:9/", "audience": ["group:a\n"]}, "invalid-request", "audience"),
    ({"address": "https://127.0.0.1:9/", "audience": ["group:a"] * 21}, "invalid-request", "audience"),
    ({"address": "https://127.0.0.1:9/", "audience": "group:a"}, "invalid-request", "audience"),
    (
        {"address": "https://127.0.0.1:9/", "audience": ["group:a"], "types": ["hallmark.glass.*", "hallmark.stage.*"]},
        "type-not-addressed",
        "hallmark.stage.* is addressed to nobody",
    ),
    ({"address": "https://127.0.0.1:9/", "colour": "red"}, "invalid-request", "colour"),
    ({"address": "https://127.0.0.1:9/", "channel": "pigeon"}, "invalid-request", "channel"),
    ({"channel": "email", "address": "ana@"}, "address-refused", "e-mail"),
    ({"channel": "email", "address": "a@b.c\r\nBcc: x@y.z"}, "address-refused", "e-mail"),
    ({"channel": "email", "address": "ana@example.org", "secret": "whsec_x"}, "secret-not-used", "leave"),
]


async def test_bad_input_is_refused_and_changes_nothing(rig: Rig, ana: httpx2.AsyncClient) -> None:
    for body, expected, says in BAD:
        response = await ana.post("/v1/subscriptions", json={"channel": "webhook", **body})
        assert (response.status_code, code(response)) == (422, expected), (body, response.text)
        assert says in response.json()["detail"], body
        for secret in ("hunter2", "whsec_short", "ana:pw"):
            assert secret not in response.text
    async with rig.db.transaction() as tx:  # nothing but what her token said of her groups
        types = (await tx.scalars(sa.text("select type from notifier.event"))).all()
    assert list(types) == [OwnerSeen.TYPE]


async def test_without_a_mail_server_mail_is_refused_at_once(rig: Rig) -> None:
    rig.commands._destinations.mail = False
    with pytest.raises(Problem, match="HALLMARK_SMTP_HOST"):
        await rig.commands.subscribe("ana", Channel.EMAIL, "ana@example.org", proved=True)


async def test_a_subscription_says_for_whom_it_stands(rig: Rig, ana: httpx2.AsyncClient) -> None:
    asked = {"channel": "webhook", "address": "http://127.0.0.1:9/hook"}
    names = ["service:oncall", "group:risk", "service:oncall"]
    made = await made_by(ana, **asked, audience=names)
    assert (made["audience"], made["types"]) == (["service:oncall", "group:risk"], ["hallmark.*"])
    assert (await ana.get(f"/v1/subscriptions/{made['subscription_id']}")).json() == made | {"secret": None}
    assert [s["audience"] for s in (await ana.get("/v1/subscriptions")).json()["items"]] == [made["audience"]]
    [created] = await rig.events(made)
    assert json.loads(created.value)["audience"] == made["audience"]
    narrow = await made_by(ana, **asked, audience=["user:ana"], types=["hallmark.vote.*"])
    assert narrow["types"] == ["hallmark.vote.*"]
    for plain in (await made_by(ana, **asked), await made_by(ana, **asked, audience=[])):
        assert (plain["audience"], plain["types"]) == ([], ["hallmark.stage.*"])


async def test_only_the_owner_and_admins_see_and_remove(ana: httpx2.AsyncClient, person: As) -> None:
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook")
    path = f"/v1/subscriptions/{made['subscription_id']}"
    eve, root = person("eve", "ml-engineers"), person("root", "admins")
    assert code(await eve.get(path)) == code(await eve.delete(path)) == "no-such-subscription"
    assert (await eve.get("/v1/subscriptions")).json()["items"] == []
    assert len((await root.get("/v1/subscriptions")).json()["items"]) == 1
    assert (await root.delete(path)).status_code == 204
    ended = (await ana.get(path)).json()
    assert (ended["status"], ended["reason"]) == ("removed", "removed by root")
    assert [s["status"] for s in (await ana.get("/v1/subscriptions?status=active")).json()["items"]] == []


async def test_roles_and_model_patterns_bound_what_may_be_subscribed_to(person: As) -> None:
    body = {"channel": "webhook", "address": "http://127.0.0.1:9/hook"}
    for subject, groups, model, status in [
        ("", (), "*", 401),
        ("nobody", (), "*", 403),
        ("fay", ("fraud-team",), "*", 403),
        ("fay", ("fraud-team",), "churn", 403),
        ("fay", ("fraud-team",), "fraud-eu*", 201),
        ("fay", ("fraud-team",), "fraud-*", 201),
        ("ana", ("ml-engineers",), "*", 201),
    ]:
        for audience in ([], ["group:fraud-team"]):
            asked = body | {"model": model, "audience": audience}
            response = await person(subject, *groups).post("/v1/subscriptions", json=asked)
            assert response.status_code == status, (subject, model, response.text)


async def test_the_same_idempotency_key_subscribes_once(rig: Rig, ana: httpx2.AsyncClient, person: As) -> None:
    body = {"channel": "webhook", "address": "http://127.0.0.1:9/hook"}
    headers = {"idempotency-key": "k1"}
    answers = await asyncio.gather(*(ana.post("/v1/subscriptions", json=body, headers=headers) for _ in range(5)))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["subscription_id"] for a in answers}) == 1
    assert sum(a.json()["secret"] is not None for a in answers) == 1
    for changed in ({"model": "churn"}, {"audience": ["group:risk"]}):
        other = await ana.post("/v1/subscriptions", json=body | changed, headers=headers)
        assert (other.status_code, code(other)) == (409, "idempotency-key-reused")
    hers = await person("eve", "ml-engineers").post("/v1/subscriptions", json=body, headers=headers)
    assert hers.json()["subscription_id"] != answers[0].json()["subscription_id"]


async def test_lists_are_paged_and_filtered(rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver) -> None:
    receiver.answer = lambda hit: 200 if hit.path == "/good" else 410
    good = await made_by(ana, channel="webhook", address=f"{receiver.url}/good")
    bad = await made_by(ana, channel="webhook", address=f"{receiver.url}/bad")
    events = [rig.event(f"m{n}", 1) for n in range(5)]
    await rig.happens(*events)
    async with rig.worker():
        await rig.all_done(bad, 5)
        await rig.all_done(good, 6)  # and that the other one was disabled
    seen, after = [], None
    while True:
        params = {"limit": 3, **({"after": after} if after else {})}
        page = (await ana.get("/v1/deliveries", params=params)).json()
        seen += page["items"]
        after = page["next"]
        if after is None:
            break
    assert len({d["delivery_id"] for d in seen}) == len(seen) == 11
    mine = {"subscription": good["subscription_id"]}
    assert len((await ana.get("/v1/deliveries", params=mine | {"status": "succeeded"})).json()["items"]) == 6
    assert len((await ana.get("/v1/deliveries", params=mine | {"event": events[0].id})).json()["items"]) == 1
    dead = (await ana.get("/v1/deliveries", params={"status": "dead"})).json()["items"]
    assert {d["subscription_id"] for d in dead} == {bad["subscription_id"]}
    detail = (await ana.get(f"/v1/deliveries/{dead[0]['delivery_id']}")).json()
    assert [t["status"] for t in detail["tries"]] == [410]
    paged = (await ana.get("/v1/subscriptions", params={"limit": 1})).json()
    rest = (await ana.get("/v1/subscriptions", params={"limit": 1, "after": paged["next"]})).json()
    assert [s["subscription_id"] for s in paged["items"] + rest["items"]] == [
        bad["subscription_id"],
        good["subscription_id"],
    ]
    assert rest["next"] is None


async def test_replay_is_the_owners_and_needs_a_living_subscription(
    rig: Rig, ana: httpx2.AsyncClient, person: As, receiver: Receiver
) -> None:
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook")
    await rig.happens(rig.event())
    async with rig.worker():
        (done,) = await rig.all_done(made, 1)
        path = f"/v1/deliveries/{done['delivery_id']}/replay"
        assert code(await person("eve", "ml-engineers").post(path)) == "no-such-delivery"
        assert code(await ana.post(f"/v1/deliveries/{uuid4()}/replay")) == "no-such-delivery"
        assert (await ana.post(path)).status_code == 202
        (again,) = await rig.all_done(made, 1)
    assert again["attempts"] == 2
    assert len({hit.headers["webhook-id"] for hit in receiver.hits}) == 1
    await ana.delete(f"/v1/subscriptions/{made['subscription_id']}")
    assert (await ana.post(path)).status_code == 409


async def test_the_view_is_a_fold_of_the_events(rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    gone = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook")
    removed = await made_by(ana, channel="email", address="ana@example.org", model="churn")
    await made_by(
        ana, channel="slack", address=f"{receiver.url}/slack", types=["hallmark.vote.*"], audience=["user:ana"]
    )
    await rig.happens(rig.event())
    async with rig.worker():
        await rig.all_done(gone, 1)
        await rig.all_done(removed, 2)  # and that the other one was disabled
    await ana.delete(f"/v1/subscriptions/{removed['subscription_id']}")
    edited = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook")
    path = f"/v1/subscriptions/{edited['subscription_id']}"
    await ana.patch(path, json={"stages": ["Staging"], "cel": "event.version > 7", "types": ["hallmark.alias.*"]})
    await ana.post(f"{path}/pause")
    dump = sa.text("select * from notifier.subscription order by 1")
    async with rig.db.transaction() as tx:
        before = (await tx.execute(dump)).all()
        assert await views.rebuild(tx, rig.log) == 12
        after = (await tx.execute(dump)).all()
    assert {row.status for row in before} == {"active", "removed", "disabled"}
    assert after == before


async def test_a_rebuild_and_a_writer_wait_for_each_other(rig: Rig, ana: httpx2.AsyncClient) -> None:
    """A subscription that is removed in the middle of a rebuild stays removed."""
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook")
    async with rig.db.transaction() as tx:
        await views.rebuild(tx, rig.log)
        removal = asyncio.create_task(ana.delete(f"/v1/subscriptions/{made['subscription_id']}"))
        held = sa.text(
            "select count(*) from pg_locks where not granted and relation = 'notifier.subscription'::regclass"
        )

        async def waits() -> bool:
            return removal.done() or bool(await tx.scalar(held))

        await until(waits)
        assert not removal.done()
    assert (await removal).status_code == 204
    assert (await ana.get(f"/v1/subscriptions/{made['subscription_id']}")).json()["status"] == "removed"


@pytest.mark.parametrize(
    "path",
    [
        "subscriptions/%00",
        f"subscriptions/{'x' * 101}",
        "subscriptions?after=%00",
        "subscriptions?workspace=%00",
        "deliveries?after=99999999999999999999",
        "deliveries?subscription=a%00",
        "deliveries?event=%00",
        "deliveries/%00",
        "deliveries?limit=0",
    ],
)
async def test_a_malformed_question_is_refused(ana: httpx2.AsyncClient, path: str) -> None:
    assert (await ana.get(f"/v1/{path}")).status_code == 422
