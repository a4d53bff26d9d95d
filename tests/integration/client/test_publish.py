"""Commands through Kafka, answered through Kafka."""

import asyncio
from pathlib import Path

import pytest

from contracts.registry import RegisterModel, RegisterVersion, RequestTransition, StageRequested, VersionRegistered
from embedded.stack import Stack
from hallmark import Client, HallmarkError
from hallmark.publish import Publisher

pytestmark = [pytest.mark.xdist_group("house"), pytest.mark.timeout(300)]


def publisher(house: Stack, token: str | None = None) -> Publisher:
    assert house.infra is not None
    known = house.token("trainer", ["ml-engineers"]) if token is None else token
    return Publisher(house.infra.infra.kafka_bootstrap, known, prefix="")


def trainer(house: Stack, ana: Client) -> Client:
    """Who publishes a registration has uploaded its bytes."""
    return Client(house.urls["registry"], house.token("trainer", ["ml-engineers"]), workspace=ana.workspace)


async def test_a_version_is_registered_and_the_answer_says_which(house: Stack, ana: Client, model_file: Path) -> None:
    content = await asyncio.to_thread(trainer(house, ana).content, model_file, metrics={"accuracy": 0.9})
    async with publisher(house) as kafka:
        first = await kafka.register("m", content, workspace=ana.workspace)
        second = await kafka.register("m", content, workspace=ana.workspace)
        moved = await kafka.request(
            RequestTransition(workspace=ana.workspace, model="m", version=1, to_stage="Staging", reason="try")
        )
    assert (first.version, second.version, first.registered_by) == (1, 2, "trainer")
    assert isinstance(moved, StageRequested)
    assert ana.version("m", 2).digest == second.digest


async def test_the_same_event_is_obeyed_once(house: Stack, ana: Client, model_file: Path) -> None:
    content = await asyncio.to_thread(trainer(house, ana).content, model_file)
    command = RegisterVersion(workspace=ana.workspace, model="m", content=content)
    async with publisher(house) as kafka:
        await kafka.send(command, event_id="run-1")
        await kafka.send(command, event_id="run-1")
        # Same key, so same partition: when this one is answered, both before it were handled.
        last = await kafka.request(command, event_id="run-2")
    assert isinstance(last, VersionRegistered)
    assert last.version == 2


async def test_a_rejection_carries_the_registrys_own_words(house: Stack, ana: Client, model_file: Path) -> None:
    content = await asyncio.to_thread(trainer(house, ana).content, model_file, parents=[7])
    async with publisher(house) as kafka:
        with pytest.raises(HallmarkError) as caught:
            await kafka.register("m", content, workspace=ana.workspace)
    assert caught.value.code == "parent-not-found"
    assert caught.value.refused


@pytest.mark.parametrize("token", ["", "not-a-token"])
async def test_without_a_good_token_nothing_happens(house: Stack, ana: Client, token: str) -> None:
    async with publisher(house, token) as kafka:
        with pytest.raises(HallmarkError) as caught:
            await kafka.request(RegisterModel(workspace=ana.workspace, model="m"))
    assert caught.value.code in ("unauthenticated", "token-invalid")
    with pytest.raises(HallmarkError, match="no model"):
        ana.model("m")


async def test_no_broker_is_said_plainly() -> None:
    with pytest.raises(HallmarkError) as caught:
        async with Publisher("127.0.0.1:9", "t"):
            pass
    assert caught.value.code == "connection"
