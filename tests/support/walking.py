"""A registry that lives on between the steps of a random walk, and the requests of its steps."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.integration.registry.conftest import Harness, new_settings, running

from contracts.lifecycle import DEFAULT_LIFECYCLE, Move, StageRule
from embedded.fixtures import S3, Kafka, acquire
from kit.auth import Access
from kit.db import Database
from kit.inbox import Inbox
from kit.topics import apply_topics
from registry.artifacts import Artifacts, store_of
from registry.commands import Commands
from registry.tables import event_log, mechanism

T = TypeVar("T")
OPEN = DEFAULT_LIFECYCLE.model_copy(
    update={
        "stages": (*DEFAULT_LIFECYCLE.stages, StageRule(name="Canary", gated=True, holds=2)),
        "moves": (*DEFAULT_LIFECYCLE.moves, Move(origin="Development", to="Canary")),
        "open_moves": True,
    }
)
RULES: tuple[dict[str, Any], ...] = (
    {},
    {"protected_aliases": ["champ"]},
    {"lifecycle": OPEN.model_dump(mode="json"), "protected_aliases": ["champ"]},
    {"lifecycle": OPEN.model_dump(mode="json"), "naming": "[ab]"},
)


class World:
    """The running service on a loop of its own, so that it lives on between the steps."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._stack = AsyncExitStack()
        self.harness: Harness
        self.db: Database
        self.commands: Commands
        self.artifact: dict[str, Any] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(90)

    async def start(self, given: Any, directory: Path) -> None:
        await apply_topics(given.kafka_bootstrap, prefix=given.topic_prefix)
        self.harness = await self._stack.enter_async_context(running(given, directory))
        self.db = Database(given.database_url.get_secret_value(), name="test")
        self._stack.push_async_callback(self.db.close)
        access, artifacts = Access.load(given.access_file), Artifacts(self.db, store_of(given))
        # As another replica: decisions come in here.
        self.commands = Commands(self.db, event_log(), Inbox(mechanism), access, artifacts, transition_hours=1)
        self.artifact = (await self.harness.register("seed"))["content"]["artifact"]

    def stop(self) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="module")
def world(infra_postgres: str, infra_s3: S3, infra_locks: Path, tmp_path_factory: Any) -> Iterator[World]:
    """On one broker: this is about the database."""
    kind = "apache" if os.environ.get("HALLMARK_TEST_STACK") == "containers" else "tansu"
    kafka, directory = Kafka(**acquire(f"kafka-{kind}", infra_locks)), tmp_path_factory.mktemp("machine")
    with new_settings(infra_postgres, infra_s3, kafka, directory) as given:
        world = World()
        try:
            world.run(world.start(given, directory))
            yield world
        finally:
            world.stop()


def request_of(
    kind: str, given: Sequence[Any], *, workspace: str, artifact: dict[str, Any], text: str
) -> dict[str, Any]:
    """The HTTP request that an action of the random walk stands for; `text` is told apart from every other."""
    name, rest = given[0], given[1:]
    model = f"/v1/models/{name}"
    version = f"{model}/versions/{rest[0] if rest else 0}"
    evaluation = {"dataset": {"name": text}, "metrics": {"m": 1.5}, "evaluated_at": "2026-01-01T00:00:00Z"}
    requests: dict[str, Callable[[], tuple[str, str, Any]]] = {
        "register-model": lambda: ("POST", "/v1/models", {"name": name}),
        "register-version": lambda: ("POST", f"{model}/versions", {"artifact": artifact}),
        "update": lambda: ("PATCH", model, {"description": text, "tags": {"set": {text: text}}}),
        "rename": lambda: ("POST", f"{model}/rename", {"name": rest[0]}),
        "delete": lambda: ("POST", f"{model}/delete", {"reason": text}),
        "restore": lambda: ("POST", f"{model}/restore", {"reason": text}),
        "tag": lambda: ("PATCH", f"{version}/tags", {"set": {"t": text}, "remove": ["u"]}),
        "note": lambda: ("POST", f"{version}/notes", {"text": text}),
        "evaluate": lambda: ("POST", f"{version}/evaluations", evaluation),
        "request": lambda: ("POST", f"{version}/transitions", {"to_stage": rest[1], "reason": text}),
        "rollback": lambda: ("POST", f"{model}/rollback", {"reason": text, "to_version": rest[0]}),
        "cancel": lambda: ("POST", f"/v1/transitions/{name}/cancel", {"reason": text}),
        "configure": lambda: ("PUT", f"/v1/workspaces/{workspace}", RULES[name]),
        "set-alias": lambda: ("PUT", f"{model}/aliases/{rest[0]}", {"version": rest[1], "expected": rest[2]}),
        "remove-alias": lambda: ("DELETE", f"{model}/aliases/{rest[0]}", None),
    }
    method, url, body = requests[kind]()
    asked: dict[str, Any] = {"method": method, "url": url}
    return asked | ({"params": {"reason": text}} if body is None else {"json": body})
