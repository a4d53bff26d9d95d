"""The envelope: CloudEvents 1.0 in Kafka's binary mode.

Source: cloudevents/spec 1.0.2, spec.md and bindings/kafka-protocol-binding.md section 3.2: attributes are
`ce_*` headers in UTF-8, `datacontenttype` is the `content-type` header, the record key is `partitionkey`.
"""

import builtins
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from contracts.payload import Identifier, Line, Message

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7

CONTENT_TYPE = "application/json"
Header = tuple[str, bytes]
M = TypeVar("M", bound=Message)


class EnvelopeError(ValueError):
    """A Kafka record that is not a CloudEvent of ours; the text says which attribute is wrong."""


def new_id() -> UUID:
    """A time-ordered id (RFC 9562, UUID version 7)."""
    return uuid7()


def now() -> datetime:
    return datetime.now(UTC)


def to_utc(at: datetime) -> datetime:
    """Raises ValueError: in UTC the instant is beyond the years 1 to 9999."""
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it is beyond the years 1 to 9999") from error


def schema_name(event_type: str) -> str:
    """The `dataschema` of a type: the name of its file in `libs/contracts/schemas`."""
    return f"{event_type}.json"


class Envelope(BaseModel):
    """One event or command on the wire.

    `key` is the stream (and the Kafka key), `sequence` counts a stream's events from 1 without gaps and is
    absent on commands. `value` is the exact JSON body.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Identifier
    source: Line
    type: Line
    subject: Line
    time: Annotated[AwareDatetime, AfterValidator(to_utc)]
    dataschema: Line
    key: Line
    sequence: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None
    correlationid: Line
    causationid: Line | None = None
    actor: Line | None = None
    traceparent: Line | None = None
    value: bytes

    @classmethod
    def of(
        cls,
        message: Message,
        *,
        source: str,
        subject: str,
        key: str,
        event_id: str | None = None,
        sequence: int | None = None,
        correlationid: str | None = None,
        causationid: str | None = None,
        actor: str | None = None,
        traceparent: str | None = None,
        time: datetime | None = None,
    ) -> Self:
        """Wrap a message. Ids, time and correlation get fresh values where none is given."""
        event_id = event_id or str(new_id())
        return cls(
            id=event_id,
            source=source,
            type=message.TYPE,
            subject=subject,
            time=time or now(),
            dataschema=schema_name(message.TYPE),
            key=key,
            sequence=sequence,
            correlationid=correlationid or event_id,
            causationid=causationid,
            actor=actor,
            traceparent=traceparent,
            value=message.model_dump_json(by_alias=True).encode(),
        )

    def payload(self, kind: builtins.type[M]) -> M:
        """The body as `kind`.

        Raises:
            EnvelopeError: the body is not JSON or does not fit; the text names the fields.
        """
        try:
            return kind.model_validate_json(self.value)
        except ValidationError as error:
            raise EnvelopeError(f"{self.type}: {explain(error)}") from error

    def headers(self) -> list[Header]:
        """The Kafka headers, always in the same order, so that a republished record has the same bytes."""
        attributes: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time.isoformat().replace("+00:00", "Z"),
            "dataschema": self.dataschema,
            "partitionkey": self.key,
            "sequence": self.sequence,
            "correlationid": self.correlationid,
            "causationid": self.causationid,
            "actor": self.actor,
            "traceparent": self.traceparent,
        }
        headers = [(f"ce_{name}", str(v).encode()) for name, v in attributes.items() if v is not None]
        return [*headers, ("content-type", CONTENT_TYPE.encode())]

    @classmethod
    def from_kafka(cls, key: bytes | None, headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Self:
        """Read a record.

        Raises:
            EnvelopeError: a required attribute is missing or malformed, or the content type is not JSON.
        """
        given: dict[str, str] = {}
        for name, raw in headers:
            lowered = name.lower()
            if raw is None or not (lowered.startswith("ce_") or lowered == "content-type"):
                continue
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                raise EnvelopeError(f"header {name!r} is not UTF-8") from error
            if lowered in given:
                raise EnvelopeError(f"header {name!r} is given twice")
            given[lowered] = text
        if given.get("ce_specversion") != "1.0":
            raise EnvelopeError("not a CloudEvent 1.0: header 'ce_specversion' must be '1.0'")
        media_type = given.get("content-type", CONTENT_TYPE).split(";")[0].strip().lower()
        if not (media_type == CONTENT_TYPE or media_type.endswith("+json")):
            raise EnvelopeError(f"content-type {media_type!r} is not JSON")
        attributes: dict[str, Any] = {
            name: given[f"ce_{name}"]
            for name in cls.model_fields
            if f"ce_{name}" in given and name not in ("key", "value")
        }
        try:
            attributes["key"] = key.decode() if key is not None else given.get("ce_partitionkey")
        except UnicodeDecodeError as error:
            raise EnvelopeError("the record key is not UTF-8") from error
        attributes.setdefault("dataschema", schema_name(given.get("ce_type", "unknown")))
        attributes.setdefault("correlationid", given.get("ce_id"))
        attributes.setdefault("subject", attributes["key"])
        try:
            return cls.model_validate({**attributes, "value": value or b""})
        except ValidationError as error:
            raise EnvelopeError(f"bad CloudEvent: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """One line per problem: where and what, without the input (it may hold a secret)."""
    return "; ".join(
        f"{'.'.join(str(part) for part in e['loc']) or 'body'}: {e['msg']}"
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    )
