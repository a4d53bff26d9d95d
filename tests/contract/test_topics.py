"""The topics table is complete and agrees with itself."""

import re

from contracts.topics import FOREVER, TOPICS, all_topics

SERVICES = {"registry", "approval", "audit", "notifier"}
KAFKA_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def test_names_are_unique_and_legal() -> None:
    names = [topic.name for topic in all_topics()]
    assert len(names) == len(set(names))
    for name in names:
        assert KAFKA_NAME.fullmatch(name)
        assert "_" not in name, "Kafka's metrics cannot tell '_' from '.'"


def test_writers_and_readers_are_services() -> None:
    for topic in TOPICS:
        assert set(topic.readers) <= SERVICES
        assert len(set(topic.readers)) == len(topic.readers)
        if topic.writer is not None:
            assert topic.writer in SERVICES
            assert topic.name == f"hallmark.{topic.writer}.events", "one event topic per writer"
            if topic.writer != "audit":  # its log holds every topic, its own too
                assert topic.writer not in topic.readers, "a service knows its own events from its own table"


def test_every_service_writes_exactly_one_event_topic() -> None:
    assert sorted(topic.writer for topic in TOPICS if topic.writer) == sorted(SERVICES)


def test_audit_hears_everybody_else() -> None:
    assert all("audit" in topic.readers for topic in TOPICS if topic.writer != "audit")


def test_each_reader_has_a_dead_letter_twin_that_is_kept() -> None:
    made = {topic.name: topic for topic in all_topics()}
    for topic in TOPICS:
        for reader in topic.readers:
            twin = made[topic.dead_letter(reader)]
            assert twin.name == f"{topic.name}.{reader}.dlt"
            assert twin.partitions == 1
            assert twin.retention_ms == FOREVER
    assert len(made) == len(TOPICS) + sum(len(topic.readers) for topic in TOPICS)


def test_what_services_rebuild_from_is_kept_for_ever() -> None:
    kept = {topic.name for topic in TOPICS if topic.retention_ms == FOREVER}
    assert {"hallmark.registry.events", "hallmark.approval.events", "hallmark.audit.events"} <= kept


def test_a_prefix_moves_every_topic() -> None:
    assert [t.name for t in all_topics("blue.")] == ["blue." + t.name for t in all_topics()]
