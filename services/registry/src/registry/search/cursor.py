"""Where a page ended: the values of its last row, and a digest of the query, opaque to the caller."""

import base64
import json
from datetime import datetime
from hashlib import sha256
from typing import Any

from kit.problems import Problem
from registry.search.fields import MAX_INTEGER, Kind
from registry.search.syntax import Value

Kinds = list[tuple[Kind, bool]]


def digest(*parts: str | None) -> str:
    """Of everything that says which rows there are, and in which order."""
    return sha256(json.dumps(parts).encode()).hexdigest()[:16]


def encode(query: str, values: list[Value | None]) -> str:
    written = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    text = json.dumps([query, *written], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, query: str, kinds: Kinds) -> list[Value | None]:
    """Raises Problem 400 for what is not a cursor, or one of another query."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = json.loads(text)
        theirs, *values = found if isinstance(found, list) else [None]
        if theirs == query and len(values) == len(kinds):
            return [_read(value, *kind) for value, kind in zip(values, kinds, strict=True)]
    except (ValueError, RecursionError, OverflowError):
        theirs = None
    other = isinstance(theirs, str) and theirs != query
    why = "it belongs to another query: keep filter, order and workspace" if other else "it is none of this service"
    raise Problem(400, "bad-cursor", f"the cursor cannot be used: {why}")


def _read(value: Any, kind: Kind, nullable: bool) -> Value | None:
    if value is None and nullable:
        return None
    match kind, value:
        case Kind.TEXT, str() if "\0" not in value:
            value.encode()  # a lone surrogate is an error here, not in the database
            return value
        case Kind.TIME, str():
            time = datetime.fromisoformat(value)
            if time.tzinfo is not None:
                return time
        case Kind.INTEGER, int() if not isinstance(value, bool) and abs(value) <= MAX_INTEGER:
            return value
        case Kind.NUMBER, int() | float() if not isinstance(value, bool):
            number = float(value)
            if number - number == 0:
                return number
    raise ValueError(f"not a {kind}")
