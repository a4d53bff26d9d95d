"""Model versions."""

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.model import Lineage, VersionContent, external_artifact
from contracts.registry import RegisterVersion, Tags, TagVersion
from kit.problems import Problem
from registry import orders, state
from registry.api.common import Document
from registry.mlflow import filters, reading, sources
from registry.mlflow.asks import Ask
from registry.mlflow.door import Door
from registry.mlflow.errors import INVALID, Refusal
from registry.search import query
from registry.search.access import readable
from registry.search.fields import Scope

REASON = "asked for through the MLflow API"
DELETED = "deleted through the MLflow API"


class Versions:
    def __init__(self, door: Door) -> None:
        self._door = door

    def router(self) -> APIRouter:
        api = APIRouter(prefix="/model-versions")
        for method, path, handler in (
            ("POST", "/create", self.create),
            ("GET", "/get", self.get),
            ("PATCH", "/update", self.update),
            ("DELETE", "/delete", self.delete),
            ("GET", "/get-download-uri", self.download_uri),
            ("GET", "/search", self.search),
            ("POST", "/transition-stage", self.transition),
            ("POST", "/set-tag", self.set_tag),
            ("DELETE", "/delete-tag", self.delete_tag),
        ):
            self._door.add(api, method, path, handler)
        return api

    async def create(self, ask: Ask) -> Document:
        """The next version, of an artifact that stays where it is (see `contracts.model.Artifact`)."""
        name, given = ask.name(), sources.read(ask)
        model = await self._door.present(ask, name)
        if (copied := sources.copied(given.source)) is not None:
            await self._existing(ask, *copied)
        content = VersionContent(
            artifact=external_artifact(given.source),
            lineage=Lineage(run=given.pointer),
            tags=ask.tags(),
            notes=ask.maybe("description") or "",
        )

        async def made(tx: AsyncConnection, reference: str) -> Document:
            number = int(reference.rpartition("/")[2])
            [document] = await reading.versions(tx, ask.workspace, [(model.identity, number)])
            return document

        command = RegisterVersion(workspace=ask.workspace, model=name, content=content)
        return {"model_version": await self._door.run(ask, command, made)}

    async def download_uri(self, ask: Ask) -> Document:
        """Where the artifact lies; a copy's is that of the version it was copied from."""
        name, number = ask.name(), ask.version()
        async with self._door.gate.db.snapshot() as tx:
            document = await self._door.version(tx, ask, name, number)
            while (origin := sources.copied(document["source"])) is not None:
                # By identity: it may have another name now. Who copied it was allowed to read it.
                place = (await state.identity(tx, ask.workspace, origin[0]), origin[1])
                [document] = await reading.versions(tx, ask.workspace, [place], deleted=True)
        if document["source"].startswith(reading.UPLOADED):
            detail = "is in the registry's own store; fetch it with `hallmark version download`"
            raise Refusal(INVALID, f"The artifact of version {document['version']} of {document['name']} {detail}")
        return {"artifact_uri": document["source"]}

    async def get(self, ask: Ask) -> Document:
        return {"model_version": await self._existing(ask, ask.name(), ask.version())}

    async def update(self, ask: Ask) -> Document:
        name, number, description = ask.name(), ask.version(), ask.maybe("description") or ""
        await self._existing(ask, name, number)
        await self._door.run(
            ask,
            orders.DescribeVersion(workspace=ask.workspace, model=name, version=number, description=description),
        )
        return {"model_version": await self._existing(ask, name, number)}

    async def delete(self, ask: Ask) -> Document:
        name, number = ask.name(), ask.version()
        await self._existing(ask, name, number)
        await self._door.run(
            ask, orders.DeleteVersion(workspace=ask.workspace, model=name, version=number, reason=DELETED)
        )
        return {}

    async def search(self, ask: Ask) -> Document:
        limit = ask.limit(default=200_000, most=200_000)
        patterns = readable(self._door.gate.guard, ask.caller, ask.workspace)
        search = filters.read(
            Scope.VERSIONS, ask.workspace, ask.maybe("filter") or "", ask.texts("order_by"), patterns=patterns
        )
        async with self._door.gate.db.snapshot() as tx:
            page = await query.page(tx, search, limit=limit, after=ask.maybe("page_token") or None)
            found = await reading.versions(tx, ask.workspace, [(model, version) for model, version in page.rows])
        return {"model_versions": found} | ({"next_page_token": page.next} if page.next else {})

    async def transition(self, ask: Ask) -> Document:
        """A stage that needs a decision is waited for. A version that is there already stays."""
        name, number, asked = ask.name(), ask.version(), ask.text("stage")
        archive = ask.flag("archive_existing_versions")
        async with self._door.gate.db.snapshot() as tx:
            await self._door.version(tx, ask, name, number)
            lifecycle = await reading.lifecycle(tx, ask.workspace)
        stage = reading.meant(lifecycle, asked)
        if archive and stage in (lifecycle.initial, lifecycle.archive):
            raise Refusal(
                INVALID,
                "Model version transition cannot archive existing model versions "
                f"because '{asked}' is not an Active stage.",
            )
        command = orders.MoveToStage(
            workspace=ask.workspace,
            model=name,
            version=number,
            to_stage=stage,
            reason=REASON,
            archive_existing=archive,
        )
        try:
            await self._door.settle(ask, command, f"{stage} for version {number} of {name}")
        except Problem as problem:
            if problem.code != "already-in-stage":
                raise
        return {"model_version": await self._existing(ask, name, number)}

    async def set_tag(self, ask: Ask) -> Document:
        name, number, tags = ask.name(), ask.version(), Tags(set={ask.key(): ask.value()})
        await self._door.present(ask, name)
        await self._door.run(ask, TagVersion(workspace=ask.workspace, model=name, version=number, tags=tags))
        return {}

    async def delete_tag(self, ask: Ask) -> Document:
        name, number, key = ask.name(), ask.version(), ask.key()
        document = await self._existing(ask, name, number)
        if any(tag["key"] == key for tag in document.get("tags", ())):
            tags = Tags(remove=(key,))
            await self._door.run(ask, TagVersion(workspace=ask.workspace, model=name, version=number, tags=tags))
        return {}

    async def _existing(self, ask: Ask, name: str, number: int) -> Document:
        async with self._door.gate.db.snapshot() as tx:
            return await self._door.version(tx, ask, name, number)
