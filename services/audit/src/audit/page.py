"""What a page of entries reads and writes beside its folds, kept together so that it costs few statements."""

from collections import defaultdict
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import claims
from audit.bulk import Row, copy
from audit.knowledge import Known
from audit.rules import History
from audit.turns import Turns
from audit.view_tables import alias_interval, claim, fact, stage_interval, timeline

FIRSTS = sa.text(
    "select w.topic, w.id, t.content, min(t.index)"
    " from unnest(cast(:topics as text[]), cast(:ids as text[])) as w (topic, id)"
    " join audit.timeline t on t.topic = w.topic and t.event_id = w.id group by w.topic, w.id, t.content"
)


class Page:
    """The state of one page in its transaction. `now` is the entry that is being folded: what it changes is known
    from there on."""

    def __init__(self, tx: AsyncConnection) -> None:
        self.tx = tx
        self.now = -1
        self.turns = Turns(tx)
        self.stages = Known(tx, stage_interval, ("workspace", "model", "version"))
        self.aliases = Known(tx, alias_interval, ("workspace", "model", "alias"), alias_interval.c.until.is_(None))
        self.timeline: list[Row] = []
        self.claims: list[Row] = []
        self.facts: list[Row] = []
        # Of each id, what was said under it, and where first. None: said before contents were kept.
        self._firsts: defaultdict[tuple[str, str], dict[bytes | None, int]] = defaultdict(dict)
        self._asked: set[tuple[str, str]] = set()
        self._histories: dict[str, History] = {}

    async def load(self, ids: Iterable[tuple[str, str]]) -> None:
        """Reads the first entries of each (topic, event id)."""
        wanted = sorted(set(ids) - self._asked)
        if wanted:
            self._asked |= {*wanted}
            given = {"topics": [topic for topic, _ in wanted], "ids": [name for _, name in wanted]}
            for topic, name, content, index in await self.tx.execute(FIRSTS, given):
                self._firsts[topic, name].setdefault(content, index)

    async def first(self, topic: str, event_id: str, content: bytes) -> int | None:
        """The first entry of this page or of those before it that is this very event."""
        await self.load([(topic, event_id)])
        said = self._firsts[topic, event_id]
        return said.get(content, said.get(None))

    async def rival(self, index: int, topic: str, event_id: str, content: bytes) -> int | None:
        """The first entry before `index` with the event id that says something else."""
        await self.load([(topic, event_id)])
        said = self._firsts[topic, event_id].items()
        return min((first for what, first in said if what not in (content, None) and first < index), default=None)

    def tell(self, row: Row) -> None:
        """Adds a row to the timeline."""
        self.timeline.append(row)
        if row["event_id"] is not None:
            self._firsts[row["topic"], row["event_id"]].setdefault(row["content"], row["index"])

    async def history(self, workspace: str) -> History:
        """The rules of a workspace, as known by now."""
        if workspace not in self._histories:
            self._histories[workspace] = await claims.history(self.tx, workspace)
        return self._histories[workspace]

    def forget_history(self, workspace: str) -> None:
        self._histories.pop(workspace, None)

    async def settle(self) -> None:
        """Writes what statements over the timeline and the claims have to see."""
        for table, rows in ((timeline, self.timeline), (claim, self.claims), (fact, self.facts)):
            await copy(self.tx, table, rows)
            rows.clear()

    async def flush(self) -> None:
        await self.settle()
        await self.stages.flush()
        await self.aliases.flush()
        await self.turns.flush()
