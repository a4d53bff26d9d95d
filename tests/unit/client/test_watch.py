"""The watcher against a registry that lies, fails and disappears: what is served must survive all of it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.waiting import until_now

from hallmark import Client, HallmarkError, Watcher


class Registry:
    """A registry and a store in one handler. `bytes_` is the occupant of Production."""

    def __init__(self) -> None:
        self.down = False
        self.downloads = 0
        self.answers = 0
        self.lie: bytes | None = None
        self.put(1, b"model one", 1)

    def put(self, version: int, model: bytes, sequence: int) -> None:
        self.version, self.bytes, self.sequence = version, model, sequence

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if self.down:
            raise httpx2.ConnectError("down")
        if request.url.path == "/blob":
            self.downloads += 1
            return httpx2.Response(200, content=self.bytes if self.lie is None else self.lie)
        self.answers += 1
        etag = f'"{self.version}.{self.sequence}"'
        if request.headers.get("if-none-match") == etag:
            return httpx2.Response(304, headers={"etag": etag})
        digest = f"sha256:{hashlib.sha256(self.bytes).hexdigest()}"
        pin: dict[str, Any] = {
            "workspace": "default",
            "model": "m",
            "version": self.version,
            "stage": "Production",
            "digest": f"sha256:{self.version:064d}",
            "artifact": {"digest": digest, "size": len(self.bytes), "filename": "m.onnx"},
            "download_url": "http://s3/blob",
            "sequence": self.sequence,
        }
        return httpx2.Response(200, json=pin, headers={"etag": etag})


@pytest.fixture
def registry() -> Registry:
    return Registry()


Make = Callable[..., "Watcher[bytes]"]


@pytest.fixture
def make(registry: Registry, tmp_path: Path) -> Make:
    def make(**options: Any) -> "Watcher[bytes]":
        client = Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(registry))
        return Watcher(client, "m", Path.read_bytes, directory=tmp_path, every=0.01, **options)

    return make


def serving(watcher: "Watcher[bytes]") -> tuple[int, bytes]:
    assert watcher.current is not None
    return watcher.current.version, watcher.current.model


def test_it_loads_swaps_and_goes_back_without_downloading_twice(registry: Registry, make: Make) -> None:
    swaps: list[tuple[int | None, int]] = []
    watcher = make(on_swap=lambda before, now: swaps.append((before and before.version, now.version)))
    watcher.check()
    assert serving(watcher) == (1, b"model one")
    registry.put(2, b"model two", 2)
    watcher.check()
    assert serving(watcher) == (2, b"model two")
    registry.put(1, b"model one", 3)
    watcher.check()
    assert serving(watcher) == (1, b"model one")
    assert swaps == [(None, 1), (1, 2), (2, 1)]
    assert registry.downloads == 2


def test_nothing_new_costs_one_small_answer(registry: Registry, make: Make) -> None:
    watcher = make()
    watcher.check()
    before = watcher.current
    watcher.check()
    assert watcher.current is before
    assert registry.downloads == 1


def test_bytes_that_are_not_the_registered_ones_are_never_served(registry: Registry, make: Make) -> None:
    watcher = make()
    watcher.check()
    registry.put(2, b"model two", 2)
    registry.lie = b"malware"
    with pytest.raises(HallmarkError) as caught:
        watcher.check()
    assert caught.value.code == "digest-mismatch"
    assert serving(watcher) == (1, b"model one")
    registry.lie = None
    watcher.check()
    assert serving(watcher) == (2, b"model two")


def test_a_cached_file_that_rotted_is_fetched_again(registry: Registry, make: Make, tmp_path: Path) -> None:
    make().check()
    (kept,) = (tmp_path / "blobs").iterdir()
    kept.write_bytes(b"rot")
    watcher = make()
    watcher.check()
    assert serving(watcher) == (1, b"model one")
    assert registry.downloads == 2


def test_a_model_that_fails_its_self_test_is_not_used_but_tried_again(registry: Registry, make: Make) -> None:
    broken = {b"model two"}

    def self_test(model: bytes) -> None:
        if model in broken:
            raise ValueError("does not predict")

    watcher = make(self_test=self_test)
    watcher.check()
    registry.put(2, b"model two", 2)
    with pytest.raises(ValueError, match="does not predict"):
        watcher.check()
    assert serving(watcher)[0] == 1
    broken.clear()
    watcher.check()
    assert serving(watcher)[0] == 2


def test_an_older_answer_is_ignored(registry: Registry, make: Make) -> None:
    watcher = make()
    registry.put(2, b"model two", 5)
    watcher.check()
    registry.put(1, b"model one", 4)
    with pytest.raises(HallmarkError, match="older"):
        watcher.check()
    assert serving(watcher)[0] == 2


def test_an_outage_changes_nothing_and_is_told(registry: Registry, make: Make) -> None:
    with make() as watcher:
        assert serving(watcher)[0] == 1
        registry.down = True
        until_now(lambda: watcher.status.trouble is not None)
        assert serving(watcher)[0] == 1
        registry.down = False
        registry.put(2, b"model two", 2)
        until_now(lambda: serving(watcher)[0] == 2 and watcher.status.trouble is None)


def test_a_restart_during_an_outage_serves_the_last_known_good(registry: Registry, make: Make) -> None:
    make().check()
    registry.down = True
    with make() as watcher:
        assert serving(watcher) == (1, b"model one")
        registry.down = False
        registry.put(2, b"model two", 2)
        until_now(lambda: serving(watcher)[0] == 2)


def test_a_first_start_during_an_outage_says_why_it_cannot_serve(registry: Registry, make: Make) -> None:
    registry.down = True
    with pytest.raises(HallmarkError) as caught:
        make().start(wait=0.3)
    assert caught.value.code == "nothing-to-serve"
    assert "no answer" in caught.value.detail


def test_a_failing_callback_does_not_undo_the_swap(registry: Registry, make: Make) -> None:
    watcher = make(on_swap=lambda before, now: 1 / 0)
    watcher.check()
    assert serving(watcher)[0] == 1
