"""Events become deliveries: many events in one transaction, and the usual ones in the same few statements."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.catalog import MESSAGES
from contracts.envelope import Envelope, now
from kit.errors import Permanent
from kit.events import EventLog
from notifier import bundles, queue, quiet_views, standings, views
from notifier.domain import Subscription, matching
from notifier.matching import Seen
from notifier.queue import Held, Wanted
from notifier.quiet import Inhibition, Silence, quiet
from notifier.reminders import cancels

FILTER_ERRORS = Counter("hallmark_filter_errors_total", "Expressions of subscriptions that had no answer")


@dataclass(frozen=True)
class Rules:
    """Who may want events, and what may keep them from it."""

    subscriptions: Sequence[Subscription]
    inhibitions: Sequence[Inhibition]
    silences: Sequence[Silence]

    def in_(self, workspace: str | None) -> Sequence[Subscription]:
        """The subscriptions of one workspace, or of all."""
        return [s for s in self.subscriptions if workspace in (s.workspace, None)]


@dataclass
class _Ended:
    """What reminds nobody any more by events so far, and which event said so. Groups are told before an event joins
    one: it may begin the next group of the same request."""

    untold: list[str] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)

    def add(self, key: str, by: str) -> None:
        self.untold.append(key)
        self.told.append((key, by))

    async def tell(self, tx: AsyncConnection) -> None:
        if self.untold:
            await bundles.no_longer_open(tx, self.untold)
            self.untold.clear()


async def fan_out(tx: AsyncConnection, log: EventLog, envelopes: Sequence[Envelope]) -> None:
    """Keeps the events, and adds a delivery per subscription that wants one; a repetition adds none. They are taken one
    after the other, in the order given.

    A subscription whose expression has no answer for it does not get it; that is counted for its owner. What a silence
    or an alarm keeps from a subscription has a delivery that is not sent. Reminders of what it decides are cancelled.

    Raises:
        EnvelopeError, Permanent: a body is not what its type says. Alone, such an event is parked.
    """
    for envelope in envelopes:
        check_body(envelope)
    known = await views.settle_matching(tx, log)
    events, at = [Seen(envelope) for envelope in envelopes], now()
    rules = await _rules(tx, {event.workspace for event in events}, at)
    found = [matching(rules.in_(event.workspace), event) for event in events]
    positions = await queue.keep(tx, events, known)
    for envelope in envelopes:
        await standings.project(tx, envelope)
    wanted, ended = list[Wanted](), _Ended()
    for event, one in zip(events, found, strict=True):
        failed = [(s.subscription_id, why) for s, why in one.failed]
        if over := cancels(event.envelope):
            ended.add(over, event.envelope.id)
        held, unanswered = await _held(tx, event, one.wanted, rules, ended, at)
        wanted += [
            Wanted(s, event.envelope, positions[event.envelope.id], held.get(s.subscription_id)) for s in one.wanted
        ]
        if failed := failed + unanswered:
            FILTER_ERRORS.inc(len(failed))
            await views.note_errors(tx, event.envelope.id, failed)
    await ended.tell(tx)
    await queue.enqueue(tx, wanted)
    await queue.cancel(tx, [(key, by, positions[by]) for key, by in ended.told])


async def _rules(tx: AsyncConnection, workspaces: set[str | None], at: datetime) -> Rules:
    """Those of the workspaces; None asks for each."""
    asked = None if None in workspaces else sorted(w for w in workspaces if w is not None)
    return Rules(
        await views.active_in(tx, asked),
        await quiet_views.inhibitions(tx, asked),
        await quiet_views.silences_now(tx, asked, at),
    )


async def _held(
    tx: AsyncConnection, event: Seen, wanted: Sequence[Subscription], rules: Rules, ended: _Ended, at: datetime
) -> tuple[dict[str, Held], list[tuple[str, str]]]:
    """Of those who want an event, what keeps it from being sent; and whose expressions had no answer, with why."""
    alarms, failed = await quiet_views.sound(tx, event, rules.inhibitions, at)
    theirs = {s.workspace for s in wanted}
    hush = quiet(wanted, event, [s for s in rules.silences if s.workspace in theirs], alarms, at)
    held = {name: Held(one.status, one.by) for name, one in hush.hushed.items()}
    loud = [s for s in wanted if s.bundling is not None and s.subscription_id not in held]
    if loud:
        await ended.tell(tx)
        held |= await bundles.assign(tx, event, loud, at)
    return held, failed + hush.failed


def check_body(envelope: Envelope) -> None:
    kind = MESSAGES.get(envelope.type)
    if kind is not None:
        envelope.payload(kind)
        return
    # A type of a newer writer: its body is passed on as it is, so it must at least be an object.
    try:
        body: Any = json.loads(envelope.value, parse_constant=_refuse)
    except ValueError as error:
        raise Permanent("bad-event", f"{envelope.type}: the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Permanent("bad-event", f"{envelope.type}: the body is not a JSON object")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
