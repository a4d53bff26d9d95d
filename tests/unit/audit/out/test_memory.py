"""An export of many entries needs the memory of a few."""

import tracemalloc
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from tests.support.audit_rows import SIGNER, row
from tests.support.tlog_copy import ORIGIN, note_of

from audit.note import Checkpoint
from audit.out.export import export
from audit.out.query import Query
from audit.out.rows import Row
from contracts.registry import ModelDeleted

ONE = row(ModelDeleted(workspace="default", model="fraud", reason="r" * 1_000))


class Endless:
    """As many entries as are asked for, made when they are."""

    async def known(self) -> int:
        return 10**9

    async def pruned_until(self) -> int:
        return 0

    async def batches(self, query: Query) -> AsyncIterator[Sequence[Row]]:
        for start in range(query.start, query.end, 500):
            indexes = range(start, min(start + 500, query.end))
            yield [
                replace(ONE, stored=replace(ONE.stored, index=n), fields={**ONE.fields, "index": n}) for n in indexes
            ]


async def peak(size: int, form: str) -> int:
    """Bytes of Python's, at most."""
    head, note = Checkpoint(ORIGIN, size, bytes(32)), note_of(size, bytes(32))
    tracemalloc.start()
    try:
        async for _ in export(Endless(), Query(0, size), head, note, [form], SIGNER, "aud"):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["ndjson", "csv", "parquet"])
async def test_ten_times_as_many_entries_take_no_more_memory(form: str) -> None:
    few, many = await peak(1_000, form), await peak(10_000, form)
    assert many < few * 1.5 + 1_000_000
