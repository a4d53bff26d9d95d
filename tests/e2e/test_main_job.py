"""The main job over the public interfaces only: SDK, Kafka, HTTP, webhook, mail."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.system import SERVICES, System, to_production
from tests.support.waiting import until_now

from contracts.approval import RequestDecided
from contracts.envelope import Envelope
from contracts.lifecycle import stream_of
from contracts.topics import APPROVAL_EVENTS
from hallmark import HallmarkError
from hallmark.publish import Publisher
from hallmark.verify import VerificationError, verify_export

Artifact = Callable[[str], Path]


async def test_the_main_job(system: System, artifact: Artifact, tmp_path: Path) -> None:
    hook = system.ana.subscribe("webhook", system.receivers.hook_url, secret=system.receivers.secret)
    system.ana.subscribe("slack", system.receivers.slack_url)
    mailbox = f"{system.workspace}@example.org"
    system.client("ana", "ml-engineers", email=mailbox).subscribe("email", mailbox)
    before = datetime.now(UTC)

    v1 = system.ana.register("churn", artifact("one"), metrics={"accuracy": 0.92}, parameters={"depth": 3})
    content = system.client("trainer", "ml-engineers", kind="service").content(
        artifact("two"), metrics={"accuracy": 0.97}
    )
    async with system.publisher() as publisher:
        v2 = await publisher.register("churn", content, workspace=system.workspace, wait=60)
    assert (v1.version, v2.version, v2.registered_by) == (1, 2, "trainer")

    # Four eyes: neither the requester nor a service account may approve.
    assert system.ana.request_stage("churn", 1, "Staging", "evaluated", wait=60).applied
    transition = system.ana.request_stage("churn", 1, "Production", "ready", wait=0)
    request = system.ana.request(transition.transition_id, wait=60)
    assert [gate.result for gate in request.gates] == ["pass"]
    for voter, code in (
        (system.client("ana", "ml-engineers", "reviewers"), "own-request"),
        (system.client("bot", "reviewers", kind="service"), "service-account"),
        (system.client("eve", "strangers"), "not-an-approver"),
    ):
        with pytest.raises(HallmarkError) as refused:
            voter.approve(transition.transition_id)
        assert refused.value.code == code
    assert system.ana.transition(transition.transition_id).open
    system.ben.approve(transition.transition_id, "reviewed")
    assert system.ana.transition(transition.transition_id, wait=60).applied
    first = datetime.now(UTC)

    # A worse version fails the gate; nobody is asked.
    v3 = system.ana.register("churn", artifact("three"), metrics={"accuracy": 0.5})
    assert system.ana.request_stage("churn", v3.version, "Staging", "try", wait=60).applied
    failed = system.ana.request_stage("churn", v3.version, "Production", "try", wait=60)
    assert (failed.status, [c.result for c in failed.criteria]) == ("refused", ["fail"])

    to_production(system, 2)
    second = datetime.now(UTC)
    assert [v.stage for v in system.ana.versions("churn")] == ["Archived", "Production", "Staging"]
    pin = system.ana.resolve("churn")
    assert pin.version == 2
    assert system.ana.download(pin, tmp_path).read_text().startswith("model two")

    rolled = system.olga.rollback("churn", "errors went up", wait=60)
    assert (rolled.status, rolled.version, system.ana.resolve("churn").version) == ("applied", 1, 1)

    # Audit: who, why, on which criteria, and what was there at each instant.
    until_now(
        lambda: sum(i.type == "hallmark.stage.changed.v1" for i in system.aud.timeline("churn")) == 8,
        60,
        "all stage changes are in the audit log",
    )
    answers = [system.aud.production("churn", at) for at in (before, first, second, datetime.now(UTC))]
    assert [a.version for a in answers] == [None, 1, 2, 1]
    assert (answers[2].requested_by, answers[2].reason) == ("ana", "ready")
    assert [a["name"] if isinstance(a, dict) else a for a in answers[2].approved_by] == ["ben"]
    assert [c.result for c in answers[2].criteria] == ["pass"]
    assert answers[3].requested_by == "olga"

    # Deliveries: each change once, in order, signed.
    def heard() -> list[tuple[int, str]]:
        bodies = [h for h in system.receivers.inbox.hooks if h["data"].get("workspace") == system.workspace]
        return [(h["data"]["version"], h["data"]["to_stage"]) for h in bodies if h["type"].endswith("changed.v1")]

    until_now(lambda: len(heard()) >= 8, 60, "the webhook heard of every change")
    assert heard() == [
        *((1, "Staging"), (1, "Production"), (3, "Staging"), (2, "Staging"), (1, "Archived"), (2, "Production")),
        *((2, "Archived"), (1, "Production")),
    ]
    assert system.receivers.inbox.bad_signatures == 0
    until_now(lambda: len(system.mails()) >= 7, 60, "mails arrived")
    until_now(
        lambda: any("rolled back" in json.dumps(m) for m in system.receivers.inbox.slack),
        60,
        "Slack heard of the rollback",
    )
    system.ana.unsubscribe(hook.subscription_id)


def test_the_log_verifies_and_a_changed_copy_does_not(system: System, artifact: Artifact, tmp_path: Path) -> None:
    system.ana.register("churn", artifact("one"), metrics={"accuracy": 0.92})
    until_now(lambda: len(list(system.aud.timeline("churn"))) >= 2, 60, "the registration is in the log")
    export = system.aud.export_log(tmp_path / "log.ndjson")
    key = system.aud.verifier_key()
    assert verify_export(export, key).size >= 2
    lines = export.read_text().splitlines()
    for index in (1, len(lines) // 2, len(lines) - 2, len(lines) - 1):
        entry = json.loads(lines[index])
        leaf = bytearray(base64.b64decode(entry["leaf"]))
        leaf[-1] ^= 1
        entry["leaf"] = base64.b64encode(bytes(leaf)).decode()
        tampered = tmp_path / "tampered.ndjson"
        tampered.write_text("\n".join([*lines[:index], json.dumps(entry), *lines[index + 1 :]]) + "\n")
        with pytest.raises(VerificationError) as caught:
            verify_export(tampered, key)
        assert caught.value.index == index - 1
    (tmp_path / "short.ndjson").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(VerificationError):
        verify_export(tmp_path / "short.ndjson", key)


async def test_forged_and_poisonous_records_change_nothing(system: System, artifact: Artifact) -> None:
    system.ana.register("churn", artifact("one"), metrics={"accuracy": 0.92})
    assert system.ana.request_stage("churn", 1, "Staging", "evaluated", wait=60).applied
    transition = system.ana.request_stage("churn", 1, "Production", "ready", wait=0)
    request = system.ben.request(transition.transition_id, wait=60)
    stream = stream_of(system.workspace, "churn")
    forged = Envelope(
        id="forged",
        source="evil",
        type=RequestDecided.TYPE,
        subject=stream,
        time=datetime.now(UTC),
        dataschema="none",
        key=f"{stream}-forged",
        sequence=1,
        correlationid="forged",
        value=b'{"decision": {}, "jws": "a.b.c"}',
    )
    async with system.publisher() as publisher:
        producer = _producer(publisher)
        for value, headers in (
            (forged.value, forged.headers()),
            (b"\x00\xff not json", forged.headers()),
            (b"{}", [("ce_id", b"\xff\xfe")]),
            (None, []),
        ):
            await producer.send_and_wait(
                APPROVAL_EVENTS.name,
                value=value,
                key=forged.key.encode(),
                headers=[h for h in headers if h[1] is not None],
            )
    assert system.ana.transition(transition.transition_id).open
    system.ben.vote(transition.transition_id, "approve", "reviewed", request_digest=request.request_digest)
    assert system.ana.transition(transition.transition_id, wait=60).applied


def test_every_service_is_alive_ready_and_documents_itself(system: System) -> None:
    services = system.ana.services().model_dump()
    for name in SERVICES:
        base = services[name]
        for path in ("/healthz", "/readyz", "/openapi.json", "/asyncapi.json", "/metrics"):
            response = httpx2.get(f"{base}{path}")
            assert response.status_code == 200, (name, path, response.text)
        unknown = httpx2.get(f"{base}/v1/nothing")
        assert unknown.headers["content-type"] == "application/problem+json"


def _producer(publisher: Publisher) -> Any:
    assert publisher._producer is not None
    return publisher._producer
