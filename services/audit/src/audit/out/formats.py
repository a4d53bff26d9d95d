"""The files of an export: NDJSON, CSV and Parquet, each written a batch at a time to anything with `write`."""

import csv
import io
import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from audit.out.rows import FIELDS, Row, guarded, plain

_UTC = pa.timestamp("us", tz="UTC")
_TYPES = {
    "index": pa.int64(),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "version": pa.int32(),
    "sequence": pa.int64(),
    "recorded_at": _UTC,
    "at": _UTC,
    "copy_of": pa.int64(),
    "leaf_hash": pa.binary(32),
}
SCHEMA = pa.schema(
    [
        *(
            pa.field(name, _TYPES.get(name, pa.string()), nullable=name not in ("index", "leaf_hash"))
            for name in FIELDS
        ),
        pa.field("leaf", pa.binary(), nullable=False),
        pa.field("body", pa.binary()),
    ],
    metadata={
        "hallmark": "SHA-256(0x00 || leaf) is leaf_hash (RFC 6962); body is the whole leaf where leaf names its digest"
    },
)


class Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


class Writer(Protocol):
    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None:
        """Writes what is still due. The sink stays open."""


class Ndjson:
    NAME, MEDIA_TYPE = "entries.ndjson", "application/x-ndjson"

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, rows: Sequence[Row]) -> None:
        self._sink.write(b"".join(map(ndjson_line, rows)))

    def close(self) -> None:
        pass


class Csv:
    """Every cell in quotes, and guarded against what a spreadsheet computes: a copy for people, not for machines."""

    NAME, MEDIA_TYPE = "entries.csv", "text/csv; charset=utf-8"

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._put([list(FIELDS)])

    def write(self, rows: Sequence[Row]) -> None:
        self._put([[_cell(row.fields[name]) for name in FIELDS] for row in rows])

    def close(self) -> None:
        pass

    def _put(self, table: list[list[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(table)
        self._sink.write(text.getvalue().encode(errors="backslashreplace"))


class Parquet:
    """One row group a batch, zstd; the bytes as binary."""

    NAME, MEDIA_TYPE = "entries.parquet", "application/vnd.apache.parquet"

    def __init__(self, sink: Sink) -> None:
        self._file = pa.PythonFile(_Counted(sink), mode="w")
        self._writer = pq.ParquetWriter(self._file, SCHEMA, compression="zstd", version="2.6")

    def write(self, rows: Sequence[Row]) -> None:
        if rows:
            self._writer.write_table(table_of(rows))

    def close(self) -> None:
        self._writer.close()


WRITERS: dict[str, type[Ndjson] | type[Csv] | type[Parquet]] = {"ndjson": Ndjson, "csv": Csv, "parquet": Parquet}


def ndjson_line(row: Row) -> bytes:
    document = {name: plain(value) for name, value in row.fields.items()}
    document["leaf"] = b64encode(row.stored.leaf).decode()
    if row.stored.body is not None:
        document["body"] = b64encode(row.stored.body).decode()
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def table_of(rows: Sequence[Row]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [row.fields[name] for row in rows] for name in FIELDS}
    columns["leaf_hash"] = [row.stored.leaf_hash for row in rows]
    columns["leaf"] = [row.stored.leaf for row in rows]
    columns["body"] = [row.stored.body for row in rows]
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def _cell(value: Any) -> str:
    return "" if value is None else guarded(value) if isinstance(value, str) else str(plain(value))


class _Counted(io.RawIOBase):
    """A sink that can tell where it is, and that Arrow cannot close."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._at = sink, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        given = bytes(data)
        self._sink.write(given)
        self._at += len(given)
        return len(given)
