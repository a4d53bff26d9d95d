#!/usr/bin/env python3
"""A mail sink with Mailpit's ports and the part of its HTTP API that Hallmark's tests read.

SMTP on 1025; on 8025: GET /api/v1/messages, GET and DELETE /api/v1/message(s), raw source, headers, /readyz.
`mailpit readyz` asks a running one. Messages live in memory; the newest 500 are kept, as Mailpit does.
"""

import json
import os
import sys
import threading
import urllib.request
from collections import OrderedDict
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

KEPT = 500


def address(bind: str, default: int) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port or default)  # noqa: S104 - a container's own interface


class Box:
    """The messages, oldest first: id -> (summary, message, raw)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[dict[str, Any], EmailMessage, bytes]] = OrderedDict()

    def add(self, sender: str, recipients: list[str], raw: bytes) -> str:
        message = message_from_bytes(raw, policy=policy.default)
        people = {name: _people(message, name) for name in ("From", "To", "Cc", "Reply-To")}
        named = {person["Address"] for person in people["To"] + people["Cc"]}
        key = uuid4().hex[:22]
        summary = {
            "ID": key,
            "MessageID": str(message.get("Message-ID", "")).strip("<>"),
            "Read": False,
            "From": (people["From"] or [{"Name": "", "Address": sender}])[0],
            "To": people["To"],
            "Cc": people["Cc"],
            "Bcc": [{"Name": "", "Address": one} for one in recipients if one not in named],
            "ReplyTo": people["Reply-To"],
            "ReturnPath": sender,
            "Subject": str(message.get("Subject", "")),
            "Created": datetime.now(UTC).isoformat(),
            "Tags": [],
            "Size": len(raw),
            "Attachments": sum(1 for _ in message.iter_attachments()),
            "Snippet": " ".join(_text(message, "plain").split())[:250],
        }
        with self._lock:
            self._kept[key] = (summary, message, raw)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return key

    def newest_first(self) -> list[dict[str, Any]]:
        with self._lock:
            return [summary for summary, _, _ in reversed(self._kept.values())]

    def get(self, key: str) -> tuple[dict[str, Any], EmailMessage, bytes] | None:
        with self._lock:
            if key == "latest" and self._kept:
                key = next(reversed(self._kept))
            return self._kept.get(key)

    def delete(self, keys: list[str]) -> None:
        """Those messages; none named means all, as in Mailpit."""
        with self._lock:
            for key in keys or list(self._kept):
                self._kept.pop(key, None)


def _people(message: EmailMessage, header: str) -> list[dict[str, str]]:
    values = [str(value) for value in message.get_all(header, [])]
    return [{"Name": name, "Address": at} for name, at in getaddresses(values) if at]


def _text(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    return str(part.get_content()) if part is not None else ""


class Api(BaseHTTPRequestHandler):
    box: ClassVar[Box]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path in ("/readyz", "/livez"):
            self._send(200, b"ok", "text/plain")
        elif url.path == "/api/v1/messages":
            self._list({key: values[0] for key, values in parse_qs(url.query).items()})
        else:
            self._one(*url.path.removeprefix("/api/v1/message/").split("/"))

    def _one(self, key: str, *part: str) -> None:
        found = self.box.get(key)
        if found is None or part not in ((), ("headers",), ("raw",)):
            self._send(404, b'{"Error":"not found"}')
            return
        summary, message, raw = found
        summary["Read"] = True
        if part == ("raw",):
            self._send(200, raw, "text/plain")
        elif part == ("headers",):
            self._json({name: [str(value) for value in message.get_all(name, [])] for name in message})
        else:
            whole = {**summary, "Date": summary["Created"], "Attachments": [], "Inline": []}
            self._json(whole | {"Text": _text(message, "plain"), "HTML": _text(message, "html")})

    def do_DELETE(self) -> None:
        if urlsplit(self.path).path != "/api/v1/messages":
            self._send(404, b'{"Error":"not found"}')
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.box.delete(list((json.loads(body) if body else {}).get("IDs") or []))
        self._send(200, b"ok", "text/plain")

    def _list(self, query: dict[str, str]) -> None:
        start, limit = int(query.get("start", 0)), int(query.get("limit", 50))
        every = self.box.newest_first()
        page = every[start : start + limit]
        counts = {"total": len(every), "messages_count": len(every), "count": len(page), "start": start}
        unread = sum(not summary["Read"] for summary in every)
        self._json({**counts, "unread": unread, "tags": [], "messages": page})

    def _json(self, body: object) -> None:
        self._send(200, json.dumps(body).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


def serve() -> None:
    from aiosmtpd.controller import Controller

    box = Box()

    class Sink:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            key = box.add(envelope.mail_from, list(envelope.rcpt_tos), envelope.original_content)
            print(f"kept {key} from {envelope.mail_from} to {', '.join(envelope.rcpt_tos)}")
            return f"250 2.0.0 Ok: queued as {key}"

    host, port = address(os.environ.get("MP_SMTP_BIND_ADDR", ""), 1025)
    Controller(Sink(), hostname=host, port=port).start()
    Api.box = box
    where = address(os.environ.get("MP_UI_BIND_ADDR", ""), 8025)
    ThreadingHTTPServer(where, Api).serve_forever()


def ready() -> int:
    port = address(os.environ.get("MP_UI_BIND_ADDR", ""), 8025)[1]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=3):
            return 0
    except OSError:
        return 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["readyz"]:
        sys.exit(ready())
    serve()
