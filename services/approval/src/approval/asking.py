"""One question to an external check: a signed POST, and what its answer means."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from hashlib import sha256
from typing import Literal
from urllib.parse import quote, urlsplit

import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError

from approval.answers import MAX_ANSWER, Asked, Said
from approval.domain import Request
from contracts.payload import Digest, Text
from kit import outbound
from kit.webhooks import headers_of

MAX_PAUSE = 3_600.0
TROUBLE = (408, 425, 429)  # of the 4xx, those that say "not now"


class Answer(BaseModel):
    """The body of a 200. What else it holds is passed over."""

    model_config = ConfigDict(extra="ignore")

    result: Literal["pass", "fail", "inconclusive"]
    message: Text = ""
    evidence: Digest | None = None


@dataclass(frozen=True)
class Later:
    """The check will post its answer."""


@dataclass(frozen=True)
class Again:
    """No answer for now. `after`: how many seconds the check wants to be left alone."""

    why: str
    after: float = 0.0


Heard = Said | Later | Again


@dataclass(frozen=True)
class Question:
    asked: Asked
    url: str
    secret: str
    body: bytes

    @property
    def message_id(self) -> str:
        """The same however often it is asked, so that the check can tell. When the request has become another one and
        then the same again, it is a new question."""
        asked, since = self.asked, self.asked.bound_at
        at = since.astimezone(UTC).isoformat() if since else ""
        name = "\n".join((asked.request_id, asked.gate, asked.request_digest, at))
        return f"msg_{sha256(name.encode()).hexdigest()[:32]}"


def body_of(request: Request, gate: str, approval_url: str) -> bytes:
    """What the check is told: all of it is covered by the request's digest, so every try sends the same."""
    asked = request.inputs["request"]
    workspace, model = request.place
    path = f"/v1/requests/{quote(request.request_id, safe='')}/gates/{quote(gate, safe='/')}/answers"
    document = {
        "type": "gate.asked",
        "request_id": request.request_id,
        "gate": gate,
        "request_digest": request.request_digest,
        "workspace": workspace,
        "model": model,
        "version": request.inputs["candidate"]["version"],
        "from": asked["from"],
        "to": asked["to"],
        "candidate": request.inputs["candidate"],
        "baseline": request.inputs["baseline"],
        "callback": approval_url.rstrip("/") + path,
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


class Asking:
    """`secrets`: by the names that policies call them. `timeout`: seconds of one call, all in all."""

    def __init__(
        self,
        guard: outbound.Guard,
        secrets: Mapping[str, str],
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._guard, self._secrets, self._timeout, self._clock = guard, secrets, timeout, clock
        self._client = outbound.guarded_client(guard, timeout)

    async def __call__(self, question: Question) -> Heard:
        secret = self._secrets.get(question.secret)
        if secret is None:
            return Said("error", f"the operator has set no secret {question.secret} in HALLMARK_GATE_SECRETS")
        signed = headers_of(secret, question.message_id, int(self._clock()), question.body)
        headers = {"content-type": "application/json", "accept-encoding": "identity", **signed}
        try:
            # The client's own limits are per read: a check that drips would hold the call for ever.
            async with asyncio.timeout(self._timeout):
                await self._allowed(question.url)
                async with self._client.stream("POST", question.url, content=question.body, headers=headers) as got:
                    return understood(got.status_code, got.headers, await _body(got))
        except outbound.AddressRefused as error:
            return Said("error", str(error))
        except TimeoutError:
            return Again(f"no answer within {self._timeout:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return Again(f"{type(error).__name__}: {error}"[:500])

    async def _allowed(self, url: str) -> None:
        """Looked at before the call, for an answer at once; the client looks again when it connects.

        Raises:
            AddressRefused: it may not be called.
            OSError: the host has no address now.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise outbound.AddressRefused(f"{url!r} is not a URL: {error}") from error
        if host is None or parts.username is not None:
            raise outbound.AddressRefused(f"{url!r} must be a URL like https://host/path, without a user")
        secure = parts.scheme == "https"
        await self._guard.addresses(host, port or (443 if secure else 80), secure=secure)


async def _body(response: httpx2.Response) -> bytes | None:
    """The body of a 200, undecoded: a small compressed answer can be a very large one. None: too large."""
    if response.status_code != 200:
        return b""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            return None
    return body


def understood(status: int, headers: Mapping[str, str], body: bytes | None) -> Heard:
    """What an answer means."""
    if status == 202:
        return Later()
    if status >= 500 or status in TROUBLE:
        return Again(f"HTTP {status}", _pause(headers.get("retry-after", "")))
    if status != 200:
        hint = " (redirects are not followed)" if 300 <= status < 400 else ""
        return Said("error", f"the check answered with HTTP {status}{hint}")
    return _said(headers, body)


def _said(headers: Mapping[str, str], body: bytes | None) -> Said:
    if body is None:
        return Said("error", f"the check's answer is longer than {MAX_ANSWER} bytes")
    if headers.get("content-encoding", "identity") != "identity":
        return Said("error", "the check's answer is compressed, which was not asked for")
    try:
        answer = Answer.model_validate_json(body)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in wrong["loc"])
        return Said("error", f"the check's answer is malformed: {where + ': ' if where else ''}{wrong['msg']}"[:2_000])
    return Said(answer.result, answer.message, answer.evidence)


def _pause(retry_after: str) -> float:
    return min(float(retry_after), MAX_PAUSE) if retry_after.isascii() and retry_after.isdecimal() else 0.0
