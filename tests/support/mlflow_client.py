"""MLflow's own client against an application in this process, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
import uvicorn
from fastapi import FastAPI
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tests.support.waiting import until

T = TypeVar("T")


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """The address of the application, whose lifespan is somebody else's."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done())
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@dataclass(frozen=True)
class Mlflow:
    """Runs work with a client. `token` makes the token of a person in groups."""

    address: str
    workspace: str
    token: Callable[..., str]

    async def run(self, work: Callable[[MlflowClient], T], subject: str = "ana", *groups: str, **settings: str) -> T:
        """The work on a thread, with the client's settings as users make them: in the environment."""
        given = {
            "MLFLOW_TRACKING_TOKEN": self.token(subject, *(groups or ("ml-engineers", "admins"))),
            "MLFLOW_WORKSPACE": self.workspace,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **settings,
        }
        with patch.dict("os.environ", {name: value for name, value in given.items() if value}):
            return await asyncio.to_thread(lambda: work(MlflowClient(self.address, self.address)))


def refused(code: str, text: str, call: Callable[..., Any], *args: Any, **named: Any) -> str:
    """The message of the error that the call must raise, which has this code and, somewhere, this text."""
    with pytest.raises(MlflowException) as raised:
        call(*args, **named)
    assert raised.value.error_code == code, raised.value
    assert text in raised.value.message, raised.value.message
    return str(raised.value.message)
