"""Errors that point at the character."""

from collections.abc import Iterator
from contextlib import contextmanager

from kit.problems import Problem

SHOWN = 60  # characters of the line on either side of the mistake


class Mistake(Exception):
    """What is wrong, and where in the text (0-based; the length of the text means at its end)."""

    def __init__(self, detail: str, at: int) -> None:
        super().__init__(detail)
        self.detail = detail
        self.at = at


@contextmanager
def pointing(code: str, text: str) -> Iterator[None]:
    """Turns a mistake in `text` into Problem 400 with its line, a caret below the place, and `position`."""
    try:
        yield
    except Mistake as mistake:
        at = min(max(mistake.at, 0), len(text))
        detail = f"{mistake.detail} (at character {at + 1})\n{_picture(text, at)}"
        raise Problem(400, code, detail, position=at) from mistake


def _picture(text: str, at: int) -> str:
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    line_end = len(text) if end < 0 else end
    first, last = max(start, at - SHOWN), min(line_end, at + SHOWN)
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[first:last])
    return f"{line}\n{' ' * (at - first)}^"
