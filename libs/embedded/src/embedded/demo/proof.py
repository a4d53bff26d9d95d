"""After the fact: what the audit log says, the proof that nobody changed it, and who was told."""

import re
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import httpx2

from contracts.lifecycle import Stage
from embedded.demo.receivers import Inbox, Receivers
from embedded.demo.story import MODEL, Story
from embedded.demo.tell import Unexpected, wait_until
from hallmark.output import people
from hallmark.results import TimelineItem
from hallmark.verify import VerificationError, verify_export

CHANGED, REFUSED = "hallmark.stage.changed.v1", "hallmark.stage.refused.v1"
REVOKED, WAIVED = "hallmark.version.revoked.v1", "hallmark.gate.waived.v1"
# v1, v3, v2 and v4 to Staging; v1 to Production; v2 to Production and back, each time with the other archived; the same
# with v4, which is revoked.
CHANGES, REFUSALS, REVOCATIONS = 13, 1, 1
SHOWN = (
    "hallmark.version.registered.v1",
    "hallmark.vote.refused.v1",
    "hallmark.vote.cast.v1",
    "hallmark.evidence.attached.v1",
    WAIVED,
    REVOKED,
    CHANGED,
    REFUSED,
)


def subscribe(story: Story, receivers: Receivers) -> list[str]:
    """Three subscriptions of ana's; gives their ids. Whoever reads the team's mailbox agrees to the mail first."""
    wanted = [CHANGED, REFUSED, REVOKED]
    made = [
        story.cast.ana.subscribe("slack", receivers.slack_url, types=wanted, model=MODEL),
        story.cast.ana.subscribe("email", "clinic-ml@example.org", types=[CHANGED], model=MODEL),
        story.cast.ana.subscribe("webhook", receivers.hook_url, types=wanted, model=MODEL, secret=receivers.secret),
    ]
    story.tell.expect(confirmed(receivers.inbox), "the team's mailbox was asked, and agreed")
    return [subscription.subscription_id for subscription in made]


def confirmed(inbox: Inbox) -> bool:
    """Follows the link in the first mail, as its reader does; the mail is no news, and is put away."""
    if not inbox.wait_for(lambda i: len(i.mails) == 1, 30):
        return False
    link = re.search(r"http\S+/v1/confirm/\S+", inbox.mails.pop().get_content())
    return link is not None and httpx2.post(link[0]).status_code == 200


def timeline(story: Story) -> None:
    story.tell.chapter("The audit timeline: who, what, why, on which criteria")
    found: list[TimelineItem] = []

    def complete() -> bool:
        found[:] = story.cast.aud.timeline(MODEL)
        kinds = [item.type for item in found]
        return kinds.count(CHANGED) == CHANGES and {REVOKED, WAIVED} <= {*kinds}

    with story.tell.waiting("waiting for the audit log to take in the last events"):
        done = wait_until(complete)
    # By time: entries of different topics may stand in the log in another order than they were written.
    told = sorted((item for item in found if item.type in SHOWN), key=lambda item: item.at)
    story.tell.table(
        ("entry", "at (UTC)", "what"),
        [(item.index, f"{item.at.astimezone(UTC):%H:%M:%S}", brief(item.summary)) for item in told],
    )
    story.tell.expect(done, f"all {CHANGES} stage changes are in it, with the refused vote and the failed gate")
    story.tell.expect(
        {"hallmark.vote.refused.v1", REFUSED} <= {item.type for item in found},
        "refusals are evidence too: they have entries of their own",
        {item.type for item in found},
    )
    story.tell.expect(
        {REVOKED, WAIVED} <= {item.type for item in found},
        "so have the gate that rita answered for, and the revocation",
        {item.type for item in found},
    )


def instants(story: Story) -> None:
    story.tell.chapter("What was in Production at five instants?")
    rows, right = [], []
    for moment, version in story.moments:
        found = story.cast.aud.production(MODEL, moment)
        criteria = ", ".join(f"{c.gate}: {c.result}" for c in found.criteria)
        rows.append(
            (
                f"{moment:%H:%M:%S.%f}"[:-3],
                f"v{found.version}",
                found.requested_by,
                people(found.approved_by) or "nobody had to",
                found.reason,
                criteria,
            )
        )
        right.append(found.version == version)
    story.tell.table(("at (UTC)", "version", "asked by", "approved by", "reason", "criteria"), rows)
    story.tell.expect(
        len(right) == 5 and all(right),
        "each answer is what was in Production then, also of a version now revoked",
        rows,
    )
    before = story.cast.aud.production(MODEL, datetime(2020, 1, 1, tzinfo=UTC))
    story.tell.expect(before.version is None, "and before all of this, nothing was", before.version)


def verify(story: Story, directory: Path) -> None:
    story.tell.chapter("Verify the log offline, then tamper with a copy")
    key = story.cast.aud.verifier_key()
    export = story.cast.aud.export_log(directory / "audit-log.ndjson")
    story.tell.say(f"key: {key}", "dim")
    proved = verify_export(export, key)
    story.tell.expect(
        proved.size > 0, f"{proved.size} entries add up to the signed root {proved.root[:16]}... of {proved.origin}"
    )
    whole = export.read_bytes()
    place = whole.index(b'"leaf":"', len(whole) * 2 // 3) + len(b'"leaf":"') + 40
    forged = directory / "audit-log-forged.ndjson"
    forged.write_bytes(whole[:place] + (b"A" if whole[place : place + 1] != b"A" else b"B") + whole[place + 1 :])
    try:
        verify_export(forged, key)
    except VerificationError as error:
        entry = whole[:place].count(b"\n") - 1
        story.tell.expect(error.index == entry, f"a copy with byte {place} changed is caught: “{error}”", error.index)
    else:
        raise Unexpected("a copy with one byte changed was verified")


def notices(story: Story, receivers: Receivers) -> None:
    story.tell.chapter("Who was told")
    inbox, everything = receivers.inbox, CHANGES + REFUSALS + REVOCATIONS

    def complete(i: Inbox) -> bool:
        return len(i.mails) >= CHANGES and len(i.slack) >= everything and len(i.hooks) >= everything

    with story.tell.waiting("waiting for the last deliveries"):
        inbox.wait_for(complete, 20)
    mail, slack = last_mail(inbox), inbox.slack[-1] if inbox.slack else {}
    hook = inbox.hooks[-1] if inbox.hooks else {}
    story.tell.table(
        ("receiver", "arrived", "the last one"),
        [
            ("e-mail (SMTP)", len(inbox.mails), mail["subject"] if mail else ""),
            ("Slack", len(inbox.slack), slack.get("text", "")),
            ("webhook", len(inbox.hooks), f"{hook.get('type')} {hook.get('subject')}"),
        ],
    )
    counts = (len(inbox.mails), len(inbox.slack), len(inbox.hooks))
    story.tell.expect(counts == (CHANGES, everything, everything), "everybody heard of every change, once", counts)
    sequences = [hook["sequence"] for hook in inbox.hooks]
    story.tell.expect(
        inbox.bad_signatures == 0 and sequences == sorted(sequences),
        "every webhook's signature was checked with the standardwebhooks library, and they came in order",
        (inbox.bad_signatures, sequences),
    )
    body = mail.get_body(("plain",)) if mail else None
    shown = body.get_content().strip() if body else ""
    for line in shown.partition("\nModel:")[0].strip().splitlines():
        story.tell.say(f"| {line}", "dim")
    story.tell.expect(
        MODEL in shown and Stage.PRODUCTION in shown and "olga" in shown, "the last mail says who revoked it, and why"
    )


def brief(summary: str) -> str:
    """A summary without the model's name, which is the same in all, and with digests cut short."""
    return re.sub(r"sha256:([0-9a-f]{8})[0-9a-f]*", r"\1", summary.replace(f"{MODEL} ", ""))


def last_mail(inbox: Inbox) -> EmailMessage | None:
    """The mail about the last change: mails to one person may overtake one another on the way."""
    about = [mail for mail in inbox.mails if "rolled back" in str(mail["subject"])]
    found = about or inbox.mails
    return found[-1] if found else None
