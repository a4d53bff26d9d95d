"""Cursors: where a page ended, and the size of the tree that all pages of one answer see. Pure."""

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MAX = 2**63 - 1


@dataclass(frozen=True)
class Cursor:
    """Beyond `place`, in a tree of `size` entries."""

    size: int
    place: tuple[Any, ...]

    def encode(self) -> str:
        """URL-safe base64 of a list in JSON: the size, then the place, instants in microseconds since 1970."""
        place = [(part - EPOCH) // MICROSECOND if isinstance(part, datetime) else part for part in self.place]
        text = json.dumps([self.size, *place], separators=(",", ":"), ensure_ascii=False)
        return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode(text: str, kinds: Sequence[type]) -> Cursor:
    """The cursor of `Cursor.encode`, whose place has parts of these kinds: `int`, `str` or `datetime`.

    Raises:
        ValueError: it is none.
    """
    try:
        raw = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        size, *parts = json.loads(raw)
        if len(parts) != len(kinds):
            raise ValueError("it has another place")
        if not _index(size):
            raise ValueError("it has no size")
        return Cursor(size, tuple(_part(part, kind) for part, kind in zip(parts, kinds, strict=True)))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError("the cursor is not the 'next' of a page") from error


def _part(part: Any, kind: type) -> Any:
    if kind is datetime and type(part) is int:
        return EPOCH + part * MICROSECOND
    if kind is str and isinstance(part, str) and "\x00" not in part:
        part.encode()
        return part
    if kind is int and _index(part):
        return part
    raise ValueError("a part is of another kind")


def _index(part: Any) -> bool:
    return type(part) is int and 0 <= part <= MAX
