"""The demo's own parts: a claim that does not hold ends it, receivers check signatures, the help has an example."""

import base64
import io
import smtplib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from standardwebhooks import Webhook

from embedded.demo import proof, run
from embedded.demo.receivers import Receivers
from embedded.demo.tell import Teller, Unexpected, wait_until


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tell(output: io.StringIO) -> Teller:
    return Teller(Console(file=output, width=80))


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Receivers(port) as running:
        running.port = port  # type: ignore[attr-defined]  # for the test only
        yield running


def test_a_claim_that_holds_is_ticked_off(tell: Teller, output: io.StringIO) -> None:
    tell.expect(True, "one [is] one")
    assert "✓ one [is] one" in output.getvalue()
    assert tell.checks == 1


def test_a_claim_that_does_not_hold_ends_the_demo(tell: Teller, output: io.StringIO) -> None:
    with pytest.raises(Unexpected, match="one is two; found: 3"):
        tell.expect(False, "one is two", 3)
    assert "✗ one is two" in output.getvalue()
    assert tell.checks == 0


def test_a_demo_that_cannot_start_exits_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise Unexpected("no stack today")

    monkeypatch.setattr(run, "enter", broken)
    assert run.run(tmp_path, "auto", keep=False, program="hallmark", shown="x") == 1


def test_two_demos_do_not_share_a_directory(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "demo.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run.run(tmp_path, "auto", keep=False, program="hallmark", shown="x") == 1


def test_mail_slack_and_signed_webhooks_are_received(receivers: Receivers) -> None:
    port = receivers.port  # type: ignore[attr-defined]
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        smtp.sendmail("a@example.org", ["b@example.org"], "Subject: hello\n\nbody")
    post(receivers.slack_url, b'{"text": "hi"}', {})
    body = b'{"type": "t"}'
    post(receivers.hook_url, body, signed(receivers.secret, body))
    assert receivers.inbox.wait_for(lambda i: len(i.mails) == len(i.slack) == len(i.hooks) == 1, 5)
    assert receivers.inbox.mails[0]["subject"] == "hello"


def test_a_webhook_signed_with_another_key_is_refused_and_counted(receivers: Receivers) -> None:
    other = f"whsec_{base64.b64encode(b'x' * 32).decode()}"
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(receivers.hook_url, b"{}", signed(other, b"{}"))
    assert caught.value.code == 401
    assert (receivers.inbox.hooks, receivers.inbox.bad_signatures) == ([], 1)


def test_summaries_are_shortened_for_the_screen() -> None:
    long = f"ana moved breast-cancer v1: policy production r1 sha256:{'ab' * 32}"
    assert proof.brief(long) == "ana moved v1: policy production r1 abababab"


def test_waiting_gives_up() -> None:
    assert wait_until(lambda: True, 0)
    assert not wait_until(lambda: False, 0.05)


def post(url: str, body: bytes, headers: dict[str, str]) -> None:
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=5):
        pass


def signed(secret: str, body: bytes) -> dict[str, str]:
    at = datetime.now(UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }
