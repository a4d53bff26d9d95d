"""How the demo talks: numbered chapters, short tables, and a check behind every claim."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from hallmark.output import table

POLL_SECONDS = 0.05


class Unexpected(Exception):
    """A step did not do what it must; the demo ends here and exits non-zero."""


class Teller:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.checks = 0
        self._chapters = 0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def chapter(self, title: str) -> None:
        self._chapters += 1
        self.console.print()
        self.console.print(
            Text(f"{self._chapters}. {title}", style="bold"), Text(f"({self.seconds:.1f} s)", style="dim")
        )

    def say(self, text: str, style: str = "") -> None:
        self._line("", text, style)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.console.print()
        self.console.print(Padding(table(columns, rows), (0, 0, 1, 3), expand=False))

    def expect(self, condition: object, text: str, why: object = None) -> None:
        """Ticks off what was shown. Raises Unexpected when it is not so."""
        if not condition:
            self._line("✗", text, "bold red")
            raise Unexpected(text if why is None else f"{text}; found: {why}")
        self.checks += 1
        self._line("✓", text, "", "green")

    def _line(self, mark: str, text: str, style: str, mark_style: str = "") -> None:
        """Wraps under itself, not under the mark."""
        grid = Table.grid(Column(width=1), Column(overflow="fold"), padding=(0, 1, 0, 0))
        grid.add_row(Text(mark, style=mark_style or style), Text(text, style=style))
        self.console.print(Padding(grid, (0, 0, 0, 3), expand=False))

    @contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """A spinner while the block runs; what it yields changes its text."""
        with self.console.status(Text(text)) as status:
            yield lambda news: status.update(Text(news))


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    """True as soon as the condition holds, False when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
