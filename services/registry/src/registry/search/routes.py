"""HTTP in: search over models and versions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from contracts.access import Action
from contracts.payload import ModelName
from kit.auth import Principal
from kit.db import Database
from kit.web import Guard
from registry import state
from registry.api.common import Document, InWorkspace, Limit
from registry.search import documents, query
from registry.search.access import readable
from registry.search.fields import Scope

Filter = Annotated[
    str,
    Query(
        description="Such as stage = 'Production' AND (metrics.auc >= 0.9 OR NOT tags.team = 'risk'). "
        "Fields: name, owner, description, created_at, updated_at, created_by, stage, alias, tags.KEY, and of versions "
        "version_number, status, run_id, source_path, metrics.KEY, params.KEY",
    ),
]
Order = Annotated[list[str], Query(description="Such as metrics.auc DESC; missing values come last")]
After = Annotated[str | None, Query(description="`next` of the page before, with the same filter and order")]
OfModel = Annotated[ModelName | None, Query(description="Of this model only, by its present name or any former one")]


def router(db: Database, guard: Guard) -> APIRouter:
    api = APIRouter(tags=["search"])
    Caller = Annotated[Principal, Depends(guard)]

    @api.get("/v1/search/models", summary="Models that pass a filter, in any order")
    async def search_models(
        caller: Caller,
        workspace: InWorkspace = "default",
        filter: Filter = "",  # noqa: A002
        order_by: Order = [],  # noqa: B006
        limit: Limit = 50,
        after: After = None,
    ) -> Document:
        patterns = readable(guard, caller, workspace)
        search = query.read(Scope.MODELS, workspace, filter, ", ".join(order_by), patterns=patterns)
        async with db.snapshot() as tx:
            page = await query.page(tx, search, limit=limit, after=after)
            items = await documents.model_documents(tx, workspace, page.rows, page.stages)
        return {"items": items, "next": page.next}

    @api.get("/v1/search/versions", summary="Versions that pass a filter, in any order: the best first, say")
    async def search_versions(
        caller: Caller,
        workspace: InWorkspace = "default",
        filter: Filter = "",  # noqa: A002
        order_by: Order = [],  # noqa: B006
        limit: Limit = 50,
        after: After = None,
        model: OfModel = None,
    ) -> Document:
        patterns = None if model else readable(guard, caller, workspace)
        search = query.read(Scope.VERSIONS, workspace, filter, ", ".join(order_by), patterns=patterns)
        async with db.snapshot() as tx:
            if model is not None:
                identity = await state.identity(tx, workspace, model)
                guard.require(caller, Action.READ, workspace, identity)
                search = await query.only(tx, search, identity)
            page = await query.page(tx, search, limit=limit, after=after)
            items = await documents.version_documents(tx, workspace, page.rows)
        return {"items": items, "next": page.next}

    return api
