"""The whole system stops and starts again on the same data directory: everything is as it was, and goes on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.system import EXTERNAL, System, embedded_system, to_production
from tests.support.waiting import until_now

from embedded.stack import Stack
from hallmark.verify import verify_export

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@pytest.mark.parametrize("kind", ["apache"])  # of Tansu, which forgets, tests/chaos has more
def test_everything_survives_a_restart(
    request: pytest.FixtureRequest, held: ExitStack, kind: str, artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    if EXTERNAL:
        pytest.skip("this test stops an embedded stack")
    if (asked := request.config.getoption("--kafka")) not in ("both", kind):
        pytest.skip(f"--kafka {asked} leaves {kind} out")
    system = embedded_system(kind, held)
    assert system.stack is not None
    system.ana.subscribe("webhook", system.receivers.hook_url, secret=system.receivers.secret)
    for name, accuracy in (("one", 0.92), ("two", 0.95)):
        system.ana.register("churn", artifact(name), metrics={"accuracy": accuracy})
    to_production(system, 1)
    changes = [(1, "Staging"), (1, "Production")]
    until_now(lambda: heard(system) == changes, 60, "the webhook heard of the first promotion")
    until_now(lambda: logged(system) == 2, 60, "the first promotion is in the audit log")
    before, key = facts(system), system.aud.verifier_key()
    log = system.aud.export_log(tmp_path / "before.ndjson")
    size = verify_export(log, key).size

    system.stack.stop()
    again = held.enter_context(Stack(system.stack.options))
    assert again.infra is not None
    system = replace(system, stack=again, bootstrap=again.infra.infra.kafka_bootstrap)

    assert facts(system) == before
    assert system.aud.verifier_key() == key
    to_production(system, 2)
    changes += [(2, "Staging"), (1, "Archived"), (2, "Production")]
    # Deliveries of a model keep their order: when the last one is here, a second copy of the first ones would be too.
    until_now(lambda: heard(system)[-1] == changes[-1], 60, "the webhook heard of the second promotion")
    assert heard(system) == changes
    until_now(lambda: logged(system) == 5, 60, "the second promotion is in the audit log")
    assert [v.stage for v in system.ana.versions("churn")] == ["Archived", "Production"]
    assert system.aud.production("churn").version == 2
    longer = system.aud.export_log(tmp_path / "after.ndjson")
    assert verify_export(longer, key).size > size
    entries = longer.read_text().splitlines()[1:]
    assert entries[:size] == log.read_text().splitlines()[1:]
    assert system.receivers.inbox.bad_signatures == 0


def facts(system: System) -> dict[str, Any]:
    """What must not change: versions with their stages, and the answers about Production."""
    fresh = {"download_url": True, "pin": True, "files": {"__all__": {"url"}}}  # signed anew for each answer
    pin = system.ana.resolve("churn").model_dump(mode="json", exclude=fresh)  # type: ignore[arg-type]
    return {
        "versions": [version.model_dump(mode="json") for version in system.ana.versions("churn")],
        "served": pin,
        "production": system.aud.production("churn").model_dump(mode="json"),
        "subscriptions": [s.model_dump(mode="json") for s in system.ana.subscriptions()],
    }


def heard(system: System) -> list[tuple[int, str]]:
    bodies = [h for h in system.receivers.inbox.hooks if h["type"].endswith("changed.v1")]
    return [(h["data"]["version"], h["data"]["to_stage"]) for h in bodies]


def logged(system: System) -> int:
    return sum(item.type == "hallmark.stage.changed.v1" for item in system.aud.timeline("churn"))
