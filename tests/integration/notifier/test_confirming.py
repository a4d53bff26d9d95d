"""A mailbox that the owner's token does not prove is asked first, and is sent nothing else before it has agreed."""

import re

import httpx2
import sqlalchemy as sa

from contracts.notifier import Channel
from notifier import app, views
from notifier.channels.email import EmailSender, Smtp
from notifier.channels.render import Renderer
from notifier.confirming import MOST_OF_MAILBOX, MOST_OF_OWNER, Asker
from notifier.retrying import Schedule

from .asking import As, code, made_by
from .conftest import Mailbox, Rig

TEAM = {"channel": "email", "address": "team@example.org"}


def asker(rig: Rig, sender: EmailSender | None = None) -> Asker:
    return Asker(rig.db, rig.vault, sender or app.email_sender(rig.settings), Schedule((0.0, 0.0, 0.0), jitter=0))


def link_in(mailbox: Mailbox) -> str:
    """The path of the link in the newest mail."""
    found = re.search(r"http://\S+(/v1/confirm/\S+)", mailbox.mails[-1].get_content())
    assert found is not None
    return found[1]


async def test_a_mailbox_agrees_before_anything_is_sent(
    rig: Rig, mailbox: Mailbox, ana: httpx2.AsyncClient, person: As
) -> None:
    made = await made_by(ana, **TEAM)
    assert (made["status"], made["confirmation"]["sent_at"]) == ("unconfirmed", None)
    await rig.happens(rig.event("churn", 2))
    assert await asker(rig).once() == 1
    assert await asker(rig).once() == 0
    [mail] = mailbox.mails
    assert (mail["To"], mail["List-Unsubscribe"]) == ("team@example.org", None)
    assert "ana asks Hallmark" in mail.get_content()
    path, anybody, of = link_in(mailbox), person(""), f"/v1/subscriptions/{made['subscription_id']}"
    assert (await ana.get(of)).json()["confirmation"]["sent_at"] is not None

    # Before: nothing that could make it send.
    for verb in ("enable", "pause", "resume"):
        refused = await ana.post(f"{of}/{verb}")
        assert (refused.status_code, code(refused)) == (409, "subscription-unconfirmed"), verb
    for body in ({"which": "all"}, {"which": "missing"}):
        assert code(await ana.post(f"{of}/replay", json=body)) == "subscription-unconfirmed"
    assert code(await ana.patch(of, json={"model": "fraud"})) == "subscription-unconfirmed"
    assert code(await ana.post(f"{of}/confirmation")) == "asked-lately"
    # Programs that scan mail follow links, and change nothing by it.
    page = await anybody.get(path)
    assert (page.status_code, '<form method="post">' in page.text) == (200, True)
    for wrong in (path[:-1] + ("A" if path[-1] != "A" else "B"), path.rsplit("/", 1)[0] + "/x"):
        assert [(await anybody.get(wrong)).status_code, (await anybody.post(wrong)).status_code] == [404, 404]
    async with rig.worker():
        await rig.happens(rig.event("churn", 3))
    assert await rig.deliveries(made) == []

    # Twice is once.
    assert [(await anybody.post(path)).status_code for _ in range(2)] == [200, 200]
    assert (await ana.get(of)).json()["status"] == "active"
    await rig.happens(rig.event("churn", 4))
    async with rig.worker():
        [sent] = await rig.all_done(made, 1)
    assert sent["subject"] == "default/churn/4"
    assert [str(m["Subject"]) for m in mailbox.mails[1:]] == ["churn: v4 is now in Production (was Staging)"]
    told = await rig.events(made)
    assert [e.type.split(".", 1)[1] for e in told] == [
        "subscription.created.v1",
        "confirmation.asked.v1",
        "subscription.confirmed.v1",
        "delivery.succeeded.v1",
    ]
    assert told[2].actor == "hallmark/confirmation-link"
    assert not any(path.rsplit("/", 1)[1].encode() in e.value for e in told)
    async with rig.db.transaction() as tx:
        before = await views.subscription(tx, made["subscription_id"])
        await views.rebuild(tx, rig.log)
        assert await views.subscription(tx, made["subscription_id"]) == before


async def test_a_link_lapses_and_can_be_asked_for_again(
    rig: Rig, mailbox: Mailbox, ana: httpx2.AsyncClient, person: As
) -> None:
    made, anybody = await made_by(ana, **TEAM), person("")
    await asker(rig).once()
    first = link_in(mailbox)
    await rig.pass_time(4 * 86_400)
    assert [(await anybody.get(first)).status_code, (await anybody.post(first)).status_code] == [404, 404]
    again = f"/v1/subscriptions/{made['subscription_id']}/confirmation"
    assert (await person("eve", "ml-engineers").post(again)).status_code == 404
    assert (await ana.post(again)).json()["status"] == "unconfirmed"
    await asker(rig).once()
    assert (await anybody.post(first)).status_code == 404
    assert (await anybody.post(link_in(mailbox))).status_code == 200
    assert code(await ana.post(again)) == "nothing-to-confirm"
    await ana.delete(f"/v1/subscriptions/{made['subscription_id']}")
    assert (await anybody.post(link_in(mailbox))).status_code == 404
    async with rig.db.transaction() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.confirmation")) == 0


async def test_only_the_owners_own_address_is_not_asked(rig: Rig, person: As) -> None:
    mine = await made_by(person("ana", "ml-engineers"), channel="email", address="Ana@Example.org")
    assert (mine["status"], mine["confirmation"]) == ("active", None)
    others = await made_by(person("ben", "ml-engineers"), channel="email", address="ana@example.org")
    assert others["status"] == "unconfirmed"


async def test_a_question_is_tried_again_until_it_is_refused_for_good(
    rig: Rig, mailbox: Mailbox, ana: httpx2.AsyncClient
) -> None:
    answers = iter(("451 greylisted", "550 no such user team@example.org"))
    mailbox.answer = lambda _: next(answers)
    made = await made_by(ana, **TEAM)
    of = f"/v1/subscriptions/{made['subscription_id']}"
    nobody = EmailSender(Smtp("127.0.0.1", 1, "hallmark@localhost"), Renderer())
    assert await asker(rig, nobody).once() == 1
    assert "ConnectError" in (await ana.get(of)).json()["confirmation"]["error"]
    assert [await asker(rig).once() for _ in range(3)] == [1, 1, 0]
    assert (await ana.get(of)).json()["confirmation"]["error"] == "550 no such user [redacted]"
    assert mailbox.mails == []


async def test_nobody_is_written_to_without_end(rig: Rig, person: As) -> None:
    clients = [person(name, "ml-engineers") for name in ("ana", "ben")]
    for turn in range(MOST_OF_MAILBOX):
        await made_by(clients[turn % 2], **TEAM)
    assert code(await clients[0].post("/v1/subscriptions", json=TEAM)) == "too-many-unconfirmed"
    for number in range(MOST_OF_OWNER):
        await rig.commands.subscribe("eve", Channel.EMAIL, f"{number}@example.org")
    refused = await person("eve", "ml-engineers").post("/v1/subscriptions", json={**TEAM, "address": "x@example.org"})
    assert (refused.status_code, code(refused)) == (429, "too-many-unconfirmed")
