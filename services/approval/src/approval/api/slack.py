"""What Slack sends, and how people show that an account there is theirs.

Slack wants an answer within three seconds; what takes longer goes on, and its outcome is told at the `response_url`.
"""

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs

import httpx2
import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from approval.api.common import Callers
from approval.clicks import Clicks
from kit.openapi import NO_TOKEN
from kit.problems import Problem

log = structlog.get_logger()
ACK_SECONDS = 2.0


class LinkCode(BaseModel):
    """`say`: what to enter in Slack before `expires_at`."""

    code: str
    say: str
    expires_at: str


class Unlinked(BaseModel):
    accounts: int


def router(callers: Callers, clicks: Clicks, client: httpx2.AsyncClient) -> APIRouter:
    api = APIRouter(prefix="/v1/slack", tags=["slack"])
    running: set[asyncio.Task[None]] = set()

    async def form_of(http: Request) -> tuple[bytes, dict[str, str]]:
        """The raw body, and its fields. Raises Problem 401 unless Slack has sent it."""
        body = await http.body()
        clicks.verify(body, http.headers)
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=100)
        except ValueError as error:
            raise Problem(400, "bad-form", "the body is no form") from error
        return body, {name: values[0] for name, values in fields.items()}

    async def deal_with(body: bytes, payload: dict[str, Any]) -> None:
        try:
            text = await clicks.click(body, payload)
        except Exception as error:
            log.error("a click failed", exc_info=error)
            text = "Something went wrong here, and nothing is recorded. Please try again."
        url = payload.get("response_url")
        if text is None or not isinstance(url, str):
            return
        told = {"response_type": "ephemeral", "replace_original": False, "text": text}
        try:
            await client.post(url, json=told)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            log.warning("cannot answer in Slack", error=repr(error))

    @api.post("/interactivity", summary="Clicks, as Slack sends them", openapi_extra=NO_TOKEN)
    async def interactivity(http: Request) -> Response:
        body, form = await form_of(http)
        try:
            payload = json.loads(form.get("payload", ""))
        except ValueError as error:
            raise Problem(400, "bad-form", "the field 'payload' is no JSON") from error
        if not isinstance(payload, dict):
            raise Problem(400, "bad-form", "the field 'payload' is no JSON object")
        task = asyncio.create_task(deal_with(body, payload))
        running.add(task)
        task.add_done_callback(running.discard)
        await asyncio.wait([task], timeout=ACK_SECONDS)
        return Response(status_code=200)

    @api.post("/commands", summary="/hallmark link CODE, as Slack sends it", openapi_extra=NO_TOKEN)
    async def commands(http: Request) -> dict[str, str]:
        _, form = await form_of(http)
        return {"response_type": "ephemeral", "text": await clicks.command(form)}

    @api.post("/codes", summary="A code that links the Slack account that enters it to the caller")
    async def code(http: Request) -> LinkCode:
        principal = await callers.guard(http)
        if principal.kind != "person":
            raise Problem(403, "not-a-person", "only people link accounts")
        made, until = await clicks.code(callers.person(principal, ("*", "*")))
        return LinkCode(code=made, say=f"/hallmark link {made}", expires_at=until)

    @api.delete("/accounts", summary="No Slack account acts for the caller any more")
    async def unlink(http: Request) -> Unlinked:
        principal = await callers.guard(http)
        return Unlinked(accounts=await clicks.unlink(principal.subject))

    return api
