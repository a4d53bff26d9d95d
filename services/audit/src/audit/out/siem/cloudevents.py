"""A log entry as a CloudEvent 1.0 in JSON: the event that was logged, with the place where it is. Pure.

Extensions: `logindex`, `loghash` (the leaf hash, hex), `logtime`, and `logcopyof`: the
index of the entry that this one repeats. What cannot be read as an event is sent as one of the
type `hallmark.audit.record.v1`, with the leaf in `data_base64`.
"""

import json
from base64 import b64encode
from typing import Any

from audit.out.rows import Row, plain

UNREADABLE = "hallmark.audit.record.v1"
BATCH = "application/cloudevents-batch+json"


def cloudevent(row: Row, origin: str) -> dict[str, Any]:
    """`origin`: the name of the log, the source of what is no event."""
    fields, envelope = row.fields, row.reading.envelope
    place = {
        "logindex": str(row.stored.index),
        "loghash": row.stored.leaf_hash.hex(),
        "logtime": plain(fields["recorded_at"]),
        "logcopyof": None if fields["copy_of"] is None else str(fields["copy_of"]),
    }
    body = _json(envelope.value) if envelope is not None else None
    if envelope is None or body is None:
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"{origin}/{row.stored.index}",
            "source": origin,
            "type": UNREADABLE,
            "time": plain(fields["recorded_at"]),
            "datacontenttype": "application/octet-stream",
            "data_base64": b64encode(row.stored.full).decode(),
            **place,
        }
    else:
        event = {
            "specversion": "1.0",
            "id": envelope.id,
            "source": envelope.source,
            "type": envelope.type,
            "subject": envelope.subject,
            "time": plain(envelope.time),
            "datacontenttype": "application/json",
            "dataschema": envelope.dataschema,
            "partitionkey": envelope.key,
            "sequence": None if envelope.sequence is None else str(envelope.sequence),
            "correlationid": envelope.correlationid,
            "causationid": envelope.causationid,
            "actor": envelope.actor,
            "traceparent": envelope.traceparent,
            "data": body[0],
            **place,
        }
    return {name: value for name, value in event.items() if value is not None or name == "data"}


def _json(value: bytes) -> tuple[Any] | None:
    """The JSON in a tuple of one, for it may be null; None when it is none."""
    try:
        return (json.loads(value, parse_constant=_refuse),)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
