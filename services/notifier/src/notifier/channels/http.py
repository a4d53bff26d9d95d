"""One POST, and what its answer means. Shared by Slack and webhooks."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

import httpx2

from contracts.envelope import now
from notifier.addresses import hidden
from notifier.retrying import Outcome, Verdict, redact, retry_after_seconds

EXCERPT_BYTES = 2048
# What a receiver may say beside its status (as Svix): no more tries of this message, or nothing any more.
ASKS = "webhook-delivery"
ABORT, DISABLE = "abort-message", "disable"
MAX_HEADERS, HEADER_CHARACTERS = 40, 200
_SECRET_HEADERS = re.compile(r"authori[sz]ation|cookie|token|signature|secret|password|api-?key", re.IGNORECASE)


async def post(
    client: httpx2.AsyncClient,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout: float,
    secrets: Iterable[str] = (),
) -> Outcome:
    """2xx is success, 410 is the end of the subscription, all else (3xx too) is tried again, unless the receiver says
    in a header `webhook-delivery` that it should not be: `abort-message` gives this message up, `disable` ends the
    subscription.

    The outcome repeats neither `secrets` nor the path and query of `url`.
    """
    secrets = {*secrets, *hidden(url)}
    sent = shown(headers, secrets)
    try:
        # The client's own limits are per read: a receiver that drips would hold the try for ever.
        async with asyncio.timeout(timeout), client.stream("POST", url, content=body, headers=headers) as response:
            excerpt = await _excerpt(response)
    except TimeoutError:
        return Outcome(Verdict.RETRY, f"no answer within {timeout:g} s", sent=sent)
    except httpx2.TimeoutException as error:
        return Outcome(Verdict.RETRY, f"no answer in time ({type(error).__name__})", sent=sent)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return Outcome(Verdict.RETRY, redact(f"{type(error).__name__}: {error}", secrets, 500), sent=sent)
    verdict, remark = _verdict(response)
    detail = f"HTTP {response.status_code} {response.reason_phrase}".strip() + remark
    return Outcome(
        verdict,
        redact(detail, secrets, 500),
        status=response.status_code,
        response=redact(excerpt.decode(errors="replace"), secrets),
        retry_after=retry_after_seconds(response.headers.get("retry-after"), now()),
        sent=sent,
        received=shown(response.headers, secrets),
        disable=_asks(response) == DISABLE,
    )


def _asks(response: httpx2.Response) -> str:
    asked: str = response.headers.get(ASKS, "")
    return asked.strip().lower()


def _verdict(response: httpx2.Response) -> tuple[Verdict, str]:
    """And what the detail says beside the status."""
    asked = _asks(response)
    remark = f" ({ASKS}: {asked})" if asked in (ABORT, DISABLE) else ""
    if response.is_success:
        return Verdict.SUCCEEDED, remark
    if response.status_code == 410 or asked == DISABLE:
        return Verdict.GONE, remark
    if asked == ABORT:
        return Verdict.REFUSED, remark
    return Verdict.RETRY, " (redirects are not followed)" if response.is_redirect else ""


def shown(headers: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """Headers as a try keeps them: short, and without what is or may be a secret."""
    kept = {}
    for name, value in list(headers.items())[:MAX_HEADERS]:
        hide = _SECRET_HEADERS.search(name) is not None
        kept[redact(name.lower(), secrets, 100)] = "[redacted]" if hide else redact(value, secrets, HEADER_CHARACTERS)
    return kept


async def _excerpt(response: httpx2.Response) -> bytes:
    """The beginning of the body, undecoded: a small compressed answer can be a very large one."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return b"(compressed)"
    excerpt = b""
    with suppress(httpx2.HTTPError):  # the status is the answer; a body cut short changes nothing of it
        async for chunk in response.aiter_raw(EXCERPT_BYTES):
            excerpt += chunk
            if len(excerpt) >= EXCERPT_BYTES:
                break
    return excerpt[:EXCERPT_BYTES]
