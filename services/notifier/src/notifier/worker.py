"""The worker: leases what is due, sends it, records how it went. Any number may run against one database.

At least once: a crash between the receiver's answer and the commit leaves a lease that runs out, and the next try
carries the same ids. The wait is short because the consumer of this process wakes it; the poll is the guarantee.
"""

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType

import structlog
from prometheus_client import Counter, Gauge, Histogram

from contracts.notifier import Channel
from kit.db import Database
from kit.errors import is_transient
from kit.events import EventLog
from notifier import endpoints, leasing, queue
from notifier.breaker import Rate
from notifier.channels import Parcel, Sender
from notifier.leasing import Lease
from notifier.recording import Done, Recorded, record
from notifier.retrying import Outcome, Schedule, Verdict
from notifier.rights import Rights
from notifier.tables import FORMER, SIGNING, UNSUBSCRIBE
from notifier.templating import Templates
from notifier.vault import Vault, VaultError

log = structlog.get_logger()
TRIES = Counter("hallmark_deliveries_total", "Tries of deliveries", ["channel", "verdict"])
SECONDS = Histogram("hallmark_delivery_seconds", "How long one try took", ["channel"])
OPEN = Gauge("hallmark_deliveries_open", "Deliveries not done yet")
AGE = Gauge("hallmark_deliveries_oldest_seconds", "Age of the oldest open delivery")
Ended = tuple[Done, "asyncio.Future[None]"]
BATCH = 200
# Until a stream that another transaction holds is looked at again.
HELD_PAUSE = 0.02
# How long the first try that ends waits for others: what ends together is written down together, and what follows it
# is leased together. Most of the cost is of the transaction.
GATHER_SECONDS = 0.005
HELD = Gauge("hallmark_endpoints_held", "Endpoints that are left in peace because they are ill")
DEAD = Counter("hallmark_deliveries_dead_total", "Deliveries given up")
RECORD_PAUSES = (0.05, 0.2, 1.0, 2.0, 4.0, 8.0)
BACKLOG_EVERY_SECONDS = 5.0


class Worker:
    def __init__(
        self,
        db: Database,
        log_: EventLog,
        senders: Mapping[Channel, Sender],
        vault: Vault,
        rights: Rights,
        schedule: Schedule,
        wake: asyncio.Event,
        *,
        rates: Mapping[str, Rate] = MappingProxyType({}),
        templates: Templates | None = None,
        concurrency: int = 64,
        share: int = 4,
        lease_seconds: float = 45,
        poll_seconds: float = 1,
        graceful_seconds: float = 10,
    ) -> None:
        self._db, self._log, self._senders, self._vault = db, log_, senders, vault
        self._schedule, self._wake, self._rates = schedule, wake, rates
        self._rights, self._templates = rights, templates
        self._concurrency, self._share = concurrency, share
        self._lease_seconds, self._poll, self._graceful = lease_seconds, poll_seconds, graceful_seconds
        self._running: dict[asyncio.Task[None], str] = {}
        self._ended: asyncio.Queue[Ended] = asyncio.Queue()
        self._measured = 0.0

    async def run(self) -> None:
        """Runs until cancelled; then lets the tries under way finish."""
        recorder = asyncio.create_task(self._keep_recording())
        try:
            while True:
                self._wake.clear()
                try:
                    await self._round()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    log.warning("cannot lease deliveries; trying again", error=repr(error))
                # Not `wait_for`: before Python 3.12 it swallows a cancellation that meets the wake-up.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll):
                        await self._wake.wait()
        finally:
            if self._running:
                _, late = await asyncio.wait(self._running, timeout=self._graceful)
                for task in late:
                    task.cancel()
            recorder.cancel()

    async def _round(self) -> None:
        await self._measure()
        free = self._concurrency - len(self._running)
        if free <= 0:
            return
        busy = Tally(self._running.values())
        async with self._db.transaction() as tx:
            leases = await leasing.lease(
                tx, free=free, share=self._share, busy=busy, seconds=self._lease_seconds, rates=self._rates
            )
        for lease in leases:
            task = asyncio.create_task(self._deliver(lease))
            self._running[task] = lease.subscription.subscription_id
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        # The next of the lane may be due, and a place is free.
        self._running.pop(task, None)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a delivery failed; its lease runs out", exc_info=task.exception())

    async def _deliver(self, lease: Lease) -> None:
        channel, started = lease.subscription.channel, time.monotonic()
        outcome = await self._send(lease)
        took = time.monotonic() - started
        TRIES.labels(channel, outcome.verdict).inc()
        SECONDS.labels(channel).observe(took)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.put_nowait((Done(lease, outcome, took * 1000), written))
        await written

    async def _send(self, lease: Lease) -> Outcome:
        """Never raises: a fault of ours follows the schedule too, instead of running hot."""
        try:
            if denied := await self._rights.refusal(lease.subscription, lease.envelope):
                return Outcome(Verdict.DENIED, denied, ours=True)
            parcel = self._parcel(lease)
            if self._templates is not None:
                worded = await self._templates.worded(lease.subscription, lease.delivery_id, lease.envelope)
                parcel = replace(parcel, worded=worded.parts) if worded else parcel
            return await self._senders[lease.subscription.channel].send(parcel)
        except VaultError as error:
            return Outcome(Verdict.RETRY, str(error), ours=True)
        except Exception as error:
            log.error("cannot send", delivery_id=str(lease.delivery_id), exc_info=error)
            return Outcome(Verdict.RETRY, f"an error of the notifier: {type(error).__name__}", ours=True)

    def _parcel(self, lease: Lease) -> Parcel:
        of = lease.subscription
        secrets = {name: self._vault.read(of.subscription_id, name, value) for name, value in lease.secrets.items()}
        return Parcel(
            delivery_id=str(lease.delivery_id),
            subscription_id=of.subscription_id,
            envelope=lease.envelope,
            address=secrets.get("address", of.address),
            secret=secrets.get(SIGNING),
            format=of.format,
            unsubscribe=secrets.get(UNSUBSCRIBE),
            formers=tuple(secret for name, secret in sorted(secrets.items()) if name.startswith(FORMER)),
        )

    async def _keep_recording(self) -> None:
        """Writes down what has ended by then, all in one transaction: what ends meanwhile is the next batch."""
        left: list[Ended] = []
        while True:
            if not left:
                left = [await self._ended.get()]
                if len(self._running) > 1:
                    await asyncio.sleep(GATHER_SECONDS)
            while len(left) < BATCH and not self._ended.empty():
                left.append(self._ended.get_nowait())
            left = await self._write(left)
            if left and self._ended.empty():
                await asyncio.sleep(HELD_PAUSE)

    async def _write(self, batch: list[Ended]) -> list[Ended]:
        """Gives back those whose subscription another transaction holds."""
        try:
            recorded = await self._record([done for done, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # the fault may be of one
                return [late for one in batch for late in await self._write([one])]
            if not batch[0][1].cancelled():
                batch[0][1].set_exception(error)
            return []
        for found in recorded:
            lease, outcome = found.done.lease, found.done.outcome
            DEAD.inc(found.follows is not None and found.follows.status == "dead")
            log.info(
                "delivery tried",
                delivery_id=str(lease.delivery_id),
                attempt=lease.attempt,
                verdict=str(outcome.verdict),
                detail=outcome.detail,
                then=found.follows.status if found.follows else "lease lost",
            )
        known = {id(found.done) for found in recorded}
        for done, written in batch:
            if id(done) in known and not written.cancelled():
                written.set_result(None)
        return [(done, written) for done, written in batch if id(done) not in known and not written.cancelled()]

    async def _record(self, batch: list[Done]) -> list[Recorded]:
        """Tries for a while when the database is away: giving up means sending again."""
        for pause in (*RECORD_PAUSES, None):
            try:
                async with self._db.transaction() as tx:
                    return await record(tx, self._log, batch, self._schedule)
            except Exception as error:
                if pause is None or not is_transient(error):
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("the last pause is None")

    async def _measure(self) -> None:
        if time.monotonic() - self._measured >= BACKLOG_EVERY_SECONDS:
            async with self._db.transaction() as tx:
                count, age = await queue.backlog(tx)
                HELD.set(await endpoints.held(tx))
            OPEN.set(count)
            AGE.set(age)
            self._measured = time.monotonic()
