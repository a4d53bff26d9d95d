"""Is anything missing? The log's offsets against the broker's, and the sequences of every stream.

An offset of which the broker has a record and the log has none is a hole, and so is one that the broker deleted before
it was read, once we had begun to read. What it had deleted before our very first record is no alarm: `never_read`
counts those offsets, and the sequences of the streams tell what of it is missed. Transaction markers and compacted
records take offsets too: what the broker has no record for is no hole, and is remembered, since the broker itself
forgets one day. In a later epoch (the broker forgot its log, or somebody went back to fill a hole) records of the
epochs before come again and are no entries: there the records are compared.

A topic that was made anew, and has grown past the place where we read, leaves no gap: so the first and the last record
that both have are compared, too. Where they differ, what the broker has there is not in the log: a hole.

Everything is looked at when the service starts, and once a day; in between only what is new. Then also what was
explained is asked again, where the broker still has those offsets: whoever took a record out of the log may have
written an explanation, too.
"""

import asyncio
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from audit.broker import Broker, Span
from audit.comparing import Comparison
from audit.gaps import MOST as MOST_GAPS
from audit.gaps import Book, Gaps, Hole, Key, merged, without
from audit.sequences import Sequences
from kit.db import Database
from kit.settings import Settings
from kit.tasks import repeat

log = structlog.get_logger()
Document = dict[str, Any]
HOLES = Gauge("hallmark_audit_holes", "Missing offsets, and streams with missing sequences, at the last check")
UNCONFIRMED = Gauge("hallmark_audit_unconfirmed_offsets", "Offsets not in the log that the broker must still explain")
UNREAD = Gauge("hallmark_audit_unread_records", "Records of the broker that are not in the log yet, at the last check")
CHECKED = Gauge("hallmark_audit_completeness_checked_seconds", "When the last check ended that reached the broker")
EVERY_SECONDS = 60.0
FULL_SECONDS = 86_400.0
BROKER_SECONDS = 10.0
DOUBT_SECONDS = 5.0  # of these at the most; the next check goes on
MOST = 100


class Completeness:
    def __init__(self, db: Database, settings: Settings) -> None:
        self._db, self._settings = db, settings
        self._gaps, self._sequences = Gaps(db), Sequences(db)
        self._holes: set[tuple[Key, Hole]] = set()  # known to be some
        self._compared: set[tuple[str, int, int, int, int, int]] = set()  # the broker's records are ours
        self._doubted: dict[Key, list[Hole]] = {}  # explained, and to be asked for again
        self._refuted: dict[tuple[Key, int], list[Hole]] = {}  # by the end of the gap: explained, and yet holes
        self._busy = asyncio.Lock()
        self._full_at = 0.0

    async def run(self) -> None:
        """Looks now and then and raises the alarm, until cancelled."""

        async def step() -> None:
            self._tell(await self.check())

        await asyncio.sleep(EVERY_SECONDS)
        await repeat(step, lambda: asyncio.sleep(EVERY_SECONDS), "completeness")

    def _tell(self, found: Document) -> None:
        holes = sum(item["missing"] for item in found["items"]) + len(found["streams"])
        HOLES.set(holes)
        UNCONFIRMED.set(sum(until - first for item in found["items"] for first, until in item["unconfirmed"]))
        if found["broker"] is None:
            UNREAD.set(sum(item["unread"] or 0 for item in found["items"]))
            CHECKED.set_to_current_time()
        if holes:
            log.critical("records are missing in the log", holes=holes, more="GET /v1/log/completeness")

    async def check(self, *, full: bool = False) -> Document:
        """`complete` is None where nothing is known to be missing, but the broker could not be asked, or has not
        explained every gap yet. `full`: everything is looked at again."""
        async with self._busy:
            clock = asyncio.get_running_loop().time()
            if full or clock >= self._full_at:
                self._gaps.forget()
                self._sequences.forget()
                self._compared.clear()
                self._doubted.clear()
                self._full_at = clock + FULL_SECONDS
            books = await self._gaps.books()
            gaps = {book.key: await self._gaps.of(book, self._doubted.setdefault(book.key, [])) for book in books}
            is_through = all(len(doubted) < MOST_GAPS for doubted in self._doubted.values())
            streams = await self._sequences.holes()
            spans, problem = await self._ask(books, gaps)
            left = {(key, gap) for key, found in gaps.items() for gap in found}
            if problem is None:
                self._holes &= left
            left |= {(key, gap) for key, doubted in self._doubted.items() for gap in doubted}
        items = [self._told(place, books, left, spans) for place in sorted({b.place for b in books} | spans.keys())]
        missing = bool(streams) or any(item["missing"] for item in items)
        open_ = problem is not None or not is_through or any(item["unconfirmed"] for item in items)
        complete = False if missing else None if open_ else True
        return {"items": items, "streams": streams[:MOST], "broker": problem, "complete": complete}

    async def _ask(
        self, books: list[Book], gaps: dict[Key, list[Hole]]
    ) -> tuple[dict[tuple[str, int], Span], str | None]:
        """Asks the broker about the gaps, and takes out those that it explains. What it has, or why it did not say."""
        spans: dict[tuple[str, int], Span] = {}
        stop_at = asyncio.get_running_loop().time() + DOUBT_SECONDS
        try:
            async with Broker.asked(self._settings, BROKER_SECONDS) as broker:
                spans, compare = await broker.spans(), Comparison(self._db, broker)
                for book in books:
                    span = spans.get(book.place)
                    if span is not None and book.is_newest:
                        gaps[book.key] += await self._gaps.rest(book, span[0], book.lowest, self._doubted[book.key])
                        gaps[book.key] += [(book.next, span[0])] if span[0] > book.next else []
                for book in books:
                    left = []
                    for n, hole in enumerate(gaps[book.key]):
                        try:
                            left += await self._examine(compare, book, hole, spans.get(book.place))
                        except BaseException:
                            gaps[book.key] = [*left, *gaps[book.key][n:]]
                            raise
                    gaps[book.key] = left
                for book in books:
                    if book.place in spans:
                        await self._doubt(compare, book, spans[book.place], stop_at)
                for book in books:
                    if book.is_newest and book.place in spans:
                        gaps[book.key] += await self._replaced(compare, book, gaps[book.key], spans[book.place])
        except (KafkaError, OSError) as error:  # TimeoutError is one
            return spans, f"the broker could not be asked: {error!r}"
        return spans, None

    async def _examine(self, compare: Comparison, book: Book, hole: Hole, span: Span | None) -> list[Hole]:
        """What is left of a gap after the broker was asked about it."""
        first, until = hole
        if span is None or first < span[0]:
            self._holes.add((book.key, hole))
            return [hole]
        if not await compare.is_same_log(book, until, span[1]):
            if not book.is_newest:  # nobody can tell any more
                self._holes.add((book.key, hole))
            return [hole]
        holes: list[Hole] = []
        while first < until:
            reached, found = await compare.missing(book.place, (first, until), span[1])
            for low, high in without([(first, reached)], found):
                await self._gaps.explain(book, low, high)
            first, holes = reached, holes + found
        self._holes |= {(book.key, found) for found in holes}
        return holes

    async def _replaced(self, compare: Comparison, book: Book, gaps: list[Hole], span: Span) -> list[Hole]:
        mark = (*book.key, book.next, *span)
        if mark in self._compared:
            return []
        doubted = [*self._doubted[book.key], *(hole for key, hole in self._broken() if key == book.key)]
        found = await compare.replaced(book, [*gaps, *doubted], span)
        if not found:
            self._compared = {seen for seen in self._compared if seen[:3] != book.key} | {mark}
        if span[1] >= book.next:  # else it will be read from its beginning: there the group goes by itself
            self._holes |= {(book.key, hole) for hole in found}
        return found

    async def _doubt(self, compare: Comparison, book: Book, span: Span, stop_at: float) -> None:
        """Asks again about gaps that are explained, and again and again about those where that does not hold. Where
        the broker has the offsets no more, all stays as it was."""
        doubted = self._doubted[book.key]
        ends = {until for _, until in doubted}
        for (key, until), holes in self._refuted.items():
            if key == book.key and until not in ends:
                doubted.append((holes[0][0], until))
        while doubted and asyncio.get_running_loop().time() < stop_at:
            first, until = max(doubted[0][0], span[0]), doubted[0][1]
            reached = until
            if first < until and await compare.is_same_log(book, until, span[1]):
                reached, found = await compare.missing(book.place, (first, until), span[1])
                before = self._refuted.pop((book.key, until), [])
                if holes := sorted([*(hole for hole in before if not first <= hole[0] < reached), *found]):
                    self._refuted[book.key, until] = holes
            doubted[:1] = [(reached, until)] if reached < until else []

    def _broken(self) -> set[tuple[Key, Hole]]:
        return {(key, hole) for (key, _), holes in self._refuted.items() for hole in holes}

    def _told(
        self,
        place: tuple[str, int],
        books: list[Book],
        left: set[tuple[Key, Hole]],
        spans: dict[tuple[str, int], Span],
    ) -> Document:
        span, mine = spans.get(place), [book for book in books if book.place == place]
        known = self._holes | self._broken()
        said = {"topic": place[0], "partition": place[1], "earliest": span and span[0], "latest": span and span[1]}
        if not mine:
            assert span is not None
            nothing = {"epoch": None, "lowest": None, "next": None, "entries": 0, "unread": span[1] - span[0]}
            nothing |= {"never_read": span[0]}
            return {**said, **nothing, "holes": [], "unconfirmed": [], "missing": 0}
        newest = mine[-1]
        # One that was read again may be missing in two epochs.
        holes = merged(sorted(gap for key, gap in known if key[:2] == place))
        return {
            **said,
            **{name: getattr(newest, name) for name in ("epoch", "lowest", "next", "entries")},
            "unread": None if span is None else max(span[1] - max(newest.next, span[0]), 0),
            "holes": holes[:MOST],
            "unconfirmed": sorted(gap for key, gap in left - known if key[:2] == place)[:MOST],
            "missing": sum(until - first for first, until in holes),
            "never_read": mine[0].lowest if span is None else min(span[0], mine[0].lowest),
        }
