"""The feed: every event as OCSF that the schema takes, and as a CloudEvent that the SDK reads, with its place."""

import json
import re
from base64 import b64decode
from dataclasses import replace
from datetime import UTC
from typing import Any

import jsonschema
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from tests.support.audit_rows import Listed, leaf, row
from tests.support.tlog_copy import ORIGIN, leaf_hash
from tests.unit.audit.approvals import key_of
from tests.unit.audit.test_domain import MESSAGES

from audit.out.rows import Row, Stored, row_of
from audit.out.siem.cef import cef
from audit.out.siem.cloudevents import UNREADABLE, cloudevent
from audit.out.siem.feed import Feed
from audit.out.siem.ocsf import ocsf
from contracts import approval, audit
from contracts.catalog import MESSAGES as CATALOG
from contracts.payload import Message
from contracts.registry import COMMANDS, ModelDeleted, WorkspaceConfigured

# The newest that the oracle brings. 1.9 adds to it and takes nothing away that is used here.
SCHEMA = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.8.0"))
NAMES = {3004: "entity_management", 3005: "user_access", 6002: "application_lifecycle", 6003: "api_activity"}
EVERY: list[Message] = [
    *(message for _, message, _ in MESSAGES),
    audit.AccessRecorded(principal="eve", query="GET /v1/log/export", outcome="denied"),
    audit.CheckpointPublished(origin=ORIGIN, size=1, root="AA==", note="x"),
]
BAD = [b"", b"no leaf", b"\xff\x00" * 50]


def key(message: Message) -> str:
    if isinstance(message, WorkspaceConfigured):
        return f"workspace:{message.workspace}"
    return key_of(message) if isinstance(message, approval.EVENTS) else "default/fraud"


def logged(message: Message, index: int = 41) -> Row:
    command = {"sequence": None} if isinstance(message, COMMANDS) else {}
    return row(message, index, key=key(message), **command)


def unread(data: bytes) -> Row:
    return row_of(Stored(7, data, leaf_hash(data)))


def check(event: dict[str, Any]) -> None:
    schema = SCHEMA.get_class_schema(NAMES[event["class_uid"]], event.get("metadata", {}).get("profiles", []))
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(json.dumps(event))))
    assert not errors, [error.message[:200] for error in errors]


def test_every_type_of_event_is_looked_at() -> None:
    assert {message.TYPE for message in EVERY} == set(CATALOG)


@pytest.mark.parametrize("message", EVERY, ids=lambda m: m.TYPE)
def test_every_event_is_valid_ocsf(message: Message) -> None:
    one = logged(message)
    assert one.fields["problem"] is None
    event = ocsf(one, ORIGIN)
    check(event)
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["metadata"]["uid"] == f"{ORIGIN}/41"
    assert (event["metadata"]["sequence"], event["unmapped"]["index"]) == (41, 41)
    assert event["metadata"]["original_event_uid"] == "e-41"
    assert event["raw_data_hash"]["value"] == leaf_hash(one.stored.leaf).hex()
    assert event["time"] == int(one.fields["at"].timestamp() * 1000)


@pytest.mark.parametrize("data", BAD)
def test_what_cannot_be_read_is_valid_ocsf_too(data: bytes) -> None:
    event = ocsf(unread(data), ORIGIN)
    check(event)
    assert (event["status_id"], event["unmapped"]["index"]) == (2, 7)
    assert event["raw_data_hash"]["value"] == leaf_hash(data).hex()


def test_the_oracle_refuses_what_is_wrong() -> None:
    event = ocsf(logged(EVERY[0]), ORIGIN)
    for name in ("metadata", "time", "activity_id", "api"):
        with pytest.raises(AssertionError):
            check({n: v for n, v in event.items() if n != name})
    with pytest.raises(AssertionError):
        check({**event, "severity_id": 1000})


@pytest.mark.parametrize("message", EVERY, ids=lambda m: m.TYPE)
def test_every_event_is_a_cloudevent(message: Message) -> None:
    one = logged(message)
    (body,) = json.loads(json.dumps([cloudevent(one, ORIGIN)]))
    event = JSONFormat().read(CloudEvent, json.dumps(body))
    envelope = one.reading.envelope
    assert envelope is not None
    assert (event.get_id(), event.get_source(), event.get_type()) == (envelope.id, envelope.source, envelope.type)
    assert event.get_time() == envelope.time.astimezone(UTC)
    assert event.get_data() == json.loads(envelope.value)
    assert event.get_extension("logindex") == "41"
    assert event.get_extension("loghash") == leaf_hash(one.stored.leaf).hex()


@pytest.mark.parametrize("data", BAD)
def test_what_cannot_be_read_is_a_cloudevent_too(data: bytes) -> None:
    body = cloudevent(unread(data), ORIGIN)
    event = JSONFormat().read(CloudEvent, json.dumps(body))
    assert (event.get_type(), event.get_extension("logindex")) == (UNREADABLE, "7")
    assert b64decode(body["data_base64"]) == data


@pytest.mark.parametrize("value", [b"NaN", b"[" * 100_000, b"\xff", b"", b'{"a":Infinity}'])
def test_a_body_that_is_no_json_is_sent_as_bytes(value: bytes) -> None:
    data = replace(leaf(EVERY[0]), value=value).encode()
    body = cloudevent(row_of(Stored(3, data, leaf_hash(data))), ORIGIN)
    json.loads(json.dumps(body, allow_nan=False))
    assert b64decode(body["data_base64"]) == data


def parsed(line: str) -> tuple[list[str], dict[str, str]]:
    """As a receiver reads CEF: header parts at pipes without a backslash, pairs at keys before an equals sign."""
    assert len(line.splitlines()) == 1
    assert line.startswith("CEF:0|")
    *header, extension = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
    found = re.findall(r"(\w+)=((?:\\.|[^\\=])*)(?= \w+=|$)", extension)
    assert " ".join(f"{key}={value}" for key, value in found) == extension
    meant = {"n": "\n", "r": "\r"}
    return header, {k: re.sub(r"\\(.)", lambda m: meant.get(m[1], m[1]), v) for k, v in found}


@pytest.mark.parametrize("message", EVERY, ids=lambda m: m.TYPE)
def test_every_event_is_a_line_of_cef(message: Message) -> None:
    one = logged(message)
    header, told = parsed(cef(one, ORIGIN))
    assert header == ["CEF:0", "Hallmark", "audit", "1", message.TYPE, message.TYPE, header[6]]
    assert 0 <= int(header[6]) <= 10
    assert (told["externalId"], told["cn1"], told["cs1"]) == ("41", "41", leaf_hash(one.stored.leaf).hex())
    assert told["rt"] == str(int(one.fields["recorded_at"].timestamp() * 1000))
    assert told["suser"] == one.fields["actor"]


@pytest.mark.parametrize("data", BAD)
def test_what_cannot_be_read_is_a_line_of_cef_too(data: bytes) -> None:
    header, told = parsed(cef(unread(data), ORIGIN))
    assert (header[4], told["outcome"], told["externalId"]) == ("unknown", "failure", "7")


NASTY = [
    "a=b c=d",
    "x|y",
    "\\",
    "\\=",
    "a\nb",
    "a\r\ncs1=00 |",
    "tab\tx",
    "\u2028a=1",
    "end\\",
    "e\x01x",
    "msg=1 outcome=success",
]


@pytest.mark.parametrize("text", NASTY)
def test_no_text_breaks_out_of_its_field(text: str) -> None:
    """Nobody adds a field, or a line, by what they write as a reason."""
    one = logged(ModelDeleted(workspace="default", model="fraud", reason=text))
    plain = set(parsed(cef(logged(ModelDeleted(workspace="default", model="fraud", reason="x")), ORIGIN))[1])
    _, told = parsed(cef(one, ORIGIN))
    assert set(told) == plain
    assert told["reason"] == re.sub("[\t\x01]", " ", text).replace("\r\n", "\n").replace("\u2028", "\n")
    bent = replace(one, fields={**one.fields, "type": text})
    assert parsed(cef(bent, ORIGIN))[0][:4] == ["CEF:0", "Hallmark", "audit", "1"]


def test_a_text_is_no_longer_than_the_format_allows() -> None:
    _, told = parsed(cef(logged(ModelDeleted(workspace="default", model="fraud", reason="r" * 1_900)), ORIGIN))
    assert (len(told["reason"]), told["reason"][-3:]) == (1_023, "...")


async def test_a_page_of_cef_is_a_record_a_line() -> None:
    log = [row(ModelDeleted(workspace="default", model="fraud", reason=f"{n}\n"), n) for n in range(3)]
    page = await Feed(Listed(log), ORIGIN).page(-1, 3, form="cef", limit=9)
    lines = page.body().decode().splitlines()
    assert [parsed(line)[1]["externalId"] for line in lines] == ["0", "1", "2"]


async def test_pages_follow_the_cursor_and_tell_the_lag() -> None:
    log = [row(ModelDeleted(workspace="default", model="fraud", reason=f"{n}"), n) for n in range(10)]
    feed = Feed(Listed(log), ORIGIN)
    after, seen, lags = -1, [], []
    while (page := await feed.page(after, 9, form="cloudevents", limit=4)).records:
        seen += [int(record["logindex"]) for record in page.records]
        lags.append(page.lag)
        after = page.after
    assert seen == list(range(9))
    assert lags == [5, 1, 0]
    assert (page.after, page.lag) == (8, 0)
    again = await feed.page(3, 9, form="ocsf", limit=2)
    assert [record["unmapped"]["index"] for record in again.records] == [4, 5]
