"""How `up` and `status` show a stack: a table that lives while it starts, or plain lines for a log."""

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from embedded.state import Process, State

COLOURS = {"waiting": "dim", "starting": "yellow", "ready": "green", "restarting": "yellow", "stopped": "dim"}


class View:
    """Shows each state given to `show`, from any thread. Use it as a context manager."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._state: State | None = None
        self._said = 0
        self._conditions: dict[str, str] = {}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=True)

    def show(self, state: State) -> None:
        self._state = state
        if self._quiet:
            return
        fresh = state.said[-(state.said_count - self._said) :] if state.said_count > self._said else []
        self._said = state.said_count
        for line in fresh:
            self._console.print(line, markup=False, highlight=False)
        if self._console.is_terminal and self._live.is_started:
            return
        for process in state.processes:
            if self._conditions.get(process.name) != process.condition:
                self._conditions[process.name] = process.condition
                if process.condition != "waiting":
                    self._console.print(_line(process), markup=False, highlight=False)

    def settle(self) -> None:
        """Ends the living table; from now on changes are printed as lines."""
        if self._state is not None:
            self._conditions = {process.name: process.condition for process in self._state.processes}
        self._live.stop()

    def _render(self) -> Table:
        return table(self._state.processes if self._state else [])

    def __enter__(self) -> "View":
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def table(processes: list[Process], health: dict[str, bool] | None = None) -> Table:
    """One row per process. With `health` (of `status`), it stands in place of the condition."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "state", "port", "pid", "uptime"):
        shown.add_column(column, justify="left" if column in ("", "state") else "right")
    for process in processes:
        word: str = process.condition
        colour = COLOURS[word]
        if health is not None:
            word, colour = ("healthy", "green") if health[process.name] else ("not healthy", "red")
        times = f"{process.restarts} restart{'s' if process.restarts > 1 else ''}"
        restarts = f" ({times})" if process.restarts else ""
        up = process.uptime()
        shown.add_row(
            process.name,
            f"[{colour}]{word}[/]{restarts}",
            str(process.port),
            str(process.pid or ""),
            "" if up is None else duration(up),
        )
    return shown


def _line(process: Process) -> str:
    where = f"  port {process.port}, pid {process.pid}" if process.pid else ""
    return f"{time.strftime('%H:%M:%S')}  {process.name:<9} {process.condition}{where}"


def duration(seconds: float) -> str:
    """90 -> 1m 30s; at most two units."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    shown = [f"{number}{unit}" for number, unit in parts]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(shown[first : first + 2])
