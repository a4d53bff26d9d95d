"""Aliases of registered models."""

from fastapi import APIRouter

from contracts.registry import SetAlias
from kit.problems import Problem
from registry import orders
from registry.api.common import Document
from registry.mlflow import reading
from registry.mlflow.asks import Ask, check_reserved
from registry.mlflow.door import Door
from registry.mlflow.errors import INVALID, MISSING, Refusal

REASON = "set through the MLflow API"


class Aliases:
    def __init__(self, door: Door) -> None:
        self._door = door

    def router(self) -> APIRouter:
        api = APIRouter(prefix="/registered-models")
        self._door.add(api, "POST", "/alias", self.set)
        self._door.add(api, "DELETE", "/alias", self.delete)
        self._door.add(api, "GET", "/alias", self.get)
        return api

    async def set(self, ask: Ask) -> Document:
        """Sets it, or moves it. A protected alias waits for a decision."""
        name, alias, number = ask.name(), ask.alias(), ask.version()
        check_reserved(alias)
        await self._door.present(ask, name)
        command = SetAlias(workspace=ask.workspace, model=name, version=number, alias=alias, reason=REASON)
        await self._door.settle(ask, command, f"the alias {alias} for version {number} of {name}")
        return {}

    async def delete(self, ask: Ask) -> Document:
        """One that is not there is no error, as in MLflow."""
        name, alias = ask.name(), ask.alias()
        await self._door.present(ask, name)
        command = orders.RemoveAlias(
            workspace=ask.workspace, model=name, alias=alias, reason="deleted through the MLflow API"
        )
        try:
            await self._door.run(ask, command)
        except Problem as problem:
            if problem.code != "alias-not-found":
                raise
        return {}

    async def get(self, ask: Ask) -> Document:
        """The version that it points at; `latest` is the highest one."""
        name, alias = ask.name(), ask.alias()
        async with self._door.gate.db.snapshot() as tx:
            model = await self._door.model(tx, ask, name)
            if alias.lower() == "latest":
                rows = await reading.latest(tx, ask.workspace, [model.identity])
                number = max((number for _, number in rows), default=None)
                if number is None:
                    raise Refusal(MISSING, f"Latest version not found for model {name}.")
            else:
                number = await reading.alias(tx, ask.workspace, model.identity, alias)
                if number is None:
                    raise Refusal(INVALID, f"Registered model alias {alias} not found.")
            return {"model_version": await self._door.version(tx, ask, name, number)}
