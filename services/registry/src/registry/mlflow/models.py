"""Registered models."""

from fastapi import APIRouter

from contracts.registry import RegisterModel, Tags
from kit.problems import Problem
from registry import orders
from registry.api.common import Document
from registry.mlflow import errors, filters, reading
from registry.mlflow.asks import Ask
from registry.mlflow.door import Door
from registry.search import query
from registry.search.access import readable
from registry.search.fields import Scope

REASON = "deleted through the MLflow API"


class Models:
    def __init__(self, door: Door) -> None:
        self._door = door

    def router(self) -> APIRouter:
        api = APIRouter(prefix="/registered-models")
        for method, path, handler in (
            ("POST", "/create", self.create),
            ("POST", "/rename", self.rename),
            ("PATCH", "/update", self.update),
            ("DELETE", "/delete", self.delete),
            ("GET", "/get", self.get),
            ("GET", "/search", self.search),
            ("POST", "/get-latest-versions", self.latest_versions),
            ("GET", "/get-latest-versions", self.latest_versions),
            ("POST", "/set-tag", self.set_tag),
            ("DELETE", "/delete-tag", self.delete_tag),
        ):
            self._door.add(api, method, path, handler)
        return api

    async def create(self, ask: Ask) -> Document:
        name = ask.name()
        command = RegisterModel(
            workspace=ask.workspace, model=name, description=ask.maybe("description") or "", tags=ask.tags()
        )
        try:
            await self._create(ask, command)
        except Problem as problem:
            raise errors.model_exists(name, problem) if problem.code == "model-exists" else problem from problem
        return await self._document(ask, name)

    async def _create(self, ask: Ask, command: RegisterModel) -> None:
        """A name that a deleted model has begins anew: MLflow keeps nothing of what it deletes."""
        try:
            await self._door.run(ask, command)
        except Problem as problem:
            if problem.code != "model-exists":
                raise
            given = command.model_dump(include={"workspace", "model", "description", "tags"})
            await self._door.run(ask, orders.RecreateModel(**given, name=command.model))

    async def rename(self, ask: Ask) -> Document:
        name, new = ask.name(), ask.name("new_name")
        await self._existing(ask, name)
        if new != name:
            try:
                await self._door.run(ask, orders.RenameModel(workspace=ask.workspace, model=name, name=new))
            except Problem as problem:
                raise errors.model_exists(new, problem) if problem.code == "model-exists" else problem from problem
        return await self._document(ask, new)

    async def update(self, ask: Ask) -> Document:
        name = ask.name()
        await self._existing(ask, name)
        description = ask.maybe("description") or ""
        await self._door.run(ask, orders.UpdateModel(workspace=ask.workspace, model=name, description=description))
        return await self._document(ask, name)

    async def delete(self, ask: Ask) -> Document:
        name = ask.name()
        await self._existing(ask, name)
        await self._door.run(ask, orders.DeleteModel(workspace=ask.workspace, model=name, reason=REASON))
        return {}

    async def get(self, ask: Ask) -> Document:
        return await self._document(ask, ask.name())

    async def search(self, ask: Ask) -> Document:
        limit = ask.limit(default=100, most=1_000)
        patterns = readable(self._door.gate.guard, ask.caller, ask.workspace)
        search = filters.read(
            Scope.MODELS, ask.workspace, ask.maybe("filter") or "", ask.texts("order_by"), patterns=patterns
        )
        async with self._door.gate.db.snapshot() as tx:
            page = await query.page(tx, search, limit=limit, after=ask.maybe("page_token") or None)
            found = await reading.models(tx, ask.workspace, [model for (model,) in page.rows])
        return {"registered_models": found} | ({"next_page_token": page.next} if page.next else {})

    async def latest_versions(self, ask: Ask) -> Document:
        """Of the stages named, or of all; MLflow's clients send the names that the caller gave."""
        name, named = ask.name(), ask.texts("stages")
        async with self._door.gate.db.snapshot() as tx:
            model = await self._door.model(tx, ask, name)
            lifecycle = await reading.lifecycle(tx, ask.workspace)
            stages = [reading.meant(lifecycle, stage) for stage in dict.fromkeys(named)] if named else None
            rows = await reading.latest(tx, ask.workspace, [model.identity], stages)
            return {"model_versions": await reading.versions(tx, ask.workspace, rows)}

    async def set_tag(self, ask: Ask) -> Document:
        name, tags = ask.name(), Tags(set={ask.key(): ask.value()})
        await self._existing(ask, name)
        await self._door.run(ask, orders.UpdateModel(workspace=ask.workspace, model=name, tags=tags))
        return {}

    async def delete_tag(self, ask: Ask) -> Document:
        name, key = ask.name(), ask.key()
        if key in (await self._existing(ask, name)).tags:
            tags = Tags(remove=(key,))
            await self._door.run(ask, orders.UpdateModel(workspace=ask.workspace, model=name, tags=tags))
        return {}

    async def _existing(self, ask: Ask, name: str) -> reading.Found:
        return await self._door.present(ask, name)

    async def _document(self, ask: Ask, name: str) -> Document:
        async with self._door.gate.db.snapshot() as tx:
            model = await self._door.model(tx, ask, name)
            [document] = await reading.models(tx, ask.workspace, [model.identity])
        return {"registered_model": document}
