"""Evidence and external checks on a real database and store, with a real HTTP server that plays the checks."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import sqlalchemy as sa
from fastapi import FastAPI
from joserfc.jwk import OKPKey
from tests.integration.approval.conftest import Direct, transition_id
from tests.support.waiting import until

from approval.answers import Answers
from approval.api.common import Callers
from approval.api.evidence import router
from approval.calls import Calls, asking_of, secrets_of
from approval.domain import Request
from approval.evidence import Attachments
from approval.files import Files, files_of
from approval.settings import ApprovalSettings
from approval.tables import CallRow, of
from contracts.approval import GateAnswered
from contracts.lifecycle import Stage
from contracts.registry import Tags, VersionTagged
from kit import problems
from kit.keys import ensure_key, make_token
from kit.web import Guard
from kit.webhooks import headers_of, new_secret

SECRETS = {"fairness": new_secret(), "safety": new_secret()}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def policy(*gates: str, request: str = "", name: str = "checked") -> str:
    """A policy for the way to Staging, where nobody else is asked. `gates` and `request` in YAML's flow style."""
    return f"""
apiVersion: registry.dev/v1
kind: PromotionPolicy
metadata: {{name: {name}}}
spec:
  match: {{transition: {{to: Staging}}}}
  request: {{{request}}}
  gates: [{", ".join(gates)}]
"""


def webhook(url: str, gate: str = "fairness", **more: str) -> str:
    given = "".join(f", {name}: {value}" for name, value in more.items())
    secret = gate if gate in SECRETS else "fairness"
    return f"{{id: {gate}, webhook: {{url: '{url}', secret: {secret}}}{given}}}"


@dataclass
class Rig:
    """The parts under test over one database, and clients of their routes."""

    direct: Direct
    settings: ApprovalSettings
    attachments: Attachments
    answers: Answers
    files: Files | None
    app: FastAPI
    key: OKPKey

    def client(self, subject: str, *groups: str, kind: str = "person") -> httpx2.AsyncClient:
        token = make_token(self.key, subject, list(groups), ttl_seconds=600, kind=kind)
        return self.anybody(authorization=f"Bearer {token}")

    def anybody(self, **headers: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://approval", headers=headers, timeout=60)

    @property
    def ana(self) -> httpx2.AsyncClient:
        return self.client("ana", "ml-engineers")

    @property
    def ci(self) -> httpx2.AsyncClient:
        return self.client("ci-bot", "ml-engineers", "ci", kind="service")

    def calls(self, **options: Any) -> Calls:
        settings = self.settings.model_copy(update=options)
        desk = self.direct.parts.desk
        return Calls(desk, Answers(desk, secrets_of(settings)), asking_of(settings), settings)

    @asynccontextmanager
    async def worker(self, **options: Any) -> AsyncIterator[Calls]:
        calls = self.calls(**options)
        task = asyncio.create_task(calls.run())
        try:
            yield calls
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def asked(self, model: str, version: int = 1, *, by: str = "ana") -> str:
        """A new version, and a request that it enters Staging; gives its id."""
        await self.direct.registry.register(model, version, accuracy=0.95)
        return await self.asked_again(model, version, by=by)

    async def asked_again(self, model: str, version: int = 1, *, by: str = "ana") -> str:
        envelope = await self.direct.registry.request(
            model, version, by=by, from_=Stage.DEVELOPMENT, to=Stage.STAGING, expires_in=7 * 86_400
        )
        return transition_id(envelope)

    async def until(self, request_id: str, holds: Callable[[Request], Any]) -> Request:
        async def found() -> Request | None:
            request = await self.direct.request(request_id)
            return request if holds(request) else None

        return await until(found)

    async def decided(self, request_id: str) -> Request:
        return await self.until(request_id, lambda request: request.status != "open")

    async def rows(self) -> list[Any]:
        """The questions that are still to be asked."""
        async with self.direct.db.snapshot() as tx:
            return list((await tx.execute(sa.select(of(CallRow)).order_by(of(CallRow).c.request_id))).all())

    async def answered(self, model: str) -> list[GateAnswered]:
        async with self.direct.db.snapshot() as tx:
            log = self.direct.parts.desk.log.read(tx, stream=f"default/{model}")
            return [e.payload(GateAnswered) async for e in log if e.type == GateAnswered.TYPE]

    async def post_answer(
        self,
        request_id: str,
        request_digest: str,
        *,
        gate: str = "checked/fairness",
        secret: str = SECRETS["fairness"],
        at: float | None = None,
        signed: Mapping[str, str] | None = None,
        **body: Any,
    ) -> httpx2.Response:
        """`signed`: which question the message says it answers, where it is not the one of the address."""
        given = {"request_id": request_id, "gate": gate, "result": "pass", "request_digest": request_digest, **body}
        given |= signed or {}
        content = json.dumps(given).encode()
        headers = headers_of(secret, "msg_1", int(at or time.time()), content)
        url = f"/v1/requests/{request_id}/gates/{gate}/answers"
        async with self.anybody(**headers, **{"content-type": "application/json"}) as client:
            return await client.post(url, content=content)


def make_rig(direct: Direct, **options: Any) -> Rig:
    given = {"gate_retry_seconds": 0.05, "gate_poll_seconds": 0.05, "gate_call_seconds": 10.0, **options}
    settings = ApprovalSettings.model_validate(
        {
            **direct.settings.model_dump(),
            "gate_secrets": SECRETS,
            "gate_allow": "127.0.0.1",
            "approval_url": "https://approval.example/",
            **given,
        }
    )
    desk, files = direct.parts.desk, files_of(settings)
    attachments = Attachments(desk, direct.parts.commands, files)
    answers = Answers(desk, secrets_of(settings))
    app = FastAPI()
    problems.install(app)
    app.include_router(router(Callers(Guard(settings), desk), attachments, answers))
    key = ensure_key(settings.access_file.parent, "auth")
    return Rig(direct, settings, attachments, answers, files, app, key)


async def retagged(rig: Rig, model: str) -> None:
    """Something that every request of the version rests on changes."""
    tags = Tags(set={"at": str(time.monotonic_ns())})
    await rig.direct.registry.publish(VersionTagged(workspace="default", model=model, version=1, tags=tags), model, 1)
