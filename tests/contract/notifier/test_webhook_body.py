"""The body of a webhook is a CloudEvent that other people's software reads."""

import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from contracts.envelope import Envelope
from contracts.registry import ModelRegistered
from notifier.channels.webhook import body_of


@pytest.mark.parametrize("optional", [{}, {"actor": "ana", "causationid": "c0", "traceparent": "00-1-2-01"}])
def test_the_cloudevents_sdk_reads_the_body(optional: dict[str, str]) -> None:
    message = ModelRegistered(workspace="default", model="churn", description="naïve “quotes” \n", tags={"a": "b"})
    envelope = Envelope.of(
        message,
        source="hallmark/registry",
        subject="default/churn",
        key="default/churn",
        sequence=7,
        time=datetime(2026, 11, 21, 10, 0, 0, 123, tzinfo=UTC),
        **optional,
    )
    event = JSONFormat().read(CloudEvent, body_of(envelope))
    attributes = event.get_attributes()
    assert attributes["specversion"] == "1.0"
    for name in ("id", "source", "type", "subject", "time", "dataschema", "correlationid", "sequence"):
        assert attributes[name] == getattr(envelope, name), name
    assert attributes["partitionkey"] == envelope.key
    assert {name: attributes[name] for name in optional} == optional
    assert event.get_data() == message.model_dump(mode="json")


def test_data_keeps_the_bytes_of_the_event() -> None:
    envelope = Envelope.of(
        ModelRegistered(workspace="default", model="churn"), source="s", subject="default/churn", key="default/churn"
    ).model_copy(update={"value": b'{"b": 1.10, "a":  2}'})
    body = body_of(envelope)
    assert body.endswith(b', "data": {"b": 1.10, "a":  2}}')
    assert json.loads(body)["data"] == {"b": 1.1, "a": 2}
