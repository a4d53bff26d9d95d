"""HTTP in: which blobs are missing, where to send them, and that a multipart upload is all there.

POST /v1/artifacts           {"files": [{"digest", "size"}, ...]}  ->  {"files": [Offer, ...]}
POST /v1/artifacts/complete  {"digest", "size", "upload_id"}       ->  Offer with state "present"
"""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from contracts.access import Action
from contracts.model import MAX_FILES
from contracts.payload import Payload
from kit.auth import Principal
from kit.web import Guard
from registry.api.common import InWorkspace
from registry.artifacts import Artifacts
from registry.offers import Completion, Offer, Wanted


class WantedFiles(Payload):
    files: Annotated[tuple[Wanted, ...], Field(min_length=1, max_length=MAX_FILES)]


class Offers(Payload):
    """One for each digest: a digest asked for twice is offered once."""

    files: list[Offer]


def router(artifacts: Artifacts, guard: Guard) -> APIRouter:
    api = APIRouter(tags=["artifacts"])
    Caller = Annotated[Principal, Depends(guard)]

    @api.post("/v1/artifacts", summary="Which blobs are missing, and where to send them")
    async def offer(body: WantedFiles, caller: Caller, workspace: InWorkspace = "default") -> Offers:
        guard.require_some(caller, Action.REGISTER, workspace)
        wanted = [(f.digest, f.size) for f in body.files]
        return Offers(files=await artifacts.offer(wanted, caller.subject, partial(_may_read, guard, caller)))

    @api.post("/v1/artifacts/complete", summary="All parts of a multipart upload were sent; may be said again")
    async def complete(body: Completion, caller: Caller, workspace: InWorkspace = "default") -> Offer:
        guard.require_some(caller, Action.REGISTER, workspace)
        await artifacts.complete(body.digest, body.size, body.upload_id, caller.subject)
        return Offer(digest=body.digest, size=body.size, state="present")

    return api


def _may_read(guard: Guard, caller: Principal, workspace: str, model: str) -> bool:
    return guard.access.allows(caller, Action.READ, workspace, model)
