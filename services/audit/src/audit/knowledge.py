"""Intervals with knowledge time, for one page of entries.

Nothing that was known is overwritten: a change closes the known row at the entry that brings it and adds another. What
an entry adds and takes back again was never known, so it leaves no row. The result does not depend on where a page
begins or ends.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.bulk import Row, copy

Key = tuple[Any, ...]


@dataclass(eq=False)
class _Known:
    values: Row
    stored: bool


class Known:
    """The rows of one table that are known, by the columns `key` of which the first two are workspace and model.

    Of a key only the rows that `wanted` selects are read, all of them when it is None.
    """

    def __init__(
        self, tx: AsyncConnection, table: sa.Table, key: tuple[str, ...], wanted: sa.ColumnElement[bool] | None = None
    ) -> None:
        self._tx, self._table, self._key, self._wanted = tx, table, key, wanted
        self._rows: dict[Key, list[_Known]] = {}
        self._whole: set[Key] = set()
        self._fresh: list[_Known] = []
        self._ended: list[_Known] = []
        self._gone: list[_Known] = []
        self._before: list[_Known] = []

    async def load(self, keys: Iterable[Key]) -> None:
        new = sorted({key for key in keys if key not in self._rows and key[:2] not in self._whole})
        if not new:
            return
        self._rows |= {key: [] for key in new}
        columns = [self._table.c[name] for name in self._key]
        given = [
            sa.func.unnest(sa.cast([key[n] for key in new], sa.ARRAY(column.type))) for n, column in enumerate(columns)
        ]
        among = sa.tuple_(*columns).in_(sa.select(*given))
        await self._read(among if self._wanted is None else sa.and_(among, self._wanted))

    async def of(self, key: Key) -> list[Row]:
        if key not in self._rows:
            await self.load([key])
        return [row.values for row in self._rows.get(key, [])]

    async def any(self, model: Key, *conditions: tuple[str, Any]) -> bool:
        """Whether a known row of the model has all these values."""
        kept = (row.values for key, rows in self._rows.items() if key[:2] == model for row in rows)
        if any(all(values[name] == value for name, value in conditions) for values in kept):
            return True
        if model in self._whole:
            return False
        c = self._table.c
        ended = {(row.values["index"], row.values["known_from"]) for row in self._ended}
        query = sa.select(c["index"], c.known_from).where(
            c.workspace == model[0],
            c.model == model[1],
            c.known_until.is_(None),
            *(c[name] == value for name, value in conditions),
        )
        found = {(index, known_from) for index, known_from in await self._tx.execute(query)}
        return bool(found - ended)

    def add(self, now: int, values: Row) -> None:
        row = _Known({**values, "known_from": now, "known_until": None}, stored=False)
        self._fresh.append(row)
        self._rows.setdefault(self._key_of(row), []).append(row)

    def change(self, now: int, is_meant: Callable[[Row], bool], key: Key, **changes: Any) -> None:
        """Gives the rows of a loaded key that are meant other values, from the entry `now` on."""
        for row in [row for row in self._rows.get(key, []) if is_meant(row.values)]:
            self._end(row, now)
            self.add(now, {**row.values, **changes})

    async def begin_again(self, model: Key) -> None:
        """Sets aside what is known of a model, to be folded again from nothing."""
        await self.flush()
        self._rows = {key: rows for key, rows in self._rows.items() if key[:2] != model}
        c = self._table.c
        await self._read(sa.and_(c.workspace == model[0], c.model == model[1]))
        self._before = [row for key, rows in self._rows.items() if key[:2] == model for row in rows]
        self._rows = {key: rows for key, rows in self._rows.items() if key[:2] != model}
        self._whole.add(model)

    def end_again(self, now: int, model: Key) -> None:
        """What came out as it was before stays known since then; the rest of it ends here."""
        before = {_content(row): row for row in self._before}
        for key, rows in self._rows.items():
            if key[:2] == model:
                self._rows[key] = [self._settle(row, before) for row in rows]
        for row in before.values():
            self._retire(row, now)
        self._before = []

    def _settle(self, row: _Known, before: dict[str, _Known]) -> _Known:
        same = before.pop(_content(row), None)
        if same is None:
            return row
        self._fresh.remove(row)
        return same

    def _end(self, row: _Known, now: int) -> None:
        self._rows[self._key_of(row)].remove(row)
        self._retire(row, now)

    def _retire(self, row: _Known, now: int) -> None:
        if row.values["known_from"] == now:
            (self._gone.append if row.stored else self._fresh.remove)(row)
            return
        row.values["known_until"] = now
        if row.stored:
            self._ended.append(row)

    async def flush(self) -> None:
        """Writes what has changed."""
        c = self._table.c
        place = (c["index"] == sa.bindparam("row_index"), c.known_from == sa.bindparam("row_known"))
        for rows, statement in (
            (self._gone, sa.delete(self._table).where(*place)),
            (self._ended, sa.update(self._table).where(*place).values(known_until=sa.bindparam("row_until"))),
        ):
            if rows:
                named = {"row_index": "index", "row_known": "known_from", "row_until": "known_until"}
                meant = [{name: row.values[column] for name, column in named.items()} for row in rows]
                await self._tx.execute(statement, meant)
        await copy(self._tx, self._table, [row.values for row in self._fresh])
        for row in self._fresh:
            row.stored = True
        self._fresh, self._ended, self._gone = [], [], []

    async def _read(self, which: sa.ColumnElement[bool]) -> None:
        found = await self._tx.execute(
            sa.select(self._table).where(which, self._table.c.known_until.is_(None)).order_by(self._table.c["index"])
        )
        for values in found.mappings():
            row = _Known(dict(values), stored=True)
            self._rows.setdefault(self._key_of(row), []).append(row)

    def _key_of(self, row: _Known) -> Key:
        return tuple(row.values[name] for name in self._key)


def _content(row: _Known) -> str:
    told = {name: value for name, value in row.values.items() if name not in ("known_from", "known_until")}
    return json.dumps(told, sort_keys=True, default=str)
