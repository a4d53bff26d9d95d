"""The command line in this process, against a service that the test plays."""

import sys
from pathlib import Path

import httpx2
import pytest
from tests.support.fake_approval import ID, REQUEST, Run, Service

from hallmark import Client, cli, output


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever terminal the tests run in."""
    monkeypatch.setattr(output.out, "width", 200)


@pytest.fixture
def service() -> Service:
    return Service({f"GET /v1/requests/{ID}": (200, REQUEST)})


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("HALLMARK_CACHE_DIR", str(tmp_path / "cache"))

    def client(_: object) -> Client:
        return Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(service))

    monkeypatch.setattr(output.Caller, "client", client)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hallmark", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        told = capsys.readouterr()
        code = exit_.value.code
        return code if isinstance(code, int) else 0, told.out, told.err

    return run
