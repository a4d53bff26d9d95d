"""Sending again what failed, and what never was sent."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.receiver import Receiver

from kit.problems import Problem
from notifier.editing import Editing
from notifier.replaying import Choice, Replaying, Which

from .conftest import Rig


async def replay(rig: Rig, made: dict[str, Any], choice: Choice, *, dry_run: bool = False) -> int:
    """All pages."""
    after: int | None = 0
    count = 0
    while after is not None:
        page = await Replaying(rig.db, rig.log).replay(
            made["subscription_id"], "ana", choice, after=after, dry_run=dry_run
        )
        count, after = count + page["deliveries"], page["next"]
    return count


async def test_the_whole_history_goes_to_a_new_endpoint_in_order(rig: Rig, receiver: Receiver) -> None:
    past = [rig.event(f"m{n % 70}", 1 + n // 70) for n in range(1080)]
    await rig.happens(*past)
    made = await rig.webhook(f"{receiver.url}/new", model="m[12]")
    assert await replay(rig, made, Choice(Which.MISSING), dry_run=True) == 32
    assert await rig.deliveries(made) == []
    assert await replay(rig, made, Choice(Which.FAILED)) == 0
    assert await replay(rig, made, Choice(Which.MISSING)) == 32
    assert await replay(rig, made, Choice(Which.MISSING)) == 0
    newest = rig.event("m1", 17)
    await rig.happens(newest)
    async with rig.worker():
        await rig.all_done(made, 33)
    for model in ("m1", "m2"):
        sequences = [
            h.document["sequence"] for h in receiver.hits if h.document["subject"].startswith(f"default/{model}/")
        ]
        assert sequences == list(range(1, 18 if model == "m1" else 17))
    events = [e.type for e in await rig.events(made)]
    assert events.count("hallmark.subscription.replayed.v1") == 2  # a page of a thousand events each


async def test_what_failed_since_is_sent_again_under_the_same_ids(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda _: (500, {"webhook-delivery": "abort-message"}, b"")
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event("a", 1), rig.event("b", 1), rig.event("b", 2))
    async with rig.worker():
        dead = await rig.all_done(made, 3)
        receiver.answer = lambda _: 200
        await rig.happens(rig.event("c", 1))
        await rig.all_done(made, 4)
        now = datetime.now(UTC)
        assert await replay(rig, made, Choice(Which.FAILED, since=now + timedelta(minutes=1))) == 0
        assert await replay(rig, made, Choice(Which.FAILED, before=now - timedelta(minutes=1))) == 0
        assert await replay(rig, made, Choice(Which.FAILED, types=("hallmark.vote.*",))) == 0
        assert await replay(rig, made, Choice(Which.FAILED, model="b")) == 2
        await rig.all_done(made, 4)
        assert await replay(rig, made, Choice(Which.FAILED, since=now - timedelta(minutes=1))) == 1
        done = await rig.all_done(made, 4)
        assert {d["status"] for d in done} == {"succeeded"}
        assert await replay(rig, made, Choice(Which.ALL)) == 4
        await rig.all_done(made, 4)
    for one in dead:
        tries = [hit for hit in receiver.hits if hit.headers["webhook-id"] == f"msg_{one['delivery_id']}"]
        assert len(tries) == 3


async def test_what_was_missed_while_disabled_can_be_had_afterwards(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event("a", 1))
    async with rig.worker():
        await rig.all_done(made, 1)
        await rig.happens(rig.event("a", 2))
        with pytest.raises(Problem, match="enable it"):
            await replay(rig, made, Choice(Which.MISSING))
        receiver.answer = lambda _: 200
        await Editing(rig.db, rig.log).enable(made["subscription_id"], "ana")
        assert await replay(rig, made, Choice(Which.MISSING)) == 1
        assert await replay(rig, made, Choice(Which.FAILED)) == 1
        done = await rig.all_done(made, 2)
    assert [d["status"] for d in done] == ["succeeded"] * 2
