"""Where tiles and bundles of entries lie, what they hold, and which of them a tree has. Pure.

Source: C2SP tlog-tiles 0.1.0. A tile is up to 256 hashes; a bundle up to 256 entries, each after its length (uint16).
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

WIDTH = 256
ENTRIES = "entries"
MAX_INDEX = 2**63 - 1
_PATH = re.compile(r"(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class Tile(NamedTuple):
    """`level` -1 is a bundle of entries. `width` is 256 when it is full."""

    level: int
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """`tile/<L>/<N>[.p/<W>]`."""
        groups: list[str] = []
        rest = self.number
        while True:
            rest, group = divmod(rest, 1000)
            groups.append(f"{'x' if groups else ''}{group:03}")
            if not rest:
                break
        level = ENTRIES if self.level < 0 else str(self.level)
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"

    @property
    def is_full(self) -> bool:
        return self.width == WIDTH

    @property
    def start(self) -> int:
        """The first of the hashes at its level, or of the entries, that it holds."""
        return self.number * WIDTH


def parse(path: str) -> Tile | None:
    """The tile of `<L>/<N>[.p/<W>]`, or None when that is not the one right spelling of any."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    level, number, width = found.groups()
    tile = Tile(
        -1 if level == ENTRIES else int(level),
        int(number.replace("x", "").replace("/", "")),
        WIDTH if width is None else int(width),
    )
    right = tile.number <= MAX_INDEX and tile.path == f"tile/{path}"
    return tile if right else None


def grown(old: int, new: int) -> Iterator[Tile]:
    """The tiles and bundles that a tree of `new` entries has and one of `old` did not have, bundles first."""
    for level in range(-1, 8):
        above = max(level, 0) * 8
        before, after = old >> above, new >> above
        if not after:
            return
        for index in range(before // WIDTH, -(-after // WIDTH)):
            width = min(after - index * WIDTH, WIDTH)
            if width > min(max(before - index * WIDTH, 0), WIDTH):
                yield Tile(level, index, width)


def bundle(entries: Iterable[bytes]) -> bytes:
    """Raises OverflowError when an entry has more than 65,535 bytes."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def entries_of(data: bytes) -> list[bytes]:
    """Raises ValueError when the bundle is cut off."""
    found, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or at + 2 > len(data):
            raise ValueError("the bundle is cut off")
        found.append(data[at + 2 : end])
        at = end
    return found
