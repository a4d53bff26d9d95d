"""The hub: one task that learns of changes for all watchers of the process.

It asks once for all watched models, woken by this process's own commits and by a clock for those of other replicas,
and wakes only the watchers concerned. A watcher holds no database connection.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import Gauge

from kit.db import Database
from kit.problems import Problem
from registry.serving.changes import PAGE, Change, Found, Group, History, State
from registry.serving.usage import Use

log = structlog.get_logger()
POLL_SECONDS = 0.5
# Of the time, the hub spends at most a fifth in the database, however many models are watched.
REST_FACTOR = 4.0
LEAST_REST_SECONDS = 0.01
MOST_WAITING = 64  # changes that a watcher may be behind
MOST_WATCHERS = 20_000
WATCHERS = Gauge("hallmark_watchers", "Open watch streams")


class Watcher:
    """One open stream. `next` gives its changes in order; the hub fills it."""

    def __init__(self, found: Found, principal: str) -> None:
        self.found = found
        self.principal = principal
        self.floor = 0  # what was told before: the state or the replay
        self.ended: str | None = None
        self.versions: dict[str, int] = {}  # by target, for usage
        self._target = str(found.target) if found.target else None
        self._waiting: deque[Group] = deque()
        self._news = asyncio.Event()

    def concerns(self, change: Change) -> bool:
        return self._target is None or change.target is None or change.target == self._target

    def concerning(self, group: Group) -> Group:
        """The changes of one event that this watcher asked for."""
        return tuple(change for change in group if self.concerns(change))

    def offer(self, groups: Sequence[Group]) -> None:
        """Never waits: who is too slow is disconnected, and resumes with Last-Event-ID.

        Too slow is who still has much of what was offered before, not who is offered much at once.
        """
        wanted = [concerning for group in groups if (concerning := self.concerning(group))]
        if self.ended is not None or not wanted:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.end("too slow")
            return
        self._waiting.extend(wanted)
        self._news.set()

    def end(self, why: str) -> None:
        self.ended = self.ended or why
        self._news.set()

    async def next(self, timeout: float) -> Group | None:
        """The next changes, those of one event. None: none for `timeout` seconds, or the watch has ended."""
        while self.ended is None:
            while self._waiting:
                group = self._waiting.popleft()
                if group[0].sequence > self.floor:
                    return group
            self._news.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                return None
        return None

    def told(self, group: Group) -> None:
        for change in group:
            if change.revoked is not None:
                self.versions = {target: v for target, v in self.versions.items() if v != change.version}
            elif change.target is not None and change.version is None:
                self.versions.pop(change.target, None)
            elif change.target is not None and change.version is not None:
                self.versions[change.target] = change.version


@dataclass
class _Room:
    """A watched model. `seen`: the last sequence that its watchers were offered."""

    seen: int
    watchers: set[Watcher] = field(default_factory=set)


class Hub:
    def __init__(self, db: Database, every: float = POLL_SECONDS) -> None:
        self.history = History(db)
        self._db = db
        self._every = every
        self._rooms: dict[str, _Room] = {}
        self._joining = asyncio.Semaphore(4)  # a storm of reconnects leaves connections for others
        self._closed = False
        self.watchers = 0

    async def join(self, found: Found, principal: str) -> tuple[Watcher, State]:
        """A watcher that gets every change after the returned state's sequence, exactly once.

        It is registered first and the state read second: what is committed between the two comes twice, and the one
        at or under the `floor` is dropped.

        Raises:
            Problem: 503, the process stops or has too many watchers.
        """
        if self._closed or self.watchers >= MOST_WATCHERS:
            raise Problem(503, "unavailable", "no more watchers here; come back in a moment")
        watcher = Watcher(found, principal)
        async with self._joining:
            if found.stream not in self._rooms:
                head = await self.history.head(found.stream)
                self._rooms.setdefault(found.stream, _Room(head))
            self._rooms[found.stream].watchers.add(watcher)
            self._count(1)
            try:
                state = await self.history.state(found)
            except BaseException:
                self.leave(watcher)
                raise
        watcher.floor = state.sequence
        watcher.versions = {t["target"]: t["version"] for t in state.targets if not t["revoked"]}
        if self._closed:
            watcher.end("stopping")
        return watcher, state

    def leave(self, watcher: Watcher) -> None:
        watcher.end("left")
        room = self._rooms.get(watcher.found.stream)
        if room is not None and watcher in room.watchers:
            room.watchers.discard(watcher)
            self._count(-1)
            if not room.watchers:
                del self._rooms[watcher.found.stream]

    def close(self) -> None:
        """Ends every stream at once: the server stops."""
        self._closed = True
        for room in self._rooms.values():
            for watcher in room.watchers:
                watcher.end("stopping")

    def present(self) -> Iterable[Use]:
        """The uses that last: what each open stream was told last."""
        for room in self._rooms.values():
            for watcher in room.watchers:
                found = watcher.found
                for version in set(watcher.versions.values()):
                    yield Use(found.workspace, found.model, version, watcher.principal, "watch")

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Waiting begins before the question: a commit while it is on its way is not slept over.
            woken = asyncio.create_task(self._db.changed.wait(self._every))
            await asyncio.sleep(0)
            began = loop.time()
            try:
                full = await self.poll()
            except Exception as error:
                full = False
                log.warning("watchers cannot be told of changes now", error=repr(error))
            took = loop.time() - began
            try:
                if not full:
                    await woken
            finally:
                woken.cancel()
            await asyncio.sleep(max(LEAST_REST_SECONDS, took * REST_FACTOR))

    async def poll(self) -> bool:
        """Tells watchers what is new, in one query for all. True when a stream has more news than one page."""
        if not self._rooms:
            return False
        news = await self.history.after({stream: room.seen for stream, room in self._rooms.items()})
        full = False
        for stream, (reached, groups) in news.items():
            room = self._rooms.get(stream)
            if room is None or reached <= room.seen:
                continue  # its watchers left, or it was made anew meanwhile
            full = full or reached - room.seen >= PAGE
            fresh = [group for group in groups if group[0].sequence > room.seen]
            for watcher in room.watchers:
                watcher.offer(fresh)
            room.seen = reached
        return full

    def _count(self, by: int) -> None:
        self.watchers += by
        WATCHERS.set(self.watchers)
