"""The registry's artifacts over HTTP and nothing else: real store and database, callers are who they say they are.

`python -m tests.support.uploads` serves it in a process of its own, so that its memory can be measured.
"""

import os
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import insert

from contracts.access import Action, Role
from contracts.model import Artifact
from kit import problems
from kit.auth import Access, Grant, Principal
from kit.blobs import BlobStore
from kit.db import Database
from kit.web import Guard
from registry import uploads
from registry.artifacts import Artifacts
from registry.tables import BlobRow, BlobUseRow, t


class Anybody(Guard):
    """`Bearer ana` is Ana, and may do everything."""

    def __init__(self) -> None:
        self.access = Access([Grant(group="everyone", role=Role.ADMIN)])

    async def verify(self, authorization: str | None) -> Principal:
        subject = (authorization or "Bearer nobody").removeprefix("Bearer ")
        return Principal(subject, frozenset(), "user", 0, "test")

    def require(self, principal: Principal, action: Action, workspace: str, model: str = "*") -> None:
        pass


class Settled(BaseModel):
    artifact: Artifact


def make_app(db: Database, artifacts: Artifacts) -> FastAPI:
    """With two shortcuts: `/v1/test/versions` does what verification does, and `resolve` tells of the result."""
    app = FastAPI()
    problems.install(app)
    guard = Anybody()
    app.include_router(uploads.router(artifacts, guard))
    versions: list[Artifact] = []

    @app.post("/v1/test/versions")
    async def settle(request: Request, body: Settled) -> dict[str, int]:
        caller = await guard(request)
        for part in body.artifact.parts():
            aside = await artifacts.set_aside(part, caller.subject)
            await artifacts.keep(aside, part.digest)
            await artifacts.discard(aside)
            async with db.transaction() as tx:
                row = {"digest": part.digest, "size": part.size}
                await tx.execute(insert(t(BlobRow)).values(row).on_conflict_do_nothing())
                use = {"digest": part.digest, "workspace": "default", "model": "m", "version": len(versions) + 1}
                await tx.execute(insert(t(BlobUseRow)).values(use).on_conflict_do_nothing())
            await artifacts.release(aside)
        versions.append(body.artifact)
        return {"version": len(versions)}

    @app.get("/v1/models/{model}/resolve")
    async def resolve(model: str, version: int) -> dict[str, Any]:
        artifact = versions[version - 1]
        return {
            "workspace": "default",
            "model": model,
            "version": version,
            "stage": "Development",
            "digest": artifact.digest,
            "artifact": artifact.model_dump(mode="json"),
            "files": [download.model_dump() for download in artifacts.downloads(artifact)],
        }

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    return app


def serve() -> None:
    env = os.environ
    store = BlobStore(
        endpoint=env["S3_ENDPOINT"],
        public_endpoint=env["S3_ENDPOINT"],
        access_key=env["S3_ACCESS_KEY"],
        secret_key=env["S3_SECRET_KEY"],
        bucket=env["S3_BUCKET"],
        region="us-east-1",
    )
    db = Database(env["DATABASE_URL"], name="uploads", pool=2)
    uvicorn.run(make_app(db, Artifacts(db, store)), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    serve()
