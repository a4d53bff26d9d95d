"""The parts of serving that need no database: targets, watchers, counting, archiving."""

import asyncio
import json
from typing import Any

import pytest

from kit.problems import Problem
from registry.domain import Refused
from registry.serving import hub as hub_module
from registry.serving import usage as usage_module
from registry.serving.changes import Change, Found, State, frames
from registry.serving.hub import Watcher
from registry.serving.stale import Criteria, archive_all
from registry.serving.targets import Target
from registry.serving.usage import Usage, Use

AT = "2026-01-01T00:00:00+00:00"


def watcher(target: Target | None = None) -> Watcher:
    return Watcher(Found("w", "m", "m", target), "ana")


def change(sequence: int, target: str | None = "Production", version: int | None = 1) -> Change:
    return Change("change", sequence, AT, target, version)


async def drained(one: Watcher) -> list[int]:
    found = []
    while (group := await one.next(0)) is not None:
        found.append(group[0].sequence)
    return found


def test_a_target_is_one_of_three() -> None:
    assert str(Target.of("Production", None)) == "Production"
    assert str(Target.of(None, "champion")) == "@champion"
    assert str(Target.of(None, None, 3)) == "version:3"
    assert Target.of(None, None) is None
    assert Target.parse("@champion") == Target("alias", "champion")
    with pytest.raises(Problem):
        Target.of("Production", "champion")


def test_only_the_last_change_of_an_event_carries_its_id() -> None:
    first, last = change(7), change(7, "Archived")
    text = frames((first, last)).decode()
    assert text.count("id: 7") == 1
    assert text.rstrip().endswith("id: 7")
    assert [json.loads(line[6:])["target"] for line in text.splitlines() if line.startswith("data: ")] == [
        "Production",
        "Archived",
    ]


def test_a_state_says_up_to_where_it_goes() -> None:
    assert b"id: 9\n" in State(9, ()).frame


async def test_a_watcher_gets_its_own_changes_in_order_and_none_at_or_under_the_floor() -> None:
    one = watcher(Target("stage", "Production"))
    for sequence in (5, 6, 7):
        one.offer([(change(sequence),)])
        one.offer([(change(sequence, "@champion"),)])
    one.floor = 5
    assert await drained(one) == [6, 7]


async def test_a_change_of_the_model_itself_concerns_everybody() -> None:
    one = watcher(Target("alias", "champion"))
    one.offer([(Change("deleted", 4, AT),)])
    assert await drained(one) == [4]


async def test_too_many_waiting_changes_end_the_watcher() -> None:
    one = watcher()
    for sequence in range(hub_module.MOST_WAITING):
        one.offer([(change(sequence + 1),)])
    assert one.ended is None
    one.offer([(change(1_000),)])
    assert one.ended == "too slow"
    assert await one.next(1) is None


async def test_much_at_once_does_not_make_a_watcher_slow() -> None:
    """The hub asks for changes now and then, so that a busy moment offers many together."""
    one = watcher()
    many = [*range(1, 3 * hub_module.MOST_WAITING)]
    one.offer([(change(sequence),) for sequence in many])
    assert await drained(one) == many


async def test_an_ended_watcher_wakes_at_once() -> None:
    one = watcher()
    waiting = asyncio.create_task(one.next(60))
    await asyncio.sleep(0)  # it waits now
    one.end("stopping")
    async with asyncio.timeout(1):
        assert await waiting is None


def test_what_a_watcher_was_told_last_is_what_it_uses() -> None:
    one = watcher()
    one.told((change(1, "Production", 1), change(1, "@a", 2)))
    one.told((change(2, "Production", 3),))
    one.told((Change("removed", 3, AT, "@a"),))
    one.told((Change("deleted", 4, AT),))
    assert one.versions == {"Production": 3}


class Broken:
    """A database that is away."""

    def transaction(self) -> Any:
        raise ConnectionError("away")


async def test_counts_that_cannot_be_written_are_kept_and_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Usage(Broken())  # type: ignore[arg-type]
    use = Use("w", "m", 1, "ana", "resolve")
    usage.saw(use)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await usage.flush()
        usage.saw(use)
    assert usage._counts[use].count == 4
    monkeypatch.setattr(usage_module, "MOST_KEYS", 1)
    usage.saw(Use("w", "m", 2, "ana", "resolve"))
    assert list(usage._counts) == [use]


def test_criteria_go_together() -> None:
    assert Criteria("w").checked().unused_days == 30
    assert Criteria("w", metric="auc", floor=0.5).checked().unused_days is None
    for bad in (Criteria("w", metric="auc"), Criteria("w", floor=0.5)):
        with pytest.raises(Problem):
            bad.checked()


async def test_archiving_goes_on_after_a_refusal() -> None:
    found = [
        {"model": "m", "version": n, "stage": "Staging", "reason": "r", "serves": serves}
        for n, serves in ((1, ""), (2, "Production"), (3, ""))
    ]
    asked: list[int] = []

    async def archive(_: str, version: int) -> dict[str, Any]:
        asked.append(version)
        if version == 1:
            raise Refused("stage-moved", "gone already")
        return {"transition_id": "t"}

    told = await archive_all(found, archive, dry_run=False, include_serving=False)
    assert [(i["outcome"], i.get("code")) for i in told] == [
        ("refused", "stage-moved"),
        ("refused", "in-use"),
        ("done", None),
    ]
    assert asked == [1, 3]
    await archive_all(found, archive, dry_run=True, include_serving=True)
    assert asked == [1, 3]
    await archive_all(found[1:], archive, dry_run=False, include_serving=True)
    assert asked == [1, 3, 2, 3]
