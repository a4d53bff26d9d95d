"""Many rows at once, by PostgreSQL's COPY."""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

Row = dict[str, Any]


async def copy(tx: AsyncConnection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Inserts the rows, which name the same columns, in a transaction that has begun."""
    if not rows:
        return
    names = list(rows[0])
    documents = {name for name in names if isinstance(table.c[name].type, JSONB)}
    records = [tuple(json.dumps(row[name]) if name in documents else row[name] for name in names) for row in rows]
    driver = (await tx.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.copy_records_to_table(table.name, schema_name=table.schema, columns=names, records=records)
