"""HTTP in: templates, published by administrators and tried by anybody on what they may read."""

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.access import Action
from contracts.envelope import Envelope
from contracts.notifier import Channel, TemplatePublished, TemplateWithdrawn
from contracts.payload import Message, Workspace
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from notifier import template_views, views
from notifier.api.callers import Callers
from notifier.api.documents import Glob, Name
from notifier.filters import check_types
from notifier.matching import Seen
from notifier.template_views import stream_of
from notifier.templating import Press, TemplateFailed, context

# Beside the part `text`, which each has and needs.
MORE = {Channel.EMAIL: {"subject", "html"}, Channel.APPRISE: {"subject"}}
NEEDED = {Channel.EMAIL: {"subject"}}
SEARCHED, PAGE = 500, 50
Part = Annotated[str, StringConstraints(pattern=r"^(?:subject|text|html)$")]
TemplateText = Annotated[str, StringConstraints(min_length=1, max_length=20_000, pattern=r"^[^\x00]*$")]


class NewTemplate(BaseModel):
    """Jinja2 over `notice` (headline, who, reason, criteria, facts), `event` (type, model, version, time, ...) and
    `data`, the event's body. Each channel has the part `text` (PagerDuty's summary; of webhooks those of the format
    slack, for events stay what they are), e-mail also `subject` and, if you like, `html`, Apprise, if you like,
    `subject`. `types` is a pattern of event types; the longest that fits is taken."""

    model_config = ConfigDict(extra="forbid")

    workspace: Workspace = "default"
    channel: Channel
    types: Glob
    parts: Annotated[dict[Part, TemplateText], Field(min_length=1)]


class PreviewTemplate(NewTemplate):
    """Rendered with this event, or with the newest of the types that you may read."""

    event_id: Name | None = None


class TemplateDocument(BaseModel):
    workspace: str
    channel: str
    types: str
    revision: int
    parts: dict[str, str]
    published_by: str
    published_at: datetime
    current: bool


class TemplateDocuments(BaseModel):
    items: list[TemplateDocument]
    next: str | None = None


class RenderedTemplate(BaseModel):
    event_id: str
    event_type: str
    parts: dict[str, str]


def router(db: Database, log: EventLog, press: Press, callers: Callers) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["notifier"])

    async def check(body: NewTemplate) -> None:
        check_types([body.types])
        parts = {"text", *MORE.get(body.channel, set())}
        lacking = {"text", *NEEDED.get(body.channel, set())} - body.parts.keys()
        if strange := body.parts.keys() - parts:
            says = f"{body.channel} has no part {', '.join(sorted(strange))}; it has {', '.join(sorted(parts))}"
            raise Problem(422, "template-parts", says)
        if lacking:
            raise Problem(422, "template-parts", f"{body.channel} needs the part {', '.join(sorted(lacking))} too")
        try:
            await press.render(body.channel, {**body.parts}, None)
        except TemplateFailed as error:
            raise Problem(422, "bad-template", str(error)) from error

    async def append(stream: str, last: int, event: Message, by: str, tx: AsyncConnection) -> None:
        for envelope in await log.append(tx, stream, last, [New(event, stream)], Cause(actor=by)):
            await views.project(tx, envelope)

    @routes.post("/templates", status_code=201)
    async def publish(request: Request, body: NewTemplate) -> TemplateDocument:
        """A new revision, in force at once. The same again makes none."""
        principal = await callers(request)
        callers.require(principal, Action.CONFIGURE, body.workspace)
        await check(body)
        stream = stream_of(body.workspace, body.channel, body.types)
        async with db.transaction() as tx:
            last = await log.lock(tx, stream)
            before = [
                one
                for one in await template_views.templates(tx, body.workspace, every=True)
                if (one.channel, one.types) == (body.channel, body.types)
            ]
            if not (before and before[0].current and before[0].parts == body.parts):
                made = TemplatePublished(
                    workspace=body.workspace,
                    channel=body.channel,
                    types=body.types,
                    revision=before[0].revision + 1 if before else 1,
                    parts={**body.parts},
                    published_by=principal.subject,
                )
                await append(stream, last, made, principal.subject, tx)
            [found] = [
                one
                for one in await template_views.templates(tx, body.workspace)
                if (one.channel, one.types) == (body.channel, body.types)
            ]
        return TemplateDocument(**template_views.document(found))

    @routes.get("/templates")
    async def list_templates(
        request: Request, workspace: Workspace = "default", every: Annotated[bool, Query()] = False
    ) -> TemplateDocuments:
        """Those in force; with `every`, all revisions."""
        principal = await callers(request)
        callers.require(principal, Action.READ, workspace)
        async with db.snapshot() as tx:
            found = await template_views.templates(tx, workspace, every=every)
        return TemplateDocuments(items=[TemplateDocument(**template_views.document(one)) for one in found])

    @routes.delete("/templates", status_code=204)
    async def withdraw(request: Request, channel: Channel, types: Glob, workspace: Workspace = "default") -> Response:
        """The built-in words again. Its revisions stay."""
        principal = await callers(request)
        callers.require(principal, Action.CONFIGURE, workspace)
        stream = stream_of(workspace, channel, types)
        async with db.transaction() as tx:
            last = await log.lock(tx, stream)
            found = await template_views.templates(tx, workspace)
            if any((one.channel, one.types) == (channel, types) for one in found):
                gone = TemplateWithdrawn(
                    workspace=workspace, channel=channel, types=types, withdrawn_by=principal.subject
                )
                await append(stream, last, gone, principal.subject, tx)
        return Response(status_code=204)

    @routes.post("/templates/preview")
    async def preview(request: Request, body: PreviewTemplate) -> RenderedTemplate:
        """What it makes of a real past event. Nothing is kept or sent."""
        principal = await callers(request)
        patterns = callers.require_some(principal, Action.SUBSCRIBE, body.workspace)
        await check(body)

        def fits(envelope: Envelope) -> bool:
            event = Seen(envelope)
            mine = event.everybodys or (
                event.workspace == body.workspace
                and any(fnmatchcase(event.model or "*", pattern) for pattern in patterns)
            )
            wanted = body.event_id is None or envelope.id == body.event_id
            return mine and wanted and fnmatchcase(envelope.type, body.types)

        before: int | None = None
        for _ in range(0, SEARCHED, PAGE):
            async with db.snapshot() as tx:
                page = await views.past_events(tx, body.workspace, before=before, limit=PAGE)
            for position, envelope in page:
                before = position
                if fits(envelope):
                    try:
                        parts = await press.render(body.channel, {**body.parts}, context(envelope))
                    except TemplateFailed as error:
                        raise Problem(422, "bad-template", f"{envelope.type}: {error}") from error
                    return RenderedTemplate(event_id=envelope.id, event_type=envelope.type, parts=parts)
            if len(page) < PAGE:
                break
        raise Problem(404, "no-such-event", f"none of the last {SEARCHED} events that you may read is {body.types}")

    return routes
