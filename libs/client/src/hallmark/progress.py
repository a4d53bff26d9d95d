"""Bars for people who wait: how much was hashed, how much was sent."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hallmark.artifacts import Progress as Told


@contextmanager
def bars(name: str, console: Console | None = None) -> Iterator[tuple[Told, Told]]:
    """(hashed, sent), to be called with numbers of bytes. What is stored already is hashed and never sent."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as shown:
        hashing = shown.add_task(f"hashing {name}", total=None)
        sending = shown.add_task(f"sending {name}", total=None, visible=False)

        def hashed(count: int) -> None:
            shown.advance(hashing, count)

        def sent(count: int) -> None:
            known = shown.tasks[hashing].completed
            shown.update(hashing, total=known)
            shown.update(sending, advance=count, total=known, visible=True)

        yield hashed, sent
