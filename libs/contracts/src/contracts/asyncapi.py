"""The AsyncAPI 3.0 document of a service, made from the topics table and the message types."""

from typing import Any

from contracts import approval, audit, notifier, registry
from contracts.catalog import schema_of
from contracts.envelope import Envelope
from contracts.payload import Message
from contracts.topics import (
    APPROVAL_EVENTS,
    AUDIT_EVENTS,
    NOTIFIER_EVENTS,
    REGISTRY_COMMANDS,
    REGISTRY_EVENTS,
    TOPICS,
    Topic,
)

CARRIES: dict[Topic, tuple[type[Message], ...]] = {
    REGISTRY_COMMANDS: registry.COMMANDS,
    REGISTRY_EVENTS: registry.EVENTS,
    APPROVAL_EVENTS: approval.EVENTS,
    NOTIFIER_EVENTS: notifier.EVENTS,
    AUDIT_EVENTS: audit.EVENTS,
}


def document(service: str, version: str) -> dict[str, Any]:
    """What `service` sends and receives: channels, operations, and a schema for every message."""
    topics = [topic for topic in TOPICS if service in (topic.writer, *topic.readers)]
    messages = {message.TYPE: message for topic in topics for message in CARRIES[topic]}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": f"Hallmark {service}", "version": version},
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in topics},
        "operations": {
            f"{action}:{topic.name}": {"action": action, "channel": {"$ref": f"#/channels/{topic.name}"}}
            for topic in topics
            for action in ("send", "receive")
            if service in ((topic.writer,) if action == "send" else topic.readers)
        },
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "summary": " ".join((message.__doc__ or name).split()),
                    "headers": {"$ref": "#/components/schemas/headers"},
                    "payload": schema_of(message),
                }
                for name, message in messages.items()
            },
            "schemas": {"headers": _headers()},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": f"Written by {topic.writer or 'any producer'}; the key is the stream, workspace/model.",
        "messages": {m.TYPE: {"$ref": f"#/components/messages/{m.TYPE}"} for m in CARRIES[topic]},
        "bindings": {"kafka": {"topic": topic.name, "partitions": topic.partitions, "bindingVersion": "0.5.0"}},
    }


def _headers() -> dict[str, Any]:
    """CloudEvents in Kafka's binary mode: each attribute is a header of text."""
    fields = {name: field for name, field in Envelope.model_fields.items() if name not in ("key", "value")}
    return {
        "type": "object",
        "properties": {f"ce_{name}": {"type": "string"} for name in ("specversion", *fields)}
        | {"content-type": {"const": "application/json"}},
        "required": ["ce_specversion", *(f"ce_{name}" for name, field in fields.items() if field.is_required())],
    }
