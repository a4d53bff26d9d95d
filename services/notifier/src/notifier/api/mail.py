"""HTTP in: what links in mail lead to, without signing in. Looking at one changes nothing, for programs that scan mail
do that; a button does, and for unsubscribing any POST (RFC 8058)."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import HTMLResponse

from kit.openapi import NO_TOKEN
from notifier.channels.render import Renderer
from notifier.commands import Commands
from notifier.confirming import Confirming
from notifier.domain import UNCONFIRMED

ACTOR = "hallmark/unsubscribe-link"
HEADERS = {
    "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
}
Part = Annotated[str, Path(max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]


def router(commands: Commands, confirming: Confirming, renderer: Renderer) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["notifier"])

    def page(status: int, title: str, text: str, button: str = "") -> HTMLResponse:
        body = renderer.page("link", title=title, text=text, button=button)
        return HTMLResponse(body, status_code=status, headers=HEADERS)

    def gone() -> HTMLResponse:
        return page(404, "Nothing to end", "This link leads to no mails that are still sent.")

    def lapsed() -> HTMLResponse:
        text = "This link is not good any more. Whoever wants news sent here can have another one mailed."
        return page(404, "Nothing to confirm", text)

    def agreed() -> HTMLResponse:
        return page(200, "Done", "Hallmark sends the news to this mailbox. Each mail has a link that ends them.")

    @routes.get(
        "/unsubscribe/{subscription_id}/{token}", summary="Asks whether mail should end", openapi_extra=NO_TOKEN
    )
    async def ask_to_end(subscription_id: Part, token: Part) -> HTMLResponse:
        if not await commands.reads(subscription_id, token):
            return gone()
        return page(200, "No more of these mails?", "Hallmark stops sending them to this mailbox.", "Unsubscribe")

    @routes.post("/unsubscribe/{subscription_id}/{token}", summary="Ends the mail", openapi_extra=NO_TOKEN)
    async def end(subscription_id: Part, token: Part) -> HTMLResponse:
        if not await commands.reads(subscription_id, token):
            return gone()
        await commands.remove(subscription_id, ACTOR)
        return page(200, "Done", "Hallmark sends no more of these mails to this mailbox.")

    @routes.get("/confirm/{subscription_id}/{token}", summary="Asks whether mail is wanted", openapi_extra=NO_TOKEN)
    async def ask_to_confirm(subscription_id: Part, token: Part) -> HTMLResponse:
        state = await confirming.reads(subscription_id, token)
        if state is None:
            return lapsed()
        if state.status != UNCONFIRMED:
            return agreed()
        text = f"{state.owner} asks Hallmark to send news of the workspace {state.workspace} to this mailbox."
        return page(200, "Do you want these mails?", text, "Yes, send them")

    @routes.post("/confirm/{subscription_id}/{token}", summary="Confirms that mail is wanted", openapi_extra=NO_TOKEN)
    async def confirm(subscription_id: Part, token: Part) -> HTMLResponse:
        return agreed() if await confirming.confirm(subscription_id, token) else lapsed()

    return routes
