"""The small service of `support`, on the shared servers."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.integration.kit.support import TOPIC, Eyes, Store, create_topics, settings_for

from contracts.topics import Topic
from embedded.fixtures import Kafka
from kit.bus import BATCH_SIZE, BatchHandler, Bus, Handler
from kit.consume import Apply, Ordered
from kit.db import Database
from kit.outbox import Relay
from kit.settings import Settings
from kit.tasks import cancel


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """A database of its own with the mechanism's tables."""
    store = await Store.make(database)
    yield store
    await store.close()


@dataclass
class Place:
    """A store, a broker, and everything started in the test, stopped after it."""

    store: Store
    kafka: Kafka
    prefix: str
    buses: list[Bus] = field(default_factory=list)
    tasks: list["asyncio.Task[Any]"] = field(default_factory=list)

    @property
    def eyes(self) -> Eyes:
        return Eyes(self.kafka.bootstrap, self.prefix)

    def settings(self, **changes: Any) -> Settings:
        if self.kafka.kind == "tansu":  # it holds every join for a while: 8 s for a static member, 1 s so
            changes = {"instance": "", "kafka_session_seconds": 2, **changes}
        return settings_for(
            self.kafka.bootstrap,
            url=self.store.url,
            prefix=self.prefix,
            idempotence=self.kafka.idempotence,
            **changes,
        )

    def bus(self, **changes: Any) -> Bus:
        bus = Bus(self.settings(**changes), "kit")
        self.buses.append(bus)
        return bus

    async def listen(self, handler: Handler, topic: Topic = TOPIC, **changes: Any) -> Bus:
        bus = self.bus(**changes)
        bus.subscribe(topic, handler)
        await bus.start()
        return bus

    async def listen_many(self, handler: BatchHandler, *, size: int = BATCH_SIZE, **changes: Any) -> Bus:
        bus = self.bus(**changes)
        bus.subscribe_batch(TOPIC, handler, size)
        await bus.start()
        return bus

    async def project(self, apply: Apply, *, db: Database | None = None, **changes: Any) -> Bus:
        """A consumer that applies each stream's events in order."""
        bus = self.bus(**changes)
        bus.subscribe(TOPIC, Ordered(db or self.store.db, self.store.inbox, bus, TOPIC, apply))
        await bus.start()
        return bus

    def relay(self, kind: type[Relay] = Relay, *, db: Database | None = None, **options: Any) -> Relay:
        return kind(
            db or self.store.db,
            self.store.log(),
            bootstrap=self.kafka.bootstrap,
            idempotence=self.kafka.idempotence,
            prefix=self.prefix,
            **{"poll_seconds": 0.05, **options},
        )

    def run(self, relay: Relay) -> "asyncio.Task[None]":
        task = asyncio.create_task(relay.run())
        self.tasks.append(task)
        return task

    async def close(self) -> None:
        for bus in self.buses:
            await bus.stop()
        for task in self.tasks:
            await cancel([task])


@pytest.fixture
async def place(store: Store, kafka: Kafka, topic_prefix: str) -> AsyncIterator[Place]:
    await create_topics(kafka.bootstrap, topic_prefix)
    place = Place(store, kafka, topic_prefix)
    yield place
    await place.close()
