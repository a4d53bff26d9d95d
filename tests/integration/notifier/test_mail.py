"""Mail to a real SMTP server: refused for now, refused for good, and a server that is away."""

from itertools import count

import sqlalchemy as sa

from contracts.notifier import Channel
from kit.inbox import Inbox
from kit.outbound import Guard
from notifier.channels.email import EmailSender, Smtp
from notifier.channels.render import Renderer
from notifier.commands import Commands
from notifier.tables import mechanism

from .conftest import Mailbox, Rig


async def test_mail_is_greylisted_then_taken_and_refused_for_good(rig: Rig, mailbox: Mailbox) -> None:
    tries = count()
    mailbox.answer = lambda address: (
        "550 no such user here"
        if address.startswith("nobody")
        else "250 OK"
        if next(tries)
        else "451 greylisted, come back later"
    )
    good = await rig.commands.subscribe("ana", Channel.EMAIL, "ana@example.org", proved=True)
    bad = await rig.commands.subscribe("ana", Channel.EMAIL, "nobody@example.org", proved=True)
    event = rig.event()
    await rig.happens(event)
    async with rig.worker():
        (sent,), (refused,) = await rig.all_done(good, 1), await rig.all_done(bad, 1)
    assert (sent["status"], refused["status"]) == ("succeeded", "dead")
    assert [(t["status"], t["outcome"]) for t in await rig.tries(sent)] == [(451, "retry"), (250, "succeeded")]
    (only,) = await rig.tries(refused)
    assert (only["status"], only["detail"]) == (550, "550 no such user here")
    (mail,) = mailbox.mails
    assert mail["Message-ID"] == f"<{sent['delivery_id']}@hallmark>"
    assert mail["In-Reply-To"] == mail["References"] == "<t-churn-2@hallmark>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"] == "churn: v2 is now in Production (was Staging)"


async def test_a_mailbox_that_is_hidden_gets_its_mail_and_is_in_no_event(rig: Rig, mailbox: Mailbox) -> None:
    mailbox.answer = lambda address: f"550 {address} is no user here" if address.startswith("nobody") else "250 OK"
    commands = Commands(rig.db, rig.log, Inbox(mechanism), Guard(()), rig.vault, mail=True, hides_mailboxes=True)
    good = await commands.subscribe("p_ana", Channel.EMAIL, "ana@example.org", proved=True)
    bad = await commands.subscribe("p_ana", Channel.EMAIL, "nobody@example.org", proved=True)
    assert (good["address"], bad["address"]) == ("****@example.org", "****@example.org")
    await rig.happens(rig.event())
    async with rig.worker():
        (sent,), (refused,) = await rig.all_done(good, 1), await rig.all_done(bad, 1)
    assert (sent["status"], refused["status"]) == ("succeeded", "dead")
    (mail,) = mailbox.mails
    assert mail["To"] == "ana@example.org"
    async with rig.db.snapshot() as tx:
        stored = "".join(await tx.scalars(sa.select(mechanism.event.c.data)))
    assert "550 [redacted] is no user here" in stored
    assert "ana@" not in stored
    assert "nobody@" not in stored


async def test_a_mail_server_that_is_away_is_waited_for(rig: Rig) -> None:
    made = await rig.commands.subscribe("ana", Channel.EMAIL, "ana@example.org", proved=True)
    await rig.happens(rig.event())
    nobody = EmailSender(Smtp("127.0.0.1", 1, "hallmark@localhost"), Renderer())
    async with rig.worker(senders={Channel.EMAIL: nobody}, pauses=(0.02, 3600)):
        await rig.said(made, 3)
    (waiting,) = await rig.deliveries(made)
    assert waiting["status"] == "pending"
    async with rig.db.transaction() as tx:
        await tx.execute(sa.text("update notifier.lane set due_at = now()"))
    async with rig.worker():
        (done,) = await rig.all_done(made, 1)
    assert done["status"] == "succeeded"
