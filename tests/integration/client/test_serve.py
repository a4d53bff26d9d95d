"""The example server under load: ten swaps, two outages of the registry, and not one failed request."""

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import onnx
import pytest
from onnx import TensorProto, helper
from tests.support.serving import Pen, running, settings_for
from tests.support.waiting import until

from contracts.lifecycle import Stage
from contracts.model import Artifact
from contracts.registry import ModelRegistered
from embedded import s3
from embedded.fixtures import S3, new_bucket
from embedded.ports import free_port
from kit.db import Database
from kit.keys import load_key
from registry.places import blob_key
from registry.serving.pins import PinSigner
from registry.settings import RegistrySettings

EXAMPLES = Path(__file__).parents[3] / "libs/client/examples"
PER_SECOND = 200
CONNECTIONS = 20
SWAPS = 10
COUNT = SWAPS + 1


def adding(number: int) -> bytes:
    """A model that adds its version's number: its answer says which one it was."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y"))
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [float(number)])
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "adds", [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def artifact(number: int) -> Artifact:
    data = adding(number)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Artifact(digest=digest, size=len(data), filename="model.onnx")


@pytest.fixture
def settings(infra_postgres: str, infra_s3: S3, tmp_path: Path) -> Iterator[RegistrySettings]:
    with settings_for(infra_postgres, tmp_path) as settings, new_bucket(infra_s3) as bucket:
        store = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
        for number in range(1, COUNT + 1):
            data = adding(number)
            store.put_object(bucket, blob_key(artifact(number).digest), io.BytesIO(data), len(data))
        yield settings.model_copy(
            update={
                "s3_endpoint": infra_s3.endpoint,
                "s3_access_key": type(settings.s3_access_key)(infra_s3.access_key),
                "s3_secret_key": type(settings.s3_secret_key)(infra_s3.secret_key),
                "s3_bucket": bucket,
            }
        )


class Load:
    """200 requests a second over 20 connections, each at its time. `versions`: who answered how many.

    HTTP by hand: a client library would take more of the machine than the server under test.
    """

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        body = json.dumps({"rows": [[0.5, 1.5]]}).encode()
        head = f"POST /predict HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\n"
        self._request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self._host, self._port = where.hostname, where.port
        self._ending = False
        self.versions: Counter[int] = Counter()
        self.failed: list[str] = []
        self.sent = 0
        self.seconds = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(self._connection(began, place) for place in range(CONNECTIONS)))
        self.seconds = loop.time() - began

    def end(self) -> None:
        self._ending = True

    async def _connection(self, began: float, place: int) -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(self._host, self._port)
        for turn in count():
            await asyncio.sleep(began + (place + turn * CONNECTIONS) / PER_SECOND - loop.time())
            if self._ending:
                break
            self.sent += 1
            writer.write(self._request)
            async with asyncio.timeout(20):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                answer = json.loads(await reader.readexactly(length))
            if not head.startswith(b"HTTP/1.1 200 ") or answer["predictions"] != [
                [0.5 + answer["version"], 1.5 + answer["version"]]
            ]:
                self.failed.append(f"{head!r} {answer}")
            else:
                self.versions[answer["version"]] += 1
        writer.close()


class Server:
    """The example behind uvicorn, as somebody would start it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{free_port([])}"
        command = [sys.executable, "-m", "uvicorn", "serve:app", "--log-level", "warning", "--port"]
        self._process = subprocess.Popen(
            [*command, self.url.rpartition(":")[2]], cwd=EXAMPLES, env={**os.environ, **environment}
        )

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    async def health(self) -> dict[str, Any]:
        """Empty while it does not answer."""
        async with httpx2.AsyncClient() as asking:
            try:
                answer = await asking.get(f"{self.url}/healthz")
            except httpx2.TransportError:
                return {}
        return dict(answer.json()) if answer.is_success else {}


async def test_ten_swaps_and_two_outages_fail_no_request(settings: RegistrySettings, tmp_path: Path) -> None:
    db = Database(settings.database_url.get_secret_value(), name="serve-test", pool=2)
    pen, port = Pen(db), free_port([])
    await pen.write("m", ModelRegistered(workspace=pen.workspace, model="m"))
    for number in range(1, COUNT + 1):
        await pen.version("m", number, artifact=artifact(number))
    await pen.promote("m", 1, origin=Stage.DEVELOPMENT)
    keys = tmp_path / "pin-keys.json"
    keys.write_text(json.dumps(PinSigner(load_key(settings.serving_key)).jwks))

    async def promote(number: int) -> None:
        await pen.promote("m", number, former=number - 1, origin=Stage.DEVELOPMENT)

    async def served(number: int) -> None:
        await until(lambda: load.versions[number] > 20, 30, lambda: f"{load.versions} {load.failed[:3]}")

    async def troubled() -> bool:
        return bool((await server.health())["trouble"])

    with ExitStack() as held:
        async with running(settings, port) as house:
            environment = {
                "MODEL": "m",
                "PIN_KEYS": str(keys),
                "HALLMARK_URL": house.url,
                "HALLMARK_TOKEN": house.token(),
                "HALLMARK_WORKSPACE": pen.workspace,
                "HALLMARK_CACHE_DIR": str(tmp_path / "cache"),
                "HALLMARK_INSTANCE": "pod-1",
            }
            server = Server(environment)
            held.callback(server.end)
            await until(server.health, 60)
            load = Load(server.url)
            driving = asyncio.create_task(load.run())
            for number in (2, 3, 4):
                await promote(number)
                await served(number)
        for first, others in ((5, (6, 7)), (8, (9, 10, 11))):
            await promote(first)  # while the registry is away
            sent = load.sent
            await until(lambda sent=sent: load.sent > sent + PER_SECOND)  # type: ignore[misc]
            await until(troubled)
            assert load.versions[first] == 0
            async with running(settings, port) as house:
                await served(first)
                for number in others:
                    await promote(number)
                    await served(number)
                async with house.client(pen) as asking:
                    await until(lambda last=others[-1]: in_step(asking, last))  # type: ignore[misc]
        load.end()
        await driving
        metrics = httpx2.get(f"{server.url}/metrics").text
    await db.close()
    assert load.failed == []
    assert sorted(load.versions) == list(range(1, COUNT + 1))
    assert sum(load.versions.values()) == load.sent >= 0.95 * PER_SECOND * load.seconds
    assert f'hallmark_watch_swaps_total{{model="m",target="Production"}} {COUNT}\n' in metrics


async def in_step(asking: httpx2.AsyncClient, version: int) -> bool:
    """Whether the registry knows that the server runs what it should."""
    told = (await asking.get("/v1/models/m/serving")).json()
    [target] = [target for target in told["targets"] if target["target"] == "Production"]
    return any(
        (server["server"], server["version"], server["in_step"]) == ("pod-1", version, True)
        for server in target["actual"]
    )
