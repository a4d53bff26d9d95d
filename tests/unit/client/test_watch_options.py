"""What a watcher may be told: fleets, memory, revocations, staleness, a start without a registry, reports."""

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
from hallmark.download import export
from kit.keys import ensure_key
from registry.serving.pins import PinSigner

Make = Callable[..., "Watcher[bytes]"]


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "OUTAGE_SECONDS", (0.01, 0.05))


@pytest.fixture
def registry() -> Registry:
    return Registry()


def client_of(registry: Registry) -> Client:
    return Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(registry))


@pytest.fixture
def make(registry: Registry, tmp_path: Path) -> Make:
    def make(load: Callable[[Path], bytes] = Path.read_bytes, **options: Any) -> "Watcher[bytes]":
        options = {"directory": tmp_path / "cache", "every": 0.01, **options}
        return Watcher(client_of(registry), "m", load, **options)

    return make


def signed(registry: Registry, directory: Path) -> PinSigner:
    registry.signer = PinSigner(ensure_key(directory, "serving"))
    return registry.signer


# -- memory -------------------------------------------------------------------------------------------------------


def test_the_model_before_is_at_hand_for_a_rollback(registry: Registry, make: Make) -> None:
    loads: list[bytes] = []

    def load(path: Path) -> bytes:
        loads.append(path.read_bytes())
        return loads[-1]

    watcher = make(load, keep_previous=True)
    for version, model, sequence in ((1, b"one", 1), (2, b"two", 2), (1, b"one", 3)):
        registry.put(version, model, sequence)
        watcher.check()
        assert watcher.use().model == model
    assert loads == [b"one", b"two"], "the way back loads nothing"
    assert watcher.use().pin.sequence == 3


def test_a_replaced_model_is_unloaded_after_its_grace_and_never_the_one_in_use(registry: Registry, make: Make) -> None:
    gone: list[bytes] = []
    watcher = make(unload=gone.append, grace=0.2)
    with watcher:
        registry.put(2, b"two", 2)
        until_now(lambda: watcher.use().version == 2)
        swapped = time.monotonic()
        assert gone == []
        until_now(lambda: gone == [b"model one"])
        assert time.monotonic() - swapped > 0.1
    assert gone == [b"model one"]


def test_where_memory_is_short_the_old_model_goes_first_and_comes_back_if_the_new_one_fails(
    registry: Registry, make: Make
) -> None:
    held: list[bytes] = []

    def load(path: Path) -> bytes:
        model = path.read_bytes()
        assert held == [], "two models at the same time"
        if model == b"broken":
            raise ValueError("does not load")
        held.append(model)
        return model

    watcher = make(load, mode="resource", unload=held.remove)
    watcher.check()
    registry.put(2, b"two", 2)
    watcher.check()
    assert (watcher.use().model, held) == (b"two", [b"two"])
    registry.put(3, b"broken", 3)
    with pytest.raises(ValueError, match="does not load"):
        watcher.check()
    assert (watcher.use().version, held) == (2, [b"two"])


# -- revocations --------------------------------------------------------------------------------------------------


def test_a_server_may_go_on_with_the_model_before(registry: Registry, make: Make) -> None:
    watcher = make(if_revoked="previous")
    watcher.check()
    registry.put(2, b"two", 2)
    watcher.check()
    registry.revoked = {2}
    with pytest.raises(VersionRevoked):
        watcher.check()
    assert (watcher.use().version, watcher.revoked) == (1, None)
    registry.revoked = {1, 2}
    with pytest.raises(VersionRevoked):
        watcher.check()
    assert watcher.current is None, "the one before is revoked too"


@pytest.mark.parametrize("revoked", [1, 2])
def test_a_revocation_is_heard_while_a_model_loads(registry: Registry, make: Make, revoked: int) -> None:
    """Of the version in use, or of the very one that is being loaded."""
    loading, go_on, tell, heard = (threading.Event() for _ in range(4))

    def load(path: Path) -> bytes:
        model = path.read_bytes()
        if model == b"two":
            loading.set()
            assert go_on.wait(10)
        return model

    def stream() -> Iterator[bytes]:
        yield b'data: {"sequence": 1}\nid: 1\n\n'
        assert tell.wait(10)
        told = {**GONE, "version": revoked}
        yield f"data: {json.dumps({'sequence': 3, 'revoked': told})}\nid: 3\n\n".encode()
        heard.set()
        go_on.wait(10)

    registry.stream = stream
    with make(load) as watcher:
        registry.put(2, b"two", 2)
        assert loading.wait(10)
        tell.set()
        assert heard.wait(10)
        until_now(lambda: (watcher.current is None) == (revoked == 1))
        go_on.set()
        if revoked == 1:
            until_now(lambda: watcher.current is not None)
            assert watcher.use().version == 2
        else:
            until_now(lambda: "it leaks" in (watcher.status.trouble or ""))
            assert watcher.use().version == 1


def test_only_a_signed_revocation_is_obeyed_where_keys_are_given(
    registry: Registry, make: Make, tmp_path: Path
) -> None:
    keys = signed(registry, tmp_path / "ours").jwks
    watcher = make(pin_keys=keys)
    watcher.check()
    ours, registry.revoked = registry.signer, {1}
    for liar in (None, PinSigner(ensure_key(tmp_path / "theirs", "serving"))):
        registry.signer = liar
        with pytest.raises(HallmarkError) as caught:
            watcher.check()
        assert caught.value.code in ("pin-malformed", "pin-unknown-key")
        assert watcher.use().version == 1
    registry.signer = ours
    with pytest.raises(VersionRevoked):
        watcher.check()
    assert watcher.current is None


# -- sequences ----------------------------------------------------------------------------------------------------


def test_sequences_begin_anew_only_with_a_signed_epoch(registry: Registry, make: Make, tmp_path: Path) -> None:
    keys = signed(registry, tmp_path).jwks
    trusting, plain = make(pin_keys=keys), make(directory=tmp_path / "other")
    registry.put(2, b"two", 9)
    trusting.check()
    plain.check()
    registry.put(3, b"three", 4)
    with pytest.raises(HallmarkError, match="HALLMARK_SERVING_EPOCH"):
        trusting.check()
    with pytest.raises(HallmarkError, match="older"):
        make(pin_keys=keys).check()  # a restart does not forget either
    registry.epoch = 1
    trusting.check()
    assert trusting.use().version == 3
    with pytest.raises(HallmarkError, match="pin_keys"):
        plain.check()
    assert plain.use().version == 2


# -- staleness ----------------------------------------------------------------------------------------------------


def test_too_long_without_a_word_is_told_and_if_wished_nothing_is_served(registry: Registry, make: Make) -> None:
    with make(max_stale=0.3) as lenient, make(max_stale=0.3, on_stale="fail") as strict:
        assert not lenient.status.stale
        registry.down = True
        until_now(lambda: lenient.status.stale and strict.current is None)
        assert lenient.use().version == 1
        with pytest.raises(HallmarkError, match="could be loaded"):
            strict.use()
        assert 'hallmark_watch_stale{model="m",target="Production"} 1' in lenient.metrics()
        time.sleep(0.1)  # the copy on the disk is as stale
        assert strict.current is None
        registry.down = False
        until_now(lambda: strict.current is not None and not lenient.status.stale)
        assert 'hallmark_watch_version{model="m",target="Production"} 1' in strict.metrics()


# -- without a registry -------------------------------------------------------------------------------------------


def carried(registry: Registry, target: Path) -> Path:
    with client_of(registry) as client:
        assert export(client.http, client.resolve("m"), target) == target / "pin.json"
    return target


def test_a_first_start_without_a_registry_serves_what_was_carried_along(
    registry: Registry, make: Make, tmp_path: Path
) -> None:
    keys = signed(registry, tmp_path / "keys").jwks
    directory = carried(registry, tmp_path / "carried")
    assert "http" not in (directory / "pin.json").read_text(), "addresses expire"
    registry.down = True
    with make(bootstrap=directory, pin_keys=keys) as watcher:
        assert watcher.use().model == b"model one"
        registry.down = False
        registry.put(2, b"two", 2)
        until_now(lambda: watcher.use().version == 2)
        registry.put(3, b"three", 3)
        newer = carried(registry, tmp_path / "newer")
        registry.put(2, b"two", 2)
        registry.down = True
        newer.joinpath("pin.json").replace(directory / "pin.json")
        for blob in (newer / "blobs").iterdir():
            blob.replace(directory / "blobs" / blob.name)
        until_now(lambda: watcher.use().version == 3)


def test_what_was_carried_along_is_verified_like_the_rest(registry: Registry, make: Make, tmp_path: Path) -> None:
    keys = signed(registry, tmp_path / "keys").jwks
    for place in ("pin", "bytes"):
        directory = carried(registry, tmp_path / place)
        if place == "pin":
            file = directory / "pin.json"
            assert '"version": 1' in file.read_text()
            file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
        else:
            next((directory / "blobs").iterdir()).write_bytes(b"malware")
        registry.down = True
        with pytest.raises(HallmarkError, match="could be loaded"):
            make(bootstrap=directory, pin_keys=keys, directory=tmp_path / "c" / place).start(0.2)
        registry.down = False


# -- the fleet ----------------------------------------------------------------------------------------------------


def test_each_instance_has_its_own_moment_and_the_first_model_none(registry: Registry, make: Make) -> None:
    shares = [pace.share_of(f"pod-{n}", "default/m/Production") for n in range(1_000)]
    assert sum(share < 0.1 for share in shares) == pytest.approx(100, abs=40)
    assert shares == [pace.share_of(f"pod-{n}", "default/m/Production") for n in range(1_000)]
    told = threading.Event()

    def stream() -> Iterator[bytes]:
        yield b'data: {"sequence": 1}\nid: 1\n\n'
        assert told.wait(10)
        yield b'data: {"sequence": 2}\nid: 2\n\n'
        while True:
            time.sleep(0.02)
            yield b": ping\n\n"

    registry.stream = stream
    early = min(range(100), key=lambda n: shares[n])
    late = max(range(100), key=lambda n: shares[n])
    began = time.monotonic()
    common = {"spread": 1.0, "every": 3_600}
    with make(instance=f"pod-{early}", **common) as first, make(instance=f"pod-{late}", **common) as last:
        assert time.monotonic() - began < 0.9, "a start waits for nothing"
        registry.put(2, b"two", 2)
        told.set()
        until_now(lambda: first.use().version == 2)
        assert last.use().version == 1
        until_now(lambda: last.use().version == 2)


def test_what_is_served_is_reported_and_what_failed_too(registry: Registry, make: Make) -> None:
    def self_test(model: bytes) -> None:
        if model == b"two":
            raise ValueError("predicts nonsense")

    def said() -> list[tuple[int, str, str]]:
        return [(report["version"], report["state"], report["detail"]) for report in registry.reports]

    with make(instance="pod-7", self_test=self_test) as watcher:
        until_now(lambda: said() == [(1, "serving", "")])
        registry.put(2, b"two", 2)
        until_now(lambda: (2, "failed", "predicts nonsense") in said())
        registry.put(3, b"three", 3)
        until_now(lambda: said()[-1] == (3, "serving", ""))
        until_now(lambda: watcher.status.trouble is None)
    assert said()[-1] == (3, "stopped", "")
    assert {(report["server"], report["target"]) for report in registry.reports} == {("pod-7", "Production")}


def test_who_may_not_report_does_not_ask_again(registry: Registry, make: Make) -> None:
    registry.report_status = 403
    with make():
        until_now(lambda: registry.reports)
        asked = registry.answers
        until_now(lambda: registry.answers > asked + 3)
    assert len(registry.reports) == 1


# -- pauses -------------------------------------------------------------------------------------------------------


def test_two_regimes_of_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    away, no = HallmarkError("connection", "away"), HallmarkError("forbidden", "no", status=403)
    one = pace.Pace()
    assert [one.after(away) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert [one.after(no) for _ in range(6)] == [300, 600, 1_200, 2_400, 3_600, 3_600]
    assert one.after(away) == 1
    one.good()
    assert one.after(away) == 2, "a moment of peace is not calm"
    now = time.monotonic()
    one.good()
    monkeypatch.setattr("time.monotonic", lambda: now + 61)
    assert one.after(away) == 1


def test_an_empty_stage_is_waited_for_without_a_penalty(registry: Registry, make: Make) -> None:
    """Nothing was promoted yet: that is an answer, and the first promotion is told."""
    assert pace.REFUSED_SECONDS[0] > 60
    registry.empty = True
    watcher = make()
    threading.Timer(0.2, lambda: setattr(registry, "empty", False)).start()
    assert watcher.start(10).version == 1
    watcher.stop()
