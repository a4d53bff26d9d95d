"""Pages of the feed. The cursor is the index of the last entry that was taken: what is asked for again comes again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Gauge

from audit.out.query import Query, Source
from audit.out.rows import Row
from audit.out.siem.cef import TEXT, cef
from audit.out.siem.cloudevents import BATCH, cloudevent
from audit.out.siem.ocsf import ocsf

LAG = Gauge("hallmark_audit_siem_lag", "Entries that the reader of the feed has not taken", ["sink"])
MAX_BYTES = 8 << 20
Mapper = Callable[[Row, str], dict[str, Any] | str]
FORMATS: dict[str, tuple[Mapper, str]] = {
    "ocsf": (ocsf, "application/json"),
    "cloudevents": (cloudevent, BATCH),
    "cef": (cef, TEXT),
}


@dataclass(frozen=True)
class Page:
    """`after`: the cursor to go on with. `lag`: how many entries there are behind it. `types`: those of the events."""

    records: Sequence[Any]
    types: Sequence[str | None]
    after: int
    lag: int
    form: str

    def body(self) -> bytes:
        """A JSON array, ASCII; of CEF a record a line, UTF-8."""
        if self.form == "cef":
            return "".join(f"{record}\n" for record in self.records).encode(errors="backslashreplace")
        return json.dumps(self.records, separators=(",", ":"), ensure_ascii=True).encode()


class Feed:
    def __init__(self, entries: Source, origin: str) -> None:
        self._entries, self._origin = entries, origin

    async def page(self, after: int, size: int, *, form: str, limit: int) -> Page:
        """At most `limit` entries of the log of `size` that come after that index (-1: from the first on)."""
        mapper, _ = FORMATS[form]
        records: list[Any] = []
        types: list[str | None] = []
        held, last = 0, after
        # Not beyond what was read: a record whose signature is no good would go out as if it were.
        end = min(size, await self._entries.known(), after + 1 + limit)
        async for rows in self._entries.batches(Query(after + 1, end)):
            for row in rows:
                records.append(mapper(row, self._origin))
                types.append(row.fields["type"])
                held, last = held + len(row.stored.full), row.stored.index
                if held > MAX_BYTES:
                    break
            if held > MAX_BYTES:
                break
        return Page(records, types, last, max(size - 1 - last, 0), form)
