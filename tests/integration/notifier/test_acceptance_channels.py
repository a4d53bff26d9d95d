"""The acceptance tests (d), (e) and (g) of notifications, each by its letter. Those of (h) are about votes, which the
approval service takes: `tests/integration/approval/test_clicks.py`."""

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
import uvicorn
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError
from tests.support.receiver import Hit, Receiver
from tests.support.waiting import until

from contracts.notifier import Channel
from hallmark import Client
from hallmark.results import WebhookKeys
from hallmark.webhooks import Receiver as Checker
from kit.inbox import Inbox
from kit.outbound import Guard
from kit.problems import Problem
from notifier import app
from notifier.commands import Commands
from notifier.tables import mechanism

from .asking import As
from .conftest import Mailbox, Rig

README = Path(__file__).parents[3] / "README.md"
INTERNAL = [
    "https://169.254.169.254/latest/meta-data/iam",
    "https://2852039166/",  # 169.254.169.254 as one number
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    "https://169.254.43518/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[64:ff9b::a9fe:a9fe]/",  # through NAT64
    "https://[fd00:ec2::254]/",
    "https://localhost/",
    "https://127.1/",
    "https://2130706433/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::]/",
    "https://0.0.0.0/",
    "https://100.100.100.200/",
    "http://8.8.8.8/",  # without TLS anybody on the way can read it
]


@pytest.mark.parametrize("url", INTERNAL)
async def test_d_an_address_inside_is_refused_when_it_is_named(rig: Rig, url: str) -> None:
    strict = Commands(rig.db, rig.log, Inbox(mechanism), Guard(()), rig.vault, mail=True)
    with pytest.raises(Problem) as refused:
        await strict.subscribe("ana", Channel.WEBHOOK, url)
    assert refused.value.code == "address-refused"
    async with rig.db.transaction() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.event")) == 0


@pytest.mark.parametrize("url", [url for url in INTERNAL if "0251" not in url])  # which is no URL to the client
async def test_d_an_address_inside_is_not_called_however_it_got_there(rig: Rig, url: str) -> None:
    """The second line: the guard at the socket, for whatever was subscribed before the operator's rules changed."""
    lax = Commands(rig.db, rig.log, Inbox(mechanism), Guard(["0.0.0.0/0", "::/0"]), rig.vault, mail=True)
    made = await lax.subscribe("ana", Channel.WEBHOOK, url)
    await rig.happens(rig.event())
    async with rig.worker(senders=app.senders(rig.settings, Guard(()), rig.db), pauses=(0.02,)):
        (done,) = await rig.all_done(made, 1)
    assert done["status"] == "dead"
    for one in await rig.tries(done):
        assert one["status"] is None
        assert "are not public" in one["detail"] or "need https" in one["detail"], one


async def test_d_a_name_that_changes_its_mind_is_not_followed(rig: Rig, receiver: Receiver) -> None:
    """DNS rebinding: public when it was checked, loopback when it is called."""
    means = ["93.184.216.34"]

    async def resolver(host: str, port: int) -> list[str]:
        return [str(means[0])]

    guard = Guard((), resolver=resolver)
    commands = Commands(rig.db, rig.log, Inbox(mechanism), guard, rig.vault, mail=True)
    port = httpx2.URL(receiver.url).port
    made = await commands.subscribe("ana", Channel.WEBHOOK, f"https://rebind.example:{port}/hook")
    means[0] = "127.0.0.1"
    await rig.happens(rig.event())
    async with rig.worker(senders=app.senders(rig.settings, guard, rig.db), pauses=(0.02,)):
        (done,) = await rig.all_done(made, 1)
    assert done["status"] == "dead"
    assert "are not public" in (await rig.tries(done))[0]["detail"]
    assert not receiver.hits


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_d_a_redirect_to_loopback_is_not_followed(rig: Rig, receiver: Receiver, status: int) -> None:
    """The guard of this test would allow the target: what keeps us away is that no redirect is followed."""
    receiver.answer = lambda hit: (status, {"location": f"{receiver.url}/inside"}, b"") if hit.path == "/out" else 200
    made = await rig.webhook(f"{receiver.url}/out")
    await rig.happens(rig.event())
    async with rig.worker(pauses=(0.02,)):
        (done,) = await rig.all_done(made, 1)
    assert done["status"] == "dead"
    assert len(receiver.to("/out")) == 2
    assert not receiver.to("/inside")


def taken(hit: Hit, secret: str) -> bool:
    try:
        Webhook(secret).verify(hit.body, hit.headers)
    except WebhookVerificationError:
        return False
    return True


async def test_e_the_public_library_takes_what_we_sign_and_secrets_rotate_with_an_overlap(
    rig: Rig, receiver: Receiver, ana: httpx2.AsyncClient
) -> None:
    made = await rig.webhook(f"{receiver.url}/hook")
    old, path = made["secret"], f"/v1/subscriptions/{made['subscription_id']}/secret"
    async with rig.worker():
        await rig.happens(rig.event("a"))
        await rig.all_done(made, 1)
        answer = (await ana.post(path)).json()
        new = answer["secret"]
        assert new.startswith("whsec_")
        await rig.happens(rig.event("b"))
        await rig.all_done(made, 2)
        async with rig.db.transaction() as tx:
            left = "select until - now() from notifier.secret where name like 'former-%'"
            assert 86_300 < (await tx.execute(sa.text(left))).scalar_one().total_seconds() < 86_400
            await tx.execute(sa.text("update notifier.secret set until = now() where name like 'former-%'"))
        await rig.happens(rig.event("c"))
        await rig.all_done(made, 3)
    by = {json.loads(hit.body)["data"]["model"]: hit for hit in receiver.hits}
    assert [(taken(by[m], old), taken(by[m], new)) for m in "abc"] == [(True, False), (True, True), (False, True)]
    assert [by[m].headers["webhook-signature"].count("v1,") for m in "abc"] == [1, 2, 1]
    assert not taken(Hit("/", by["a"].headers, by["a"].body + b" "), old)
    rotated = [e for e in await rig.events(made) if e.type == "hallmark.secret.rotated.v1"]
    assert [json.loads(e.value)["rotated_by"] for e in rotated] == ["ana"]
    async with rig.db.transaction() as tx:
        for table in ("event", "outbox", "subscription", "delivery", "attempt", "inbox", "secret"):
            rows = str((await tx.execute(sa.text(f"select t from notifier.{table} t"))).all())
            assert not any(part in rows for secret in (old, new) for part in (secret, secret.removeprefix("whsec_")))


async def test_e_the_services_own_key_signs_every_message_and_is_published(
    rig: Rig, receiver: Receiver, person: As
) -> None:
    """v1a, checked by `cryptography` and by our SDK with nothing but the page of keys, which needs no token."""
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event())
    async with rig.worker():
        await rig.all_done(made, 1)
    (hit,) = receiver.hits
    [key] = (await person("").get("/v1/webhook-keys")).json()["keys"]
    assert key["state"] == "active"
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key["key"].removeprefix("whpk_")))
    [signature] = [s[4:] for s in hit.headers["webhook-signature"].split() if s.startswith("v1a,")]
    content = f"{hit.headers['webhook-id']}.{hit.headers['webhook-timestamp']}.".encode()
    public.verify(base64.b64decode(signature), content + hit.body)
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(signature), content + hit.body + b" ")
    event = Checker(key["key"]).verify(hit.headers, hit.body)
    assert (event.type, event.subject) == ("hallmark.stage.changed.v1", "default/churn/2")


async def test_e_a_secret_that_others_know_counts_no_more_at_once(
    rig: Rig, receiver: Receiver, ana: httpx2.AsyncClient
) -> None:
    made = await rig.webhook(f"{receiver.url}/hook")
    path = f"/v1/subscriptions/{made['subscription_id']}/secret"
    first = (await ana.post(path)).json()["secret"]
    answer = (await ana.post(path, json={"at_once": True})).json()
    assert answer["former_until"] is None
    await rig.happens(rig.event())
    async with rig.worker():
        await rig.all_done(made, 1)
    (hit,) = receiver.hits
    assert [taken(hit, secret) for secret in (made["secret"], first, answer["secret"])] == [False, False, True]


async def test_e_only_the_owner_rotates_and_only_what_is_signed(
    rig: Rig, receiver: Receiver, ana: httpx2.AsyncClient, person: As
) -> None:
    hook = await rig.webhook(f"{receiver.url}/hook")
    chat = await rig.commands.subscribe("ana", Channel.SLACK, f"{receiver.url}/slack")
    eve = person("eve", "ml-engineers")

    async def answer(client: httpx2.AsyncClient, made: dict[str, Any]) -> int:
        return (await client.post(f"/v1/subscriptions/{made['subscription_id']}/secret")).status_code

    assert [await answer(eve, hook), await answer(ana, chat)] == [404, 422]
    await ana.delete(f"/v1/subscriptions/{hook['subscription_id']}")
    assert await answer(ana, hook) == 409
    assert not [e for e in await rig.events(hook) if e.type == "hallmark.secret.rotated.v1"]


async def test_e_what_is_too_large_to_send_is_got_at_its_address(
    rig: Rig, receiver: Receiver, ana: httpx2.AsyncClient, person: As
) -> None:
    """Standard Webhooks wants less than 20 kB."""
    made = await rig.webhook(f"{receiver.url}/hook")
    gates = [{"gate": f"g{n}", "expression": "x" * 900, "result": "pass", "message": "ü" * 100} for n in range(25)]
    await rig.happens(rig.event("small"), rig.event("large", criteria=gates))
    async with rig.worker():
        await rig.all_done(made, 2)
    by = {json.loads(hit.body)["partitionkey"]: hit for hit in receiver.hits}
    small, large = by["default/small"], by["default/large"]
    assert json.loads(small.body)["data"]["model"] == "small"
    assert len(large.body) < 20_000
    assert taken(large, made["secret"])
    event = Checker(made["secret"]).verify(large.headers, large.body)
    assert (event.data, event.payload) == ({}, None)
    assert event.dataref is not None
    path = httpx2.URL(event.dataref).path
    whole = await ana.get(path)
    assert whole.headers["content-type"].startswith("application/cloudevents+json")
    assert len(whole.json()["data"]["criteria"]) == 25
    assert whole.json()["id"] == event.id
    assert (await person("eve", "ml-engineers").get(path)).status_code == 404


async def test_e_the_receiver_of_the_readme_takes_each_message_once(
    rig: Rig, ana: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code as it stands, but for the address of the service; behind a real server, sent to by the real worker."""
    [code] = [s for s in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "Receiver" in s]
    keys = WebhookKeys.model_validate((await ana.get("/v1/webhook-keys")).json()).keys
    monkeypatch.setattr(Client, "webhook_keys", lambda _: keys)
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)
    server = uvicorn.Server(
        uvicorn.Config(scope["app"], port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=5)
    )
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    made = await rig.webhook(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/hallmark")
    await rig.happens(rig.event())
    async with rig.worker():
        (done,) = await rig.all_done(made, 1)
        await ana.post(f"/v1/deliveries/{done['delivery_id']}/replay")
        (again,) = await rig.all_done(made, 1)
    server.should_exit = True
    await running
    assert (again["status"], again["attempts"]) == ("succeeded", 2)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("hallmark.")]
    assert said == ["hallmark.stage.changed.v1: default/churn/2"]


async def test_g_mail_is_put_off_refused_and_cut_short(rig: Rig, mailbox: Mailbox) -> None:
    """451: again. 550: never again. A connection that ends in the middle of the message: again, under the same id."""
    put_off, cut = set[str](), set[str]()

    def answer(address: str) -> str:
        if address.startswith("nobody"):
            return "550 no such user"
        if address.startswith("grey") and address not in put_off:
            put_off.add(address)
            return "451 greylisted, come back later"
        return "250 OK"

    async def data(server: Any, session: Any, envelope: Any) -> str:
        [address] = envelope.rcpt_tos
        if address.startswith("cut") and address not in cut:
            cut.add(address)
            server.transport.abort()
            return ""
        return await Mailbox.handle_DATA(mailbox, server, session, envelope)

    mailbox.answer, mailbox.handle_DATA = answer, data  # type: ignore[method-assign]
    addresses = ("grey@example.org", "nobody@example.org", "cut@example.org")
    made = [await rig.commands.subscribe("ana", Channel.EMAIL, address, proved=True) for address in addresses]
    await rig.happens(rig.event())
    async with rig.worker():
        [[grey], [nobody], [later]] = [await rig.all_done(one, 1) for one in made]
    assert [(d["status"], d["attempts"]) for d in (grey, nobody, later)] == [
        ("succeeded", 2),
        ("dead", 1),
        ("succeeded", 2),
    ]
    assert [(t["status"], t["outcome"]) for t in await rig.tries(grey)] == [(451, "retry"), (250, "succeeded")]
    assert [(t["status"], t["outcome"]) for t in await rig.tries(nobody)] == [(550, "refused")]
    assert [(t["status"], t["outcome"]) for t in await rig.tries(later)] == [(None, "retry"), (250, "succeeded")]
    assert sorted((str(m["To"]), str(m["Message-ID"])) for m in mailbox.mails) == [
        ("cut@example.org", f"<{later['delivery_id']}@hallmark>"),
        ("grey@example.org", f"<{grey['delivery_id']}@hallmark>"),
    ]


async def test_g_mail_is_threaded_by_request_and_ends_by_its_own_link(rig: Rig, mailbox: Mailbox, person: As) -> None:
    """RFC 8058: a POST without a token or a cookie; a GET, which scanners of mail do, changes nothing."""
    made = await rig.commands.subscribe("ana", Channel.EMAIL, "ana@example.org", proved=True)
    await rig.happens(rig.event("churn", 2), rig.event("churn", 3))
    async with rig.worker():
        await rig.all_done(made, 2)
    first, second = mailbox.mails
    assert first["References"] == "<t-churn-2@hallmark>"
    assert second["References"] == "<t-churn-3@hallmark>"
    assert first["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = str(first["List-Unsubscribe"]).replace("\r\n ", "").strip("<> ")
    assert link == str(second["List-Unsubscribe"]).replace("\r\n ", "").strip("<> ")
    for part in first.iter_parts():
        assert link in part.get_content()
    path, anybody = httpx2.URL(link).path, person("")
    seen = await anybody.get(path)
    assert (seen.status_code, seen.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert '<form method="post">' in seen.text
    assert [e.type for e in await rig.events(made)][-1] == "hallmark.delivery.succeeded.v1"
    for wrong in (path[:-1] + ("A" if path[-1] != "A" else "B"), path.rsplit("/", 1)[0] + "/x"):
        assert (await anybody.post(wrong)).status_code == 404
    done = await anybody.post(path, data={"List-Unsubscribe": "One-Click"})
    assert done.status_code == 200
    [removed] = [e for e in await rig.events(made) if e.type == "hallmark.subscription.removed.v1"]
    assert json.loads(removed.value)["removed_by"] == "hallmark/unsubscribe-link"
    assert [(await anybody.get(path)).status_code, (await anybody.post(path)).status_code] == [404, 404]
    assert not any(link.rsplit("/", 1)[1].encode() in e.value for e in await rig.events(made))
