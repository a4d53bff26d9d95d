"""Calls to witnesses and time stamping authorities: bounded in time and size, and only to allowed addresses."""

import asyncio
from dataclasses import dataclass

import httpx2

from kit import outbound
from kit.errors import Transient

MAX_ANSWER = 256 * 1024


class Unanswered(Transient):
    """No answer came, or one that is too large; the text says why."""


@dataclass(frozen=True)
class Answer:
    """`kind`: the media type without its parameters."""

    status: int
    kind: str
    body: bytes

    @property
    def said(self) -> str:
        return f"HTTP {self.status} {self.body[:300].decode(errors='replace')!r}"


class Caller:
    """`seconds`: of one call, all in all. `allow`: hosts, addresses and CIDRs that need be neither public nor https."""

    def __init__(self, allow: tuple[str, ...], seconds: float) -> None:
        self._seconds = seconds
        guard = outbound.Guard(allow, setting="HALLMARK_ATTESTATION_ALLOW")
        self._client = outbound.guarded_client(guard, seconds)

    async def post(self, url: str, body: bytes, content_type: str) -> Answer:
        """Raises Unanswered."""
        headers = {"content-type": content_type, "accept-encoding": "identity"}
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._client.stream("POST", url, content=body, headers=headers) as got,
            ):
                data = b""
                async for chunk in got.aiter_raw():
                    data += chunk
                    if len(data) > MAX_ANSWER:
                        raise Unanswered(f"{url} answered with more than {MAX_ANSWER} bytes")
                kind = got.headers.get("content-type", "").partition(";")[0].strip()
                return Answer(got.status_code, kind, data)
        except TimeoutError as error:
            raise Unanswered(f"no answer from {url} within {self._seconds:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise Unanswered(f"{url}: {type(error).__name__}: {error}"[:500]) from error

    async def close(self) -> None:
        await self._client.aclose()
