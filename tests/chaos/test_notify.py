"""kill -9 of two notifiers in turn while endpoints fail: nothing is lost, nothing overtakes (a small soak)."""

from pathlib import Path

import pytest
from tests.bench.notify_soak import SETTINGS, soak
from tests.support.notify_fleet import fleet

from embedded.fixtures import Kafka


@pytest.mark.one_broker
@pytest.mark.timeout(300)
async def test_deliveries_survive_the_death_of_the_process(
    kafka: Kafka, topic_prefix: str, database: str, server_dir: Path
) -> None:
    async with fleet(server_dir, database, kafka.bootstrap, topic_prefix, replicas=2, settings=SETTINGS) as (
        notifier,
        producer,
    ):
        wrong = await soak(notifier, producer, topic_prefix, events=300, endpoints=8, kills=2, seconds=200)
    assert not wrong
