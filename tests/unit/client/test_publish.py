"""The producer is idempotent where the broker has such producers, and plain where it does not."""

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, UnknownError

from hallmark import HallmarkError, publish
from hallmark.publish import Publisher


@pytest.fixture
def refusal() -> list[KafkaError]:
    """What an idempotent producer meets; put an error in."""
    return []


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, refusal: list[KafkaError]) -> list[tuple[bool, str]]:
    """(idempotent, what was done), in order."""
    done: list[tuple[bool, str]] = []

    class Producer:
        def __init__(self, *, enable_idempotence: bool, **_: object) -> None:
            self.idempotent = enable_idempotence

        async def start(self) -> None:
            done.append((self.idempotent, "start"))
            if self.idempotent and refusal:
                raise refusal[0]

        async def stop(self) -> None:
            done.append((self.idempotent, "stop"))

    monkeypatch.setattr(publish, "AIOKafkaProducer", Producer)
    monkeypatch.delenv("HALLMARK_KAFKA_IDEMPOTENCE", raising=False)
    return done


async def enter(idempotent: bool | None = None) -> None:
    async with Publisher("b:1", "t", idempotent=idempotent):
        pass


async def test_a_broker_that_can_is_asked_for_idempotence(tried: list[tuple[bool, str]]) -> None:
    await enter()
    assert tried == [(True, "start"), (True, "stop")]


async def test_a_broker_that_refuses_gets_a_plain_producer(
    tried: list[tuple[bool, str]], refusal: list[KafkaError]
) -> None:
    refusal.append(UnknownError())
    await enter()
    assert tried == [(True, "start"), (True, "stop"), (False, "start"), (False, "stop")]


@pytest.mark.parametrize(("insist", "error"), [(True, UnknownError()), (None, KafkaConnectionError())])
async def test_nothing_else_is_tried_again(
    tried: list[tuple[bool, str]], refusal: list[KafkaError], insist: bool | None, error: KafkaError
) -> None:
    refusal.append(error)
    with pytest.raises(HallmarkError) as caught:
        await enter(insist)
    assert caught.value.code == "connection"
    assert tried == [(True, "start"), (True, "stop")]


async def test_the_setting_can_do_without(tried: list[tuple[bool, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_KAFKA_IDEMPOTENCE", "false")
    await enter()
    assert tried == [(False, "start"), (False, "stop")]
