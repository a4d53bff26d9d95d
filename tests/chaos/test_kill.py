"""kill -9 of any part in the middle of promotions: nothing acknowledged is lost, nothing happens twice (law 7)."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from tests.support.system import System
from tests.support.waiting import until_now

from hallmark import HallmarkError
from hallmark.verify import verify_export

T = TypeVar("T")
VICTIMS = ("registry", "approval", "audit", "notifier", "postgres", "kafka")
PATIENCE = 90.0


def insist(call: Callable[[], T]) -> T:
    """What a patient user does: tries again while a part is away."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except HallmarkError as error:
            away = error.status in (None, 502, 503, 504) or error.status == 404 or error.code == "connection"
            if not away or time.monotonic() > deadline:
                raise
        time.sleep(0.1)  # between two tries


@contextmanager
def killer(system: System, victim: str, seed: int) -> Iterator[list[float]]:
    """Kills the victim with SIGKILL three times, at random moments; the supervisor starts it again."""
    assert system.stack is not None
    child, stop, kills = system.stack.child(victim), threading.Event(), list[float]()
    luck = random.Random(seed)

    process = next(p for p in system.stack.state.processes if p.name == victim)

    def work() -> None:
        while len(kills) < 3 and not stop.wait(luck.uniform(0.2, 2.0)):
            restarts = process.restarts
            child.kill()
            kills.append(time.monotonic())
            # Between two deaths it lives, so that the work goes on.
            while process.restarts == restarts or process.condition != "ready":
                if stop.wait(0.05):
                    return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield kills
    finally:
        stop.set()
        thread.join()


def move(system: System, version: int, to: str) -> None:
    """A promotion by a requester and a reviewer who do not give up. Asking twice is answered by the open request."""
    for _ in range(20):
        try:
            found = system.ana.request_stage("churn", version, to, "chaos")
            identity = found.transition_id
        except HallmarkError as error:
            if error.code == "already-in-stage":
                return
            if error.code == "transition-open":
                identity = str(error.extra["transition_id"])
            elif error.status in (None, 502, 503, 504):
                time.sleep(0.2)  # between two tries
                continue
            else:
                raise
        if to == "Production":
            approve(system, identity)
        deadline = time.monotonic() + PATIENCE
        while (closed := insist(lambda identity=identity: system.ana.transition(identity, wait=5))).open:  # type: ignore[misc]
            assert time.monotonic() < deadline, closed
        assert closed.applied, closed
        return
    pytest.fail(f"version {version} did not reach {to}")


def approve(system: System, identity: str) -> None:
    try:
        insist(lambda: system.ben.request(identity, wait=30))
        insist(lambda: system.ben.approve(identity, "reviewed"))
    except HallmarkError as error:
        if error.code not in ("request-closed", "already-voted"):  # the answer was lost after the vote was counted
            raise


def on(broker: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("running", [broker], indirect=True, scope="module")


@on("tansu")  # which forgets all when it dies
@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", VICTIMS)
def test_kill_nine(system: System, victim: str, tmp_path: Path) -> None:
    promoted_while_it_dies(system, victim, tmp_path)


@on("apache")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", ["postgres", "kafka"])
def test_kill_nine_of_what_holds_the_events(system: System, victim: str, tmp_path: Path) -> None:
    promoted_while_it_dies(system, victim, tmp_path)


def promoted_while_it_dies(system: System, victim: str, tmp_path: Path) -> None:
    assert system.stack is not None
    insist(lambda: system.ana.subscribe("webhook", system.receivers.hook_url, secret=system.receivers.secret))
    for n in (1, 2):
        (tmp_path / "model.bin").write_text(f"{system.workspace} {n}")
        insist(lambda: system.ana.register("churn", tmp_path / "model.bin", metrics={"accuracy": 0.95}))
    with killer(system, victim, seed=VICTIMS.index(victim)) as kills:
        for n in (1, 2):
            move(system, n, "Staging")
            move(system, n, "Production")
        until_now(lambda: kills, PATIENCE, "the victim is killed while there is work")

    assert [v.stage for v in insist(lambda: list(system.ana.versions("churn")))] == ["Archived", "Production"]
    expected = [(1, "Staging"), (1, "Production"), (2, "Staging"), (1, "Archived"), (2, "Production")]

    # The audit log has every event of the model once, without a gap, and verifies.
    def logged() -> list[str]:
        return [i.subject for i in system.aud.timeline("churn") if i.type == "hallmark.stage.changed.v1"]

    until_now(lambda: len(insist(logged)) >= len(expected), PATIENCE, lambda: f"logged {logged()}")
    assert [int(subject.rsplit("/", 1)[1]) for subject in logged()] == [version for version, _ in expected]
    assert insist(lambda: system.aud.production("churn")).version == 2
    export = insist(lambda: system.aud.export_log(tmp_path / "log.ndjson"))
    assert verify_export(export, insist(system.aud.verifier_key)).size >= len(expected)

    # The webhook heard of every change, in order; a repetition carries the same id.
    def heard() -> list[tuple[str, int, str]]:
        return [
            (h["id"], h["data"]["version"], h["data"]["to_stage"])
            for h in list(system.receivers.inbox.hooks)
            if h["data"].get("workspace") == system.workspace and h["type"] == "hallmark.stage.changed.v1"
        ]

    until_now(lambda: len({id_ for id_, _, _ in heard()}) >= len(expected), PATIENCE, lambda: f"heard {heard()}")
    once = list(dict.fromkeys(heard()))
    assert [(version, stage) for _, version, stage in once] == expected
