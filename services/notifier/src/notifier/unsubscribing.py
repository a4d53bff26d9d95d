"""The end of mail by a link in it, without signing in: RFC 8058. Looking at the link changes nothing."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import HTMLResponse

from kit.openapi import NO_TOKEN
from notifier.channels.render import Renderer
from notifier.commands import Commands

ACTOR = "hallmark/unsubscribe-link"
HEADERS = {
    "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
}
Part = Annotated[str, Path(max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]


def router(commands: Commands, renderer: Renderer) -> APIRouter:
    routes = APIRouter(prefix="/v1/unsubscribe", tags=["notifier"])

    def page(status: int, title: str, text: str, button: str = "") -> HTMLResponse:
        body = renderer.page("unsubscribe", title=title, text=text, button=button)
        return HTMLResponse(body, status_code=status, headers=HEADERS)

    def gone() -> HTMLResponse:
        return page(404, "Nothing to end", "This link leads to no mails that are still sent.")

    @routes.get("/{subscription_id}/{token}", summary="Asks whether mail should end", openapi_extra=NO_TOKEN)
    async def ask(subscription_id: Part, token: Part) -> HTMLResponse:
        if not await commands.reads(subscription_id, token):
            return gone()
        return page(200, "No more of these mails?", "Hallmark stops sending them to this mailbox.", "Unsubscribe")

    @routes.post("/{subscription_id}/{token}", summary="Ends the mail", openapi_extra=NO_TOKEN)
    async def end(subscription_id: Part, token: Part) -> HTMLResponse:
        if not await commands.reads(subscription_id, token):
            return gone()
        await commands.remove(subscription_id, ACTOR)
        return page(200, "Done", "Hallmark sends no more of these mails to this mailbox.")

    return routes
