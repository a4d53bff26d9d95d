"""The demo's side of the serving process: starts it, hears what it says, ends it."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from embedded.demo.tell import Unexpected, wait_until


class Server:
    """`python -m embedded.demo.serving` as a child, in a `with`. `heard` is what it said so far."""

    def __init__(self, model: str, data: Path, environment: dict[str, str], log: Path) -> None:
        self._command = [sys.executable, "-m", "embedded.demo.serving", model, str(data)]
        self._environment = {**os.environ, **environment}
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.heard: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def swap(self, number: int, seconds: float = 30.0) -> dict[str, Any]:
        """What it said about the version it served as the `number`th (from 1).

        Raises:
            Unexpected: it said nothing in time, or ended; the text shows the end of its log.
        """
        wait_until(lambda: len(self._served()) >= number or self._ended(), seconds)
        if len(served := self._served()) < number:
            raise Unexpected(f"the serving process did not report; its log ends: {self._log.read_text()[-1500:]}")
        return served[number - 1]

    def stopped(self, version: int, seconds: float = 30.0) -> bool:
        """Whether it said in time that it uses the version no more, because it was revoked."""
        return wait_until(lambda: any(said.get("revoked") == version for said in list(self.heard)), seconds)

    def end(self) -> dict[str, Any]:
        """Stops it and gives its last words."""
        assert self._process is not None
        self._process.terminate()
        wait_until(lambda: bool(self.heard) and "end" in self.heard[-1], 10)
        return self.heard[-1]

    def _served(self) -> list[dict[str, Any]]:
        return [said for said in list(self.heard) if "version" in said]

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.heard.append(json.loads(line))
