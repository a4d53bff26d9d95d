"""One POST, and what its answer means. Shared by Slack and webhooks."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress

import httpx2

from contracts.envelope import now
from notifier.addresses import hidden
from notifier.domain import Outcome, Verdict, redact, retry_after_seconds

EXCERPT_BYTES = 2048


async def post(
    client: httpx2.AsyncClient,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout: float,
    secrets: Iterable[str] = (),
) -> Outcome:
    """2xx is success, 410 is the end of the subscription, all else (3xx too) is tried again.

    The outcome repeats neither `secrets` nor the path and query of `url`.
    """
    secrets = {*secrets, *hidden(url)}
    try:
        # The client's own limits are per read: a receiver that drips would hold the try for ever.
        async with asyncio.timeout(timeout), client.stream("POST", url, content=body, headers=headers) as response:
            excerpt = await _excerpt(response)
    except TimeoutError:
        return Outcome(Verdict.RETRY, f"no answer within {timeout:g} s")
    except httpx2.TimeoutException as error:
        return Outcome(Verdict.RETRY, f"no answer in time ({type(error).__name__})")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return Outcome(Verdict.RETRY, redact(f"{type(error).__name__}: {error}", secrets, 500))
    detail = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    text = redact(excerpt.decode(errors="replace"), secrets)
    after = retry_after_seconds(response.headers.get("retry-after"), now())
    if response.is_success:
        verdict = Verdict.SUCCEEDED
    elif response.status_code == 410:
        verdict = Verdict.GONE
    else:
        verdict = Verdict.RETRY
        detail += " (redirects are not followed)" if response.is_redirect else ""
    return Outcome(verdict, redact(detail, secrets, 500), status=response.status_code, response=text, retry_after=after)


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
