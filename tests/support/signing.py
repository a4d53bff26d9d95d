"""The signer's process (`python -m audit sign`)."""

import multiprocessing
import os
import runpy
import signal
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx2
from tests.support.waiting import until_now

from kit.keys import ensure_key, ensure_mldsa44

ORIGIN = "hallmark.example/log/signer"
# Processes are forked from one that has imported everything: a start of Python with it takes seconds.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["audit.app", "audit.tlog.signer", "tests.support.signing"])


@dataclass(frozen=True)
class Ended:
    """`output`: standard output and error."""

    returncode: int
    output: str


class SignerProcess:
    """Its keys, state and socket lie in `directory`; processes of other names share keys and state."""

    def __init__(self, directory: Path, address: str = "", *, token: str = "", name: str = "signer") -> None:
        self.directory, self.address = directory, address or f"unix:{directory}/{name}.sock"
        ensure_key(directory / "keys", "checkpoint")
        ensure_mldsa44(directory / "keys", "checkpoint")
        self.state = directory / "state" / "signed.json"
        self.token = token or None
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HALLMARK_")},
            "HALLMARK_CHECKPOINT_ORIGIN": ORIGIN,
            "HALLMARK_CHECKPOINT_KEY": str(directory / "keys/checkpoint.jwk"),
            "HALLMARK_CHECKPOINT_MLDSA_KEY": str(directory / "keys/checkpoint.mldsa44.pem"),
            "HALLMARK_CHECKPOINT_SIGNER": self.address,
            "HALLMARK_CHECKPOINT_SIGNER_STATE": str(self.state),
        }
        if token:
            (directory / "token").write_text(f"{token}\n")
            self.environment["HALLMARK_CHECKPOINT_SIGNER_TOKEN"] = str(directory / "token")
        self._output = directory / f"{name}.out"
        self._process: BaseProcess | None = None

    def run(self, *arguments: str) -> Ended:
        """Runs the command to its end."""
        self._spawn("", *arguments)
        return Ended(self.ended(), self._output.read_text())

    def start(self, patch: str = "") -> "SignerProcess":
        """Returns when it listens. `patch`: Python that runs in the process before the command does, to stop it at a
        certain point."""
        self._spawn(patch)
        until_now(self._listens, 60, lambda: "the signer does not listen")
        return self

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        """The exit status."""
        assert self._process is not None
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, how)
        return self.ended()

    def ended(self) -> int:
        """The exit status, once there is one; minus the signal that ended it."""
        assert self._process is not None
        self._process.join(30)
        status = self._process.exitcode
        assert status is not None, "the signer goes on"
        return status

    def stop(self) -> None:
        if self._process is not None and self._process.exitcode is None:
            self.kill()

    def _spawn(self, patch: str, *arguments: str) -> None:
        assert self._process is None or self._process.exitcode is not None, "one at a time: it would be left behind"
        # Daemonic: whatever becomes of the test, nobody waits for it when Python ends.
        args = (self.environment, arguments, patch, str(self._output))
        self._process = _FORKS.Process(target=_main, args=args, daemon=True)
        self._process.start()

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.is_alive(), self._output.read_text()
        unix = self.address.startswith("unix:")
        transport = httpx2.HTTPTransport(uds=self.address.removeprefix("unix:") if unix else None)
        try:
            with httpx2.Client(transport=transport, base_url="http://signer" if unix else self.address) as client:
                return client.get("/healthz").status_code == 200
        except httpx2.HTTPError:
            return False


def _main(environment: dict[str, str], arguments: tuple[str, ...], patch: str, output: str) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["audit", "sign", *arguments]
    exec(patch, {})
    runpy.run_module("audit", run_name="__main__", alter_sys=True)
