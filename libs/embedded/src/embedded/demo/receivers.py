"""Real receivers on this machine: an SMTP server, a Slack-shaped webhook, and one that checks signatures."""

import base64
import email
import email.policy
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from standardwebhooks import Webhook, WebhookVerificationError

HOST = "127.0.0.1"


@dataclass
class Inbox:
    """What has arrived so far; filled by the receivers' threads."""

    mails: list[EmailMessage] = field(default_factory=list)
    slack: list[dict[str, Any]] = field(default_factory=list)
    hooks: list[dict[str, Any]] = field(default_factory=list)
    bad_signatures: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, condition: Callable[["Inbox"], bool], seconds: float) -> bool:
        """True as soon as the condition holds, False when it does not within the time."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not condition(self):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.changed.wait(left)
        return True


class Receivers:
    """The three servers, in a `with`. `secret` signs the webhook; `smtp_port` is fixed: the notifier knows it.

    `bind` is the address they listen on, `name` the one that the notifier knows this machine by.
    """

    def __init__(self, smtp_port: int, *, bind: str = HOST, name: str = HOST) -> None:
        self._name = name
        self.inbox = Inbox()
        self.secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        self._smtp = Controller(_Mailbox(self.inbox), hostname=bind, port=smtp_port)
        self._http = ThreadingHTTPServer((bind, 0), _handler(self.inbox, Webhook(self.secret)))
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def slack_url(self) -> str:
        return f"http://{self._name}:{self._http.server_port}/services/T0DEMO/B0DEMO/token"

    @property
    def hook_url(self) -> str:
        return f"http://{self._name}:{self._http.server_port}/hook"

    def __enter__(self) -> Self:
        self._smtp.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._smtp.stop()
        self._http.shutdown()
        self._http.server_close()


class _Mailbox:
    """aiosmtpd's handler."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        with self._inbox.changed:
            self._inbox.mails.append(mail)
            self._inbox.changed.notify_all()
        return "250 OK"


def _handler(inbox: Inbox, webhook: Webhook) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.path.startswith("/services/"):
                self._keep(inbox.slack, json.loads(body))
                self._answer(200, b"ok")
            elif self.path == "/hook":
                try:
                    # The reference library, not ours: a signature that only we can check proves nothing.
                    webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
                except WebhookVerificationError:
                    inbox.bad_signatures += 1
                    self._answer(401, b"bad signature")
                    return
                self._keep(inbox.hooks, json.loads(body))
                self._answer(204, b"")
            else:
                self._answer(404, b"")

        def _keep(self, where: list[dict[str, Any]], what: dict[str, Any]) -> None:
            with inbox.changed:
                where.append(what)
                inbox.changed.notify_all()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    return Handler
