"""Nothing is missing unnoticed: offsets against a real broker, sequences of streams, and only what is new each time."""

import asyncio
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from structlog.testing import capture_logs
from tests.support.waiting import until

from audit import completeness as module
from audit import gaps, sequences, tables
from audit.completeness import Completeness
from audit.ledger import Ledger
from contracts.notifier import SubscriptionRemoved
from contracts.topics import AUDIT_EVENTS, NOTIFIER_EVENTS, REGISTRY_EVENTS
from kit.bus import Record

from .conftest import Harness, event, record, registered, story
from .test_kafka import Wire, logged, projected, serving, wire

__all__ = ["wire"]
PLACE = (NOTIFIER_EVENTS.name, 0)


async def produce(wire: Wire, count: int, word: str = "s") -> list[Record]:
    """So many records on partition 0, and all that the broker has there."""
    topic = wire.settings.topic_prefix + NOTIFIER_EVENTS.name
    for n in range(count):
        made = event(SubscriptionRemoved(subscription_id=f"{word}-{n}", removed_by="ana"), 1)
        await wire.producer.send_and_wait(topic, made.value, made.key.encode(), 0, headers=made.headers())
    consumer = AIOKafkaConsumer(bootstrap_servers=wire.settings.kafka_bootstrap)
    await consumer.start()
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end, found = (await consumer.end_offsets([place]))[place], list[Record]()
        while len(found) < end:
            found.append(Record.of(await consumer.getone(), NOTIFIER_EVENTS))
        return found
    finally:
        await consumer.stop()


async def commit(wire: Wire, offset: int) -> None:
    """Sets the group of the audit service."""
    name = wire.settings.topic_prefix + NOTIFIER_EVENTS.name
    group = f"{wire.settings.topic_prefix}audit.{NOTIFIER_EVENTS.name}"
    consumer = AIOKafkaConsumer(
        bootstrap_servers=wire.settings.kafka_bootstrap, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, 0)])
        await consumer.commit({TopicPartition(name, 0): offset})
    finally:
        await consumer.stop()


async def told(checker: Completeness, **how: Any) -> tuple[bool | None, list[Any], list[Any], int]:
    found = await checker.check(**how)
    (item,) = [i for i in found["items"] if (i["topic"], i["partition"]) == PLACE]
    assert found["broker"] is None
    return found["complete"], item["holes"], item["unconfirmed"], item["unread"]


@pytest.mark.one_broker
async def test_a_hole_is_told_until_it_is_filled(audit: Harness, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.broker.CHUNK", 3)
    monkeypatch.setattr("audit.gaps.PAGE", 4)
    checker, sent = Completeness(audit.db, wire.settings), await produce(wire, 20)
    ledger = audit.ledger.ledger
    await ledger.append([r for r in sent[:15] if r.offset not in (4, 5, 9)])
    assert await told(checker) == (False, [(4, 6), (9, 10)], [], 5)
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.01)
    module.HOLES.set(0)
    with capture_logs() as logs:
        alarm = asyncio.create_task(checker.run())
        try:
            await until(lambda: module.HOLES._value.get() == 3, 20)
        finally:
            alarm.cancel()
    assert ("critical", 3) in [(line["log_level"], line.get("holes")) for line in logs]
    # Filled: what follows comes again, and is no entry. Nothing of it is a hole, in either epoch.
    await ledger.append(sent[9:12])
    assert await told(checker) == (False, [(4, 6)], [], 8)
    await ledger.append(sent[4:])
    assert await told(checker) == (True, [], [], 0)
    assert len(await audit.rows(tables.entry)) == 20
    # Another process begins with all of it.
    assert await told(Completeness(audit.db, wire.settings)) == (True, [], [], 0)


@pytest.mark.one_broker
async def test_an_explanation_is_asked_for_again(audit: Harness, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes records out of the log may explain the gaps, too: before the first, between and behind the last."""
    monkeypatch.setattr("audit.broker.CHUNK", 3)
    sent, ledger = await produce(wire, 20), audit.ledger.ledger
    await ledger.append([r for r in sent[1:] if r.offset not in (4, *range(7, 17))])
    checker = Completeness(audit.db, wire.settings)
    assert await told(checker) == (False, [(0, 1), (4, 5), (7, 17)], [], 0)
    await audit.tamper("delete from audit.entry where kafka_offset = 19")
    for low, high in ((0, 1), (4, 5), (6, 8), (8, 17), (19, 20)):
        await audit.execute(f"insert into audit.offset_gap values ('{PLACE[0]}', 0, 0, {low}, {high})")
    holes = [(0, 1), (4, 5), (7, 17), (19, 20)]
    for checking in (checker, Completeness(audit.db, wire.settings)):
        assert await told(checking, full=True) == (False, holes, [], 0)
        assert await told(checking) == (False, holes, [], 0)
    # No time for it: what was found stays found, and what was not asked yet is open.
    monkeypatch.setattr(module, "DOUBT_SECONDS", 0.0)
    assert (await told(checker, full=True))[:2] == (False, holes)
    complete, _, unconfirmed, _ = await told(Completeness(audit.db, wire.settings))
    assert complete is not True
    assert (4, 5) in unconfirmed
    monkeypatch.undo()
    # Filled, the explanations hold: the log has the records, from a later epoch. Of the end of a former epoch nobody
    # can tell any more.
    await ledger.append(sent)
    assert await told(checker) == (False, [(19, 20)], [], 0)


@pytest.mark.one_broker
async def test_an_explanation_stands_when_the_broker_forgot(audit: Harness, wire: Wire) -> None:
    ledger = audit.ledger.ledger
    before = [record(story()[0], topic=PLACE[0], offset=n, value=b"%d" % n) for n in range(10)]
    await ledger.append([r for r in before if r.offset != 4])
    await audit.execute(f"insert into audit.offset_gap values ('{PLACE[0]}', 0, 0, 4, 5)")
    await ledger.append(await produce(wire, 8))
    assert await told(Completeness(audit.db, wire.settings)) == (True, [], [], 0)


@pytest.mark.one_broker
async def test_a_group_that_is_set_back_to_a_hole_fills_it(audit: Harness, wire: Wire) -> None:
    """The whole service: what an operator does when the alarm is raised."""
    sent = await produce(wire, 12)
    await audit.ledger.ledger.append([r for r in sent if r.offset != 3])
    await commit(wire, 3)
    async with serving(wire):
        await logged(audit, 12)
        sent = await produce(wire, 1, "later")
        await logged(audit, 13)
        await projected(audit)
    entries = [e for e in await audit.entries() if e["topic"] != AUDIT_EVENTS.name]
    assert [e["kafka_offset"] for e in entries] == [*range(3), *range(4, 12), 3, 12]
    assert (await told(Completeness(audit.db, wire.settings)))[:3] == (True, [], [])


@pytest.mark.one_broker
@pytest.mark.parametrize("held", [0, 3])
async def test_a_group_that_is_ahead_of_the_log_goes_back(
    audit: Harness, wire: Wire, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database from a backup, or somebody who set the group forward: nothing is passed over, also when the database
    is away at first."""
    taken, tries = Ledger.taken, Tally[str]()

    async def away(self: Ledger, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        tries[topic] += 1
        if tries[topic] < 3:
            raise ConnectionError("away")
        return await taken(self, topic, partitions)

    monkeypatch.setattr(Ledger, "taken", away)
    sent = await produce(wire, 8)
    await audit.ledger.ledger.append(sent[:held])
    await commit(wire, 6)
    async with serving(wire):
        await logged(audit, 8)
    entries = [e for e in await audit.entries() if e["topic"] != AUDIT_EVENTS.name]
    assert [e["kafka_offset"] for e in entries] == list(range(8))


@pytest.mark.one_broker
async def test_another_log_of_the_broker_explains_nothing(audit: Harness, wire: Wire) -> None:
    """The broker forgot its log: what it has at the same offsets says nothing of the ones before."""
    ledger = audit.ledger.ledger
    before = [record(story()[0], topic=PLACE[0], offset=n, value=b"%d" % n) for n in range(10)]
    await ledger.append([r for r in before if r.offset != 4])
    checker, sent = Completeness(audit.db, wire.settings), await produce(wire, 8)
    assert await told(checker) == (None, [], [(0, 8), (4, 5)], 0)
    await ledger.append(sent)
    assert await told(checker) == (False, [(4, 5)], [], 0)
    # And one that was passed over in the new one, where the old one has something else.
    sent = await produce(wire, 4, "more")
    await ledger.append([r for r in sent[8:] if r.offset != 9])
    assert await told(checker) == (False, [(4, 5), (9, 10)], [], 0)


@pytest.mark.one_broker
@pytest.mark.parametrize("read_on", [False, True])
async def test_a_topic_made_anew_that_has_grown_past_us_is_a_hole(audit: Harness, wire: Wire, read_on: bool) -> None:
    """There is no gap in the offsets: the records tell. What was read of the new log since hides nothing."""
    ledger, checker = audit.ledger.ledger, Completeness(audit.db, wire.settings)
    await ledger.append([record(story()[0], topic=PLACE[0], offset=n, value=b"%d" % n) for n in range(5)])
    sent = await produce(wire, 9)
    if read_on:
        await ledger.append(sent[5:])
    for how in ({}, {}, {"full": True}):
        assert await told(checker, **how) == (False, [(0, 5)], [], 0 if read_on else 4)
    # The group is set back: an epoch begins, which has all of it.
    await ledger.append(sent)
    assert await told(checker) == (True, [], [], 0)


@pytest.mark.one_broker
async def test_only_what_is_new_is_looked_at(audit: Harness, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole in it alarms at once; one that somebody makes in what was looked at, by the next day."""
    checker, sent = Completeness(audit.db, wire.settings), await produce(wire, 12)
    ledger, walk = audit.ledger.ledger, gaps.Gaps._page
    starts: list[int] = []

    async def watched(self: gaps.Gaps, book: gaps.Book, start: int) -> Any:
        starts.append(start)
        return await walk(self, book, start)

    monkeypatch.setattr(gaps.Gaps, "_page", watched)
    await ledger.append(sent[:6])
    assert await told(checker) == (True, [], [], 6)
    starts.clear()
    await ledger.append([r for r in sent[6:] if r.offset != 8])
    assert await told(checker) == (False, [(8, 9)], [], 0)
    assert min(starts) == 6
    await audit.tamper("delete from audit.entry where kafka_offset = 2")
    assert await told(checker) == (False, [(8, 9)], [], 0)
    assert await told(checker, full=True) == (False, [(2, 3), (8, 9)], [], 0)


async def test_without_the_broker_a_gap_is_no_hole_yet(audit: Harness) -> None:
    await audit.ledger.ledger.append([record(e, offset=n) for n, e in enumerate(story(), 3) if n != 4])
    found = await audit.get("/v1/log/completeness")
    (item,) = found["items"]
    assert (found["complete"], item["holes"], item["unconfirmed"]) == (None, [], [[4, 5]])
    assert item["never_read"] == 3
    assert found["broker"]


async def test_streams_are_followed(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.sequences.PAGE", 3)
    walk = sequences.Sequences(audit.db)
    events = story()
    await audit.ledger.append([record(e) for e in events[:4]])
    assert await walk.holes() == []
    await audit.ledger.append([record(e) for e in events[5:]])
    broken = {"topic": REGISTRY_EVENTS.name, "stream": "default/fraud", "lowest": 1, "highest": 9, "found": 8}
    assert await walk.holes() == [broken]
    assert await walk.holes() == [broken]
    await audit.ledger.append([record(event(registered(1, "late"), 2))])
    assert [hole["stream"] for hole in await walk.holes()] == ["default/fraud", "default/late"]
    await audit.ledger.append([record(events[4]), record(event(registered(1, "late"), 1))])
    assert await walk.holes() == []
    # A view that lost a row is found when all is looked at again.
    await audit.execute("delete from audit.timeline where sequence = 3")
    assert await walk.holes() == []
    walk.forget()
    assert await walk.holes() == [{**broken, "found": 8}]


async def test_the_alarm_is_raised_and_the_check_goes_on(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the database ends nothing."""
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.01)
    checker, tries = Completeness(audit.db, audit.settings), 0

    async def failing(**_: Any) -> Any:
        nonlocal tries
        tries += 1
        raise ConnectionError("away") if tries < 3 else KeyboardInterrupt

    monkeypatch.setattr(checker, "check", failing)
    with pytest.raises(KeyboardInterrupt):
        await checker.run()
    assert tries == 3
    good: dict[str, Any] = {"streams": [], "broker": None, "items": []}
    item: dict[str, Any] = {"missing": 2, "unread": 5, "unconfirmed": [(1, 4)]}
    checker._tell({**good, "items": [item]})
    assert (module.HOLES._value.get(), module.UNREAD._value.get(), module.UNCONFIRMED._value.get()) == (2, 5, 3)
    seen = module.CHECKED._value.get()
    checker._tell({**good, "broker": "away", "items": [{**item, "unread": None}]})
    assert (module.UNREAD._value.get(), module.CHECKED._value.get()) == (5, seen)
    checker._tell(good)
