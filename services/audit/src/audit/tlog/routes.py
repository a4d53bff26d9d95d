"""HTTP in: the log as C2SP tlog-tiles serves it, and its proofs for whoever does not want to compute them."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from audit.access import TILES, AccessLog
from audit.completeness import Completeness as Checker
from audit.tlog import tiles
from audit.tlog.answers import Completeness, Consistency, EntryPage, Inclusion, Verdict
from audit.tlog.archive import BYTES, TEXT, Archive, Damage
from audit.tlog.check import Check
from audit.tlog.pages import entry_page
from audit.tlog.proofs import Proofs
from audit.tlog.publisher import Published, Publisher
from audit.tlog.tiles import WIDTH
from kit.auth import Principal
from kit.db import Database
from kit.openapi import NO_TOKEN
from kit.problems import Problem
from kit.web import Guard

Document = dict[str, Any]
PUBLIC: dict[str, Any] = {"tags": ["log"], "response_class": PlainTextResponse, "openapi_extra": NO_TOKEN}
MAX_INDEX = 2**63 - 1
VERIFIER = File(__file__).parent.with_name("verify.py")
IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
# No cache on the way may hand it to somebody else.
RESTRICTED = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Authorization"}
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most")]
Index = Annotated[int, Query(ge=0, le=MAX_INDEX)]


def router(
    db: Database,
    guard: Guard,
    access: AccessLog,
    publisher: Publisher,
    archive: Archive,
    completeness: Checker,
    *,
    is_public: bool,
) -> APIRouter:
    """`is_public`: bundles of entries and tiles are served to everybody."""
    api = APIRouter()
    proofs, check = Proofs(db, archive), Check(db, archive)
    checking = asyncio.Lock()

    async def auditor(request: Request, caller: Annotated[Principal, Depends(guard)]) -> Principal:
        await access.admit(caller, await access.told(request))
        return caller

    async def covering(size: int) -> Published:
        """The newest checkpoint, if it covers so many entries: then nobody else needs to be there. Else the head's."""
        newest = await publisher.newest()
        return newest if newest is not None and newest.checkpoint.size >= size else await publisher.current()

    log = APIRouter(prefix="/v1/log", tags=["log"], dependencies=[Depends(auditor)])

    @api.get("/checkpoint", summary="The newest signed checkpoint (C2SP tlog-checkpoint)", **PUBLIC)
    async def checkpoint() -> Response:
        newest = await publisher.newest() or await publisher.current()
        return Response(newest.note, media_type=TEXT, headers={"Cache-Control": "no-cache"})

    @api.get("/keys", summary="The verifier key lines (C2SP signed-note), one a line", **PUBLIC)
    async def keys() -> PlainTextResponse:
        return PlainTextResponse("".join(f"{vkey}\n" for vkey in publisher.vkeys))

    @api.get(
        "/tile/{path:path}",
        tags=["log"],
        summary="A tile of hashes, <L>/<N>[.p/<W>], or a bundle of entries, entries/<N>[.p/<W>] (C2SP tlog-tiles)",
        response_class=Response,
        responses={200: {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def tile(
        request: Request, path: Annotated[str, Path(description="As C2SP tlog-tiles spells it")]
    ) -> Response:
        wanted = tiles.parse(path)
        is_pruned = wanted is not None and wanted.level < 0 and wanted.start + WIDTH <= await proofs.minimum()
        if is_pruned and is_public and "authorization" not in request.headers:
            raise Problem(410, "pruned", "the log gives out these entries to auditors only: see /v1/log/minimum-index")
        restricted = is_pruned or not is_public
        if restricted:
            await access.admit_sparsely(await guard(request), TILES, f"GET {request.url.path}", _span(wanted))
        data = await archive.read(wanted.path) if wanted is not None else None
        if data is None:
            raise Problem(404, "no-such-tile", f"the log has no tile {path}")
        return Response(data, media_type=BYTES, headers=RESTRICTED if restricted else IMMUTABLE)

    @api.get(
        "/v1/log/minimum-index", summary="The log gives out entries from this index on (C2SP tlog-tiles)", **PUBLIC
    )
    async def minimum() -> PlainTextResponse:
        return PlainTextResponse(f"{await proofs.minimum()}\n", headers={"Cache-Control": "no-cache"})

    @api.get("/v1/log/verifier", summary="The offline verifier: one file", **PUBLIC)
    async def verifier() -> PlainTextResponse:
        return PlainTextResponse(VERIFIER.read_text(), media_type="text/x-python")

    @log.get("/entries", summary="Entries with their exact bytes", response_model=EntryPage)
    async def entries(start: Index = 0, limit: Limit = 50) -> Document:
        return await entry_page(db, proofs, start, limit)

    @log.get("/inclusion", summary="Proof that an entry is under the checkpoint", response_model=Inclusion)
    async def inclusion(index: Index) -> Document:
        published = await covering(index + 1)
        head = published.checkpoint
        proof = await proofs.inclusion(index, head.size)
        return {
            "index": index,
            "size": head.size,
            "root": _text(head.root),
            "leaf_hash": (await proofs.leaf_hash(index)).hex(),
            "proof": [_text(node) for node in proof],
            "checkpoint": published.note,
        }

    @log.get("/consistency", summary="Proof that the log only grew between two sizes", response_model=Consistency)
    async def consistency(
        first: Annotated[int, Query(alias="from", ge=0, le=MAX_INDEX)],
        second: Annotated[int | None, Query(alias="to", ge=0, le=MAX_INDEX)] = None,
    ) -> Document:
        published = await covering(max(first, second or 0))
        size = published.checkpoint.size if second is None else second
        proof = await proofs.consistency(first, size)
        return {
            "from": first,
            "to": size,
            "from_root": _text(await proofs.root(first)),
            "to_root": _text(await proofs.root(size)),
            "proof": [_text(node) for node in proof],
            "checkpoint": published.note,
        }

    @log.get("/export", summary="The whole log for the offline verifier", response_class=StreamingResponse)
    async def export() -> StreamingResponse:
        try:
            published = await publisher.current()
        except Damage:  # whoever investigates needs what there is, all the more
            newest = await publisher.newest()
            if newest is None:
                raise
            published = newest
        return StreamingResponse(
            _export(proofs, published),
            media_type="application/x-ndjson",
            headers={
                "Content-Disposition": f'attachment; filename="hallmark-audit-{published.checkpoint.size}.ndjson"'
            },
        )

    @log.get("/verify", summary="Hash everything again and compare", response_model=Verdict)
    async def verify() -> Document:
        if checking.locked():
            raise Problem(409, "busy", "everything is being hashed already: ask again when that is done")
        async with checking:
            return await verdict()

    async def verdict() -> Document:
        try:
            return await check.everything(await publisher.current())
        except Damage as damage:
            refused = {"ok": False, "first_bad": {"index": None, "problem": damage.detail}}
        newest = await publisher.newest()
        found = await check.everything(newest) if newest is not None else refused
        return refused if found["ok"] else found

    @log.get("/completeness", summary="The log's offsets against the broker's", response_model=Completeness)
    async def complete() -> Document:
        return await completeness.check()

    api.include_router(log)
    return api


async def _export(proofs: Proofs, published: Published) -> AsyncIterator[bytes]:
    """The lines that `verify.py` reads: a header, then every entry under the checkpoint."""
    head = published.checkpoint
    header = {"origin": head.origin, "size": head.size, "root": _text(head.root), "checkpoint": published.note}
    with suppress(Damage):  # the entries are verified without them too
        width, subtrees = await proofs.subtrees(head.size)
        header |= {"width": width, "subtrees": [_text(one) for one in subtrees]}
    yield _line(header)
    async for rows in proofs.pages(0, head.size):
        yield b"".join(
            _line({"index": row["index"], "leaf": _text(row["leaf"]), "leaf_hash": row["leaf_hash"].hex()})
            for row in rows
        )


def _span(tile: tiles.Tile | None) -> tuple[int, int]:
    """The entries that a tile is about."""
    if tile is None:
        return 0, 0
    height = 8 * max(tile.level, 0)
    return tile.start << height, (tile.start + tile.width) << height


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _line(document: Document) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"
