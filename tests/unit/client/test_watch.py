"""The watcher against a registry that lies, fails and disappears: what is served must survive all of it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.fake_registry import GONE, Registry
from tests.support.waiting import until_now

from hallmark import Client, HallmarkError, VersionRevoked, Watcher, pace


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "OUTAGE_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(pace, "REFUSED_SECONDS", (0.01, 0.05))


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


def pings() -> Iterator[bytes]:
    while True:
        time.sleep(0.02)  # as a registry that has nothing to tell
        yield b": ping\n\n"


# -- revocation ---------------------------------------------------------------------------------------------------


def test_a_revoked_version_is_not_used_any_more_until_another_takes_its_place(registry: Registry, make: Make) -> None:
    heard: list[tuple[int, str | None]] = []
    swaps: list[tuple[int | None, int]] = []
    watcher = make(
        on_revoked=lambda loaded, why: heard.append((loaded.version, why.reason)),
        on_swap=lambda before, now: swaps.append((before and before.version, now.version)),
    )
    watcher.check()
    registry.revoked = {1}
    for _ in range(2):
        with pytest.raises(VersionRevoked) as caught:
            watcher.check()
        assert (caught.value.version, caught.value.reason, caught.value.by) == (1, "it leaks", "olga")
        assert watcher.current is None
        with pytest.raises(VersionRevoked, match="it leaks"):
            watcher.use()
    assert "it leaks" in str(watcher.status.trouble)
    registry.put(2, b"model two", 2)
    watcher.check()
    assert (watcher.use().version, watcher.revoked, watcher.status.trouble) == (2, None, None)
    assert heard == [(1, "it leaks")]
    assert swaps == [(None, 1), (None, 2)]


def test_a_server_that_follows_stops_and_goes_on_by_itself(registry: Registry, make: Make) -> None:
    with make() as watcher:
        registry.revoked = {1}
        until_now(lambda: watcher.current is None)
        assert isinstance(watcher.revoked, VersionRevoked)
        registry.put(2, b"model two", 2)
        until_now(lambda: watcher.current is not None)
        assert serving(watcher) == (2, b"model two")


def test_the_stream_says_stop_though_the_target_says_nothing_new(registry: Registry, make: Make) -> None:
    """The version in use is not the one that the target names: the swap to that one failed."""
    later = threading.Event()

    def stream() -> Iterator[bytes]:
        yield b'event: state\ndata: {"sequence": 1, "targets": [{"target": "Production", "revoked": null}]}\nid: 1\n\n'
        later.wait(10)
        told = {**GONE, "version": 1}
        yield f"event: revoked\ndata: {json.dumps({'sequence': 2, 'version': 1, 'revoked': told})}\nid: 2\n\n".encode()
        yield from pings()

    def self_test(model: bytes) -> None:
        if model == b"model two":
            raise ValueError("does not predict")

    registry.stream = stream
    with make(self_test=self_test) as watcher:
        registry.put(2, b"model two", 2)
        later.set()
        until_now(lambda: watcher.current is None)
        assert watcher.revoked is not None
        assert watcher.revoked.version == 1
        until_now(lambda: watcher.status.trouble is not None)


@pytest.mark.parametrize("trouble", ["swap fails", "target is empty"])
def test_whatever_else_is_wrong_the_registry_is_asked_about_the_version_in_use(
    registry: Registry, make: Make, trouble: str
) -> None:
    """A registry that tells nothing, and a target that names another version or none."""
    with make() as watcher:
        registry.lie = b"malware"
        if trouble == "swap fails":
            registry.put(2, b"model two", 2)
        else:
            registry.empty = True
        until_now(lambda: watcher.status.trouble is not None)
        assert serving(watcher)[0] == 1, "it stays through every trouble but one"
        registry.revoked = {1}
        registry.version = 2
        until_now(lambda: watcher.current is None)


def test_an_outage_is_no_revocation(registry: Registry, make: Make) -> None:
    with make() as watcher:
        registry.down = True
        until_now(lambda: watcher.status.trouble is not None)
        registry.revoked = {1}
        time.sleep(0.1)  # some tries more
        assert serving(watcher)[0] == 1
        registry.down = False
        until_now(lambda: watcher.current is None)


def test_what_was_heard_of_once_is_not_loaded_in_an_outage(registry: Registry, make: Make) -> None:
    watcher = make()
    watcher.check()
    registry.revoked = {1}
    with pytest.raises(VersionRevoked):
        watcher.check()
    registry.down = True
    with pytest.raises(HallmarkError) as caught:
        make().start(wait=0.3)
    assert caught.value.code == "nothing-to-serve"
    registry.down, registry.revoked = False, set()  # a replica that lags behind
    with pytest.raises(VersionRevoked, match="it leaks"):
        make().start(wait=0.3)


def test_a_start_asks_before_it_trusts_the_disk(registry: Registry, make: Make) -> None:
    """It was revoked while this server was off, and the target names nobody now."""
    make().check()
    registry.revoked, registry.empty, registry.version = {1}, True, 0
    with pytest.raises(VersionRevoked):
        make().start(wait=0.3)


def test_a_start_waits_for_what_takes_the_place(registry: Registry, make: Make) -> None:
    registry.revoked = {1}
    threading.Timer(0.2, lambda: registry.put(2, b"model two", 2)).start()
    watcher = make()
    assert watcher.start(wait=10).version == 2
    watcher.stop()


def test_a_failing_callback_does_not_keep_a_revoked_version(registry: Registry, make: Make) -> None:
    watcher = make(on_revoked=lambda loaded, why: 1 / 0)
    watcher.check()
    registry.revoked = {1}
    with pytest.raises(VersionRevoked):
        watcher.check()
    assert watcher.current is None


def test_the_revocation_of_another_version_changes_nothing_here(registry: Registry, make: Make) -> None:
    def stream() -> Iterator[bytes]:
        told = {**GONE, "version": 9}
        yield f"data: {json.dumps({'sequence': 2, 'version': 9, 'revoked': told})}\nid: 2\n\n".encode()
        yield from pings()

    registry.stream = stream
    with make() as watcher:
        until_now(lambda: registry.answers >= 2)
        assert serving(watcher)[0] == 1
        assert watcher.revoked is None
        registry.put(9, b"model nine", 3)
    other = make()
    with pytest.raises(VersionRevoked):
        other.check()


def test_a_failing_callback_does_not_undo_the_swap(registry: Registry, make: Make) -> None:
    watcher = make(on_swap=lambda before, now: 1 / 0)
    watcher.check()
    assert serving(watcher)[0] == 1
