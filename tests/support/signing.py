"""The signer's process (`python -m audit sign`), as an operator starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2

from kit.keys import ensure_key, ensure_mldsa44
from tests.support.waiting import until_now

ORIGIN = "hallmark.example/log/signer"


class SignerProcess:
    """`patch`: Python that runs in the process before the command does, to stop it at a certain point."""

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
        self.process: subprocess.Popen[str] | None = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end."""
        command = [sys.executable, "-m", "audit", "sign", *arguments]
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.PIPE,
        )

    def start(self, patch: str = "") -> "SignerProcess":
        """Returns when it listens."""
        program = f"import runpy, sys; sys.argv = ['audit', 'sign']\n{patch}\nrunpy.run_module('audit', alter_sys=True)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], env=self.environment, stderr=subprocess.PIPE, text=True
        )
        until_now(self._listens, 60, lambda: "the signer does not listen")
        return self

    def kill(self, how: int = signal.SIGKILL) -> int:
        """The exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        assert self.process is not None
        self.process.communicate(timeout=30)
        return self.process.returncode

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.process.communicate()[1]
        unix = self.address.startswith("unix:")
        transport = httpx2.HTTPTransport(uds=self.address.removeprefix("unix:") if unix else None)
        try:
            with httpx2.Client(transport=transport, base_url="http://signer" if unix else self.address) as client:
                return client.get("/healthz").status_code == 200
        except httpx2.HTTPError:
            return False
