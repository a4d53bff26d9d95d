"""The shared fixtures give each test a corner of its own in servers that outlive it and nothing else."""

import io

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from embedded import s3
from embedded.fixtures import S3, Kafka


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_database_is_empty_and_our_own(database: str, turn: int) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE t (turn int)")  # the second turn would fail on a shared one
    await connection.execute("INSERT INTO t VALUES ($1)", turn)
    assert await connection.fetchval("SELECT max(turn) FROM t") == turn
    await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
def test_a_bucket_is_empty_and_our_own(infra_s3: S3, bucket: str, turn: int) -> None:
    store = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
    assert list(store.list_objects(bucket)) == []
    store.put_object(bucket, "a", io.BytesIO(b"x"), 1)
    assert store.get_object(bucket, "a").read() == b"x"


async def test_a_record_comes_back(kafka: Kafka, topic_prefix: str) -> None:
    topic = f"{topic_prefix}records"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    async with (
        AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap, acks="all", enable_idempotence=kafka.idempotence
        ) as producer,
        AIOKafkaConsumer(
            topic,
            bootstrap_servers=kafka.bootstrap,
            group_id=f"{topic_prefix}group",
            auto_offset_reset="earliest",
        ) as consumer,
    ):
        await producer.send_and_wait(topic, b"value", key=b"key")
        record = await consumer.getone()
        assert (record.key, record.value) == (b"key", b"value")
        await consumer.commit()


async def test_a_topic_that_nobody_made_is_refused(kafka: Kafka, topic_prefix: str) -> None:
    if kafka.kind == "tansu":
        pytest.skip("Tansu has no such setting")
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, request_timeout_ms=1000) as producer:
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.send_and_wait(f"{topic_prefix}typo", b"value")
