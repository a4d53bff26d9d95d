"""Templates that people wrote: which is in force, and what an event says in its words."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from prometheus_client import Counter

from contracts.envelope import Envelope
from contracts.notifier import Channel, Format
from kit.db import Database
from notifier import template_views
from notifier.domain import Subscription
from notifier.matching import Seen
from notifier.tables import DeliveryRow, table_of
from notifier.template_views import Template
from notifier.wording import notice

log = structlog.get_logger()
FAILED = Counter("hallmark_template_failures_total", "Templates that could not be rendered", ["channel"])
SECONDS = 1.0
FRESH_SECONDS = 2.0


class TemplateFailed(Exception):
    """What is wrong with a template, in words for its author."""


class Press:
    """Renders in another process, one after the other. One that takes too long is ended, and a new one started."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: Process | None = None
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Ends the process when it is cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def render(self, channel: str, parts: Mapping[str, str], context: Mapping[str, Any] | None) -> dict[str, str]:
        """The parts, rendered; without a context they are only checked. Raises TemplateFailed."""
        line = json.dumps({"channel": channel, "parts": dict(parts), "context": context}) + "\n"
        async with self._lock:
            process = await self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                async with asyncio.timeout(self._seconds):
                    process.stdin.write(line.encode())
                    await process.stdin.drain()
                    told = await process.stdout.readline()
            except (TimeoutError, OSError, ValueError) as error:
                await self.close()
                raise TemplateFailed(f"it took longer than {self._seconds:g} s") from error
            except asyncio.CancelledError:
                await self.close()
                raise
        if not told:
            await self.close()
            raise TemplateFailed("it needs too much memory")
        answer = json.loads(told)
        if "error" in answer:
            raise TemplateFailed(answer["error"])
        found: dict[str, str] = answer["parts"]
        return found

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            # Who got out of the sandbox would find no settings there: passwords are in our environment.
            command = (sys.executable, "-I", "-m", "notifier.press")
            self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=2**22, env={})
            # Its first answer tells that it is there: a start takes longer than a template may.
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(b'{"channel": "", "parts": {}, "context": null}\n')
            await self._process.stdout.readline()
        return self._process

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@dataclass(frozen=True)
class Worded:
    """An event in the words of a template."""

    template: str
    parts: Mapping[str, str]


class Templates:
    """What is in force is read anew every few seconds."""

    def __init__(self, db: Database, press: Press) -> None:
        self._db, self._press = db, press
        self._known: list[Template] = []
        self._read_at = -FRESH_SECONDS

    async def worded(self, of: Subscription, delivery_id: UUID, envelope: Envelope) -> Worded | None:
        """The event in the words of the template that is in force for it, and a note of that in the delivery. None:
        there is no template, or it failed; the note says why, and the built-in words are used."""
        if of.channel is Channel.WEBHOOK and of.format is not Format.SLACK:
            return None  # an event, or another registry's message: software reads it
        template = await self._in_force(of.workspace, str(of.channel), envelope.type)
        if template is None:
            return None
        note: dict[str, str | None] = {"template": template.name, "template_error": None}
        found = None
        try:
            found = Worded(template.name, await self._press.render(template.channel, template.parts, context(envelope)))
        except TemplateFailed as error:
            FAILED.labels(template.channel).inc()
            note["template_error"] = str(error)
            log.warning("a template failed", template=template.name, error=str(error))
        delivery = table_of(DeliveryRow)
        async with self._db.transaction() as tx:
            await tx.execute(sa.update(delivery).where(delivery.c.delivery_id == delivery_id).values(note))
        return found

    async def _in_force(self, workspace: str, channel: str, type_: str) -> Template | None:
        if time.monotonic() - self._read_at >= FRESH_SECONDS:
            async with self._db.snapshot() as tx:
                self._known = await template_views.in_force(tx)
            self._read_at = time.monotonic()
        return chosen(self._known, workspace, channel, type_)


def chosen(known: list[Template], workspace: str, channel: str, type_: str) -> Template | None:
    """The one with the longest pattern that fits: what is said of a type goes before what is said of many."""
    fits = [t for t in known if (t.workspace, t.channel) == (workspace, channel) and fnmatchcase(type_, t.types)]
    return max(fits, key=lambda t: (len(t.types), t.types), default=None)


def context(envelope: Envelope) -> dict[str, Any]:
    """What a template may look at."""
    event, words = Seen(envelope), notice(envelope)
    workspace, model, version = event.place
    told: dict[str, Any] = {
        "id": envelope.id,
        "type": envelope.type,
        "subject": envelope.subject,
        "actor": envelope.actor,
    }
    told |= {"time": envelope.time.isoformat(), "workspace": workspace, "model": model, "version": version}
    return {"notice": {**asdict(words), "summary": words.summary}, "event": told, "data": event.data}
