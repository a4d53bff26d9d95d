"""The envelope against an independent implementation of CloudEvents, in both directions."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from contracts.catalog import MESSAGES
from contracts.envelope import Envelope, EnvelopeError
from contracts.registry import ModelRegistered

MESSAGE = ModelRegistered(workspace="default", model="churn", description="Ünïcode ☃ \n second line", owner="ana")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ours() -> Envelope:
    return Envelope.of(
        MESSAGE,
        source="hallmark/registry",
        subject="default/churn",
        key="default/churn",
        sequence=7,
        causationid="cause-1",
        actor="ana",
        traceparent=TRACE,
        time=datetime(2026, 11, 21, 10, 30, 0, 123456, tzinfo=UTC),
    )


def sdk_reads(envelope: Envelope) -> BaseCloudEvent:
    return from_binary_event(
        KafkaMessage(headers=dict(envelope.headers()), key=envelope.key.encode(), value=envelope.value)
    )


def test_the_sdk_reads_what_we_write() -> None:
    envelope = ours()
    event = sdk_reads(envelope)
    assert event.get_specversion() == "1.0"
    assert event.get_id() == envelope.id
    assert event.get_source() == "hallmark/registry"
    assert event.get_type() == "hallmark.model.registered.v1"
    assert event.get_subject() == "default/churn"
    assert event.get_time() == envelope.time
    assert event.get_dataschema() == "hallmark.model.registered.v1.json"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_extension("partitionkey") == "default/churn"
    assert event.get_extension("sequence") == "7"
    assert event.get_extension("correlationid") == envelope.id
    assert event.get_extension("causationid") == "cause-1"
    assert event.get_extension("actor") == "ana"
    assert event.get_extension("traceparent") == TRACE
    assert event.get_data() == MESSAGE.model_dump(mode="json")


def test_we_read_what_the_sdk_writes() -> None:
    event = CloudEvent(
        attributes={
            "id": "a-1",
            "source": "urn:trainer",
            "type": "hallmark.model.registered.v1",
            "subject": "default/churn",
            "time": datetime(2026, 11, 21, 12, 30, tzinfo=timezone(timedelta(hours=2))),
            "datacontenttype": "application/json",
            "dataschema": "hallmark.model.registered.v1.json",
            "partitionkey": "default/churn",
            "sequence": 3,
            "correlationid": "c-1",
            "actor": "ana",
        },
        data=MESSAGE.model_dump(mode="json"),
    )
    message = to_binary_event(event)
    key = message.key.encode() if isinstance(message.key, str) else message.key
    envelope = Envelope.from_kafka(key, message.headers.items(), message.value)
    assert envelope.payload(ModelRegistered) == MESSAGE
    assert envelope.model_dump(exclude={"value"}) == {
        "id": "a-1",
        "source": "urn:trainer",
        "type": "hallmark.model.registered.v1",
        "subject": "default/churn",
        "time": datetime(2026, 11, 21, 10, 30, tzinfo=UTC),
        "dataschema": "hallmark.model.registered.v1.json",
        "key": "default/churn",
        "sequence": 3,
        "correlationid": "c-1",
        "causationid": None,
        "actor": "ana",
        "traceparent": None,
    }


def test_round_trip_through_the_sdk_keeps_everything() -> None:
    envelope = ours()
    message = to_binary_event(sdk_reads(envelope))
    key = message.key.encode() if isinstance(message.key, str) else message.key
    again = Envelope.from_kafka(key, message.headers.items(), message.value)
    assert again.model_dump(exclude={"value"}) == envelope.model_dump(exclude={"value"})
    assert again.payload(ModelRegistered) == MESSAGE


def test_structured_mode_is_refused_with_a_reason() -> None:
    event = CloudEvent(attributes={"id": "1", "source": "s", "type": "t"}, data={})
    message = to_structured_event(event)
    with pytest.raises(EnvelopeError, match="ce_specversion"):
        Envelope.from_kafka(None, message.headers.items(), message.value)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_type_is_a_valid_cloudevents_type(name: str) -> None:
    event = CloudEvent(attributes={"id": "1", "source": "hallmark/x", "type": name}, data={})
    assert event.get_type() == name
