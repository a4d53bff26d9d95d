"""Applies the topics table to the cluster: `python -m kit.topics`. Idempotent."""

import asyncio
import sys

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin import NewTopic as KafkaTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from contracts.topics import all_topics
from kit.settings import KafkaSettings

# What a topic takes, and what an event may have: headers and the decision that quotes it come on top.
MAX_RECORD_BYTES = 4_000_000
MAX_EVENT_BYTES = 2_000_000


async def apply_topics(bootstrap: str, *, prefix: str = "", replication: int = 1) -> list[str]:
    """Creates what is missing and returns its names. Existing topics are left as they are.

    Raises:
        KafkaError: the cluster is away or refused.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=20_000)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [t for t in all_topics(prefix) if t.name not in existing]
        if not missing:
            return []
        response = await admin.create_topics(
            [
                KafkaTopic(
                    t.name,
                    t.partitions,
                    replication,
                    topic_configs={"retention.ms": str(t.retention_ms), "max.message.bytes": str(MAX_RECORD_BYTES)},
                )
                for t in missing
            ]
        )
        for name, code, *_ in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(name)
        return [t.name for t in missing]
    finally:
        await admin.close()


async def partitions_of(bootstrap: str, topic: str) -> set[int]:
    """The partitions a topic has now. Tansu makes a topic that anybody asks for, with four.

    Raises:
        KafkaError: the cluster is away, or has no such topic.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    try:
        await admin.start()
        (description,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    if description["error_code"]:
        raise for_code(description["error_code"])(topic)
    return {partition["partition"] for partition in description["partitions"]}


def main() -> None:
    settings = KafkaSettings()
    try:
        made = asyncio.run(
            apply_topics(settings.kafka_bootstrap, prefix=settings.topic_prefix, replication=settings.kafka_replication)
        )
    except (KafkaError, OSError) as error:
        sys.exit(f"cannot apply topics to {settings.kafka_bootstrap}: {error!r}. Is Kafka running?")
    sys.stdout.write(f"{len(made)} topics created, {len(all_topics()) - len(made)} already there\n")


if __name__ == "__main__":
    main()
