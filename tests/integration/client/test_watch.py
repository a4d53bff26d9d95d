"""The watcher on the registry's own streams: swaps at once, resumes, and verifies what it is told."""

import asyncio
import hashlib
import io
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from tests.support.serving import House, Pen, running, settings_for
from tests.support.waiting import until

from embedded import s3
from embedded.fixtures import S3, new_bucket
from embedded.ports import free_port
from hallmark import Client, HallmarkError, VersionRevoked, Watcher
from kit.keys import ensure_key
from registry.places import blob_key
from registry.serving.pins import PinSigner
from registry.settings import RegistrySettings


@pytest.fixture(scope="module")
def settings(infra_postgres: str, infra_s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistrySettings]:
    with (
        settings_for(infra_postgres, tmp_path_factory.mktemp("watch")) as settings,
        new_bucket(infra_s3) as bucket,
    ):
        store = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
        for seed in ("m/1", "m/2"):  # the bytes of the pen's versions are their names
            data = seed.encode()
            key = blob_key(f"sha256:{hashlib.sha256(data).hexdigest()}")
            store.put_object(bucket, key, io.BytesIO(data), len(data))
        yield settings.model_copy(
            update={
                "s3_endpoint": infra_s3.endpoint,
                "s3_access_key": type(settings.s3_access_key)(infra_s3.access_key),
                "s3_secret_key": type(settings.s3_secret_key)(infra_s3.secret_key),
                "s3_bucket": bucket,
            }
        )


@pytest_asyncio.fixture
async def registry(settings: RegistrySettings) -> AsyncIterator[House]:
    async with running(settings) as house:
        yield house


async def occupied(house: House) -> Pen:
    pen = Pen(house.db)
    await pen.model("m", 2)
    await pen.promote("m", 1, origin="Development")
    await pen.alias("m", "live", 1)
    return pen


def client(house: House, pen: Pen, **options: Any) -> Client:
    return Client(house.url, house.token(), workspace=pen.workspace, retry_for=0, **options)


async def test_a_change_is_served_without_being_asked_for(registry: House, tmp_path: Path) -> None:
    pen = await occupied(registry)
    watcher = Watcher(client(registry, pen), "m", Path.read_bytes, directory=tmp_path, every=3_600)
    loaded = await asyncio.to_thread(watcher.start)
    assert (loaded.version, loaded.model) == (1, b"m/1")
    await until(lambda: registry.serving.hub.watchers == 1)
    await pen.promote("m", 2, former=1, origin="Development")
    await until(lambda: watcher.current is not None and watcher.current.model == b"m/2", 30)
    began = time.monotonic()
    await asyncio.to_thread(watcher.stop)
    assert time.monotonic() - began < 3
    await until(lambda: registry.serving.hub.watchers == 0, 3)


async def test_an_alias_is_followed_and_only_signed_answers_are_served(registry: House, tmp_path: Path) -> None:
    pen = await occupied(registry)
    connection = client(registry, pen)
    keys = await asyncio.to_thread(connection.serving_keys)
    watcher = Watcher(connection, "m", Path.read_bytes, alias="live", pin_keys=keys, directory=tmp_path, every=3_600)
    assert (await asyncio.to_thread(watcher.start)).pin.target == "@live"
    await until(lambda: registry.serving.hub.watchers == 1)
    await pen.alias("m", "live", 2, 1)
    await until(lambda: watcher.current is not None and watcher.current.version == 2, 30)
    await asyncio.to_thread(watcher.stop)
    stranger = PinSigner(ensure_key(tmp_path / "stranger", "serving")).jwks
    wary = Watcher(connection, "m", Path.read_bytes, alias="live", pin_keys=stranger, directory=tmp_path / "b")
    with pytest.raises(HallmarkError, match="none of the keys"):
        await asyncio.to_thread(wary.start, 5.0)


async def test_changes_during_a_restart_are_served_after_it(settings: RegistrySettings, tmp_path: Path) -> None:
    port = free_port([])
    async with running(settings, port) as house:
        pen = await occupied(house)
        watcher = Watcher(client(house, pen), "m", Path.read_bytes, directory=tmp_path, every=0.1)
        await asyncio.to_thread(watcher.start)
        await until(lambda: house.serving.hub.watchers == 1)
    try:
        await until(lambda: watcher.status.trouble)
        assert watcher.current is not None
        async with running(settings, port) as again:
            await Pen(again.db, pen.workspace).promote("m", 2, former=1, origin="Development")
            await until(lambda: watcher.current is not None and watcher.current.version == 2)
            await until(lambda: watcher.status.trouble is None)
            await until(lambda: again.serving.hub.watchers == 1)
            await asyncio.to_thread(watcher.stop)
    finally:
        await asyncio.to_thread(watcher.stop)


async def test_a_revoked_version_is_stopped_at_once_and_what_takes_its_place_is_served(
    registry: House, tmp_path: Path
) -> None:
    pen = await occupied(registry)
    heard: list[str | None] = []
    watcher = Watcher(
        client(registry, pen),
        "m",
        Path.read_bytes,
        directory=tmp_path,
        every=3_600,
        pin_keys=registry.serving.signer.jwks,  # only what is signed is obeyed
        on_revoked=lambda loaded, why: heard.append(why.reason),
    )
    await asyncio.to_thread(watcher.start)
    await until(lambda: registry.serving.hub.watchers == 1)
    await pen.revoke("m", 1)
    await until(lambda: watcher.current is None, 30)
    with pytest.raises(VersionRevoked) as caught:
        watcher.use()
    assert (caught.value.version, caught.value.reason, caught.value.model) == (1, "it leaks", "m")
    await until(lambda: watcher.status.trouble and "it leaks" in watcher.status.trouble)
    # A server that starts now has it in its cache, and does not serve it.
    late = Watcher(client(registry, pen), "m", Path.read_bytes, directory=tmp_path, every=3_600)
    with pytest.raises(VersionRevoked):
        await asyncio.to_thread(late.start, 0.5)
    await until(lambda: registry.serving.hub.watchers == 1)
    await pen.promote("m", 2, former=1, origin="Development")
    await until(lambda: watcher.current is not None, 30)
    assert (watcher.use().model, watcher.revoked) == (b"m/2", None)
    await until(lambda: watcher.status.trouble is None)
    assert heard == ["it leaks"]
    await asyncio.to_thread(watcher.stop)


async def test_a_server_that_was_cut_off_hears_of_the_revocation_when_it_is_back(
    settings: RegistrySettings, tmp_path: Path
) -> None:
    """Nothing has taken the place: the stage is empty when it comes back."""
    port = free_port([])
    async with running(settings, port) as house:
        pen = await occupied(house)
        watcher = Watcher(client(house, pen), "m", Path.read_bytes, directory=tmp_path, every=0.1)
        await asyncio.to_thread(watcher.start)
        await until(lambda: house.serving.hub.watchers == 1)
    try:
        await until(lambda: watcher.status.trouble)
        assert watcher.use().version == 1
        async with running(settings, port) as again:
            late = Pen(again.db, pen.workspace)
            await late.revoke("m", 1)
            await late.move("m", 1, "Production", "Archived")
            await until(lambda: watcher.current is None)
            await until(lambda: watcher.revoked is not None and watcher.revoked.version == 1)
    finally:
        await asyncio.to_thread(watcher.stop)


class Deaf(httpx2.HTTPTransport):
    """A way to a registry of the time before streams."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = threading.Event()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/watch"):
            self.refused.set()
            return httpx2.Response(404, json={"type": "urn:hallmark:problem:not-found", "detail": "Not Found"})
        return super().handle_request(request)


async def test_a_registry_that_tells_nothing_is_asked(
    registry: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hallmark.watch")
    pen = await occupied(registry)
    deaf = Deaf()
    watcher = Watcher(client(registry, pen, transport=deaf), "m", Path.read_bytes, directory=tmp_path, every=0.05)
    await asyncio.to_thread(watcher.start)
    assert deaf.refused.wait(5)
    await pen.promote("m", 2, former=1, origin="Development")
    await until(lambda: watcher.current is not None and watcher.current.version == 2, 30)
    await asyncio.to_thread(watcher.stop)
    assert registry.serving.hub.watchers == 0
    assert sum("asked for every" in record.message for record in caplog.records) == 1
