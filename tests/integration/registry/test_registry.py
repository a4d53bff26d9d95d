"""Registration, stages and reads over HTTP and Kafka."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import sqlalchemy as sa
from joserfc import jws
from tests.support.waiting import until

from contracts.approval import DECISION_TYPE, Decision, PolicyRef, RequestDecided, Verdict
from contracts.canonical import canonical_json
from contracts.envelope import Envelope, now
from contracts.lifecycle import Stage, TransitionKind
from contracts.model import Artifact, VersionContent
from contracts.registry import (
    CommandRejected,
    Criterion,
    RegisterVersion,
    RequestTransition,
    StageChanged,
    StageRequested,
    Transition,
    VersionRegistered,
    VersionRejected,
)
from contracts.topics import APPROVAL_EVENTS, REGISTRY_COMMANDS
from kit.db import Database
from kit.keys import ensure_key
from registry.tables import TransitionRow, t

from .conftest import Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")
DIGEST = "sha256:" + "0" * 64


def signed(harness: Harness, transition: dict[str, Any], key: Any = None, **changed: Any) -> RequestDecided:
    """An approved decision for the transition, as the approval service signs it, with fields changed."""
    decision = Decision(
        **{name: transition[name] for name in Transition.model_fields},
        decision_id=str(uuid4()),
        verdict=Verdict.APPROVED,
        reason="",
        requested_by=transition["requested_by"],
        policies=(PolicyRef(name="test", revision=1, digest=DIGEST),),
        gates=(),
        votes=(),
        inputs_digest=DIGEST,
        request_digest=DIGEST,
        decided_at=now(),
        expires_at=now() + timedelta(minutes=5),
    ).model_copy(update=changed)
    key = key or harness.keys["decision"]
    header = {"alg": "EdDSA", "kid": key.kid, "typ": DECISION_TYPE}
    body = canonical_json(decision.model_dump(mode="json"))
    return RequestDecided(decision=decision, jws=jws.serialize_compact(header, body, key, algorithms=["EdDSA"]))


async def decide(
    harness: Harness, decided: RequestDecided, event_id: str | None = None, stream: str | None = None
) -> Envelope:
    stream = stream or f"{decided.decision.workspace}/{decided.decision.model}"
    envelope = Envelope.of(
        decided, source="hallmark/approval", subject=stream, key=stream, sequence=1, event_id=event_id
    )
    await harness.send(APPROVAL_EVENTS.name, envelope)
    return envelope


async def promote(harness: Harness, model: str, version: int, to: str) -> dict[str, Any]:
    transition = await harness.request(model, version, to)
    await decide(harness, signed(harness, transition))
    return await harness.closed(transition["transition_id"])


def rejection_of(envelope: Envelope) -> Any:
    return lambda e: (
        e.type == CommandRejected.TYPE and e.payload(CommandRejected).command_id in (envelope.id, envelope.subject)
    )


async def test_a_version_is_registered_with_its_artifact(registry: Harness) -> None:
    version = await registry.register("churn", metrics={"auc": 0.9}, parameters={"depth": 3})
    assert (version["version"], version["stage"], version["registered_by"]) == (1, "Development", "ana")
    event = await registry.event(lambda e: e.type == VersionRegistered.TYPE)
    assert (event.key, event.subject) == (registry.stream("churn"), registry.stream("churn/1"))
    assert (event.sequence, event.actor) == (2, "ana")
    assert event.payload(VersionRegistered).digest == version["digest"]
    found = (await registry.ana.get("/v1/models/churn/resolve", params={"version": 1})).json()
    async with httpx2.AsyncClient() as outside:
        assert (await outside.get(found["download_url"])).content == b"model"


async def test_parallel_registrations_are_numbered_without_gaps(registry: Harness) -> None:
    artifact = await registry.upload(b"model")
    client = registry.ana
    responses = await asyncio.gather(
        *(client.post("/v1/models/churn/versions", json={"artifact": artifact, "metrics": {"n": n}}) for n in range(32))
    )
    assert {r.status_code for r in responses} == {201}
    assert sorted(r.json()["version"] for r in responses) == list(range(1, 33))


async def test_the_same_idempotency_key_never_makes_a_second_version(registry: Harness) -> None:
    body = {"artifact": await registry.upload(b"model")}
    client = registry.ana
    responses = await asyncio.gather(
        *(client.post("/v1/models/churn/versions", json=body, headers={"idempotency-key": "k"}) for _ in range(8))
    )
    assert {(r.status_code, r.json()["version"]) for r in responses} == {(201, 1)}
    other = await client.post(
        "/v1/models/churn/versions", json={**body, "notes": "x"}, headers={"idempotency-key": "k"}
    )
    assert (other.status_code, other.json()["type"]) == (409, "urn:hallmark:problem:idempotency-key-reused")


async def test_bytes_that_differ_from_the_digest_make_a_rejected_version(registry: Harness) -> None:
    artifact = await registry.upload(b"good" + registry.workspace.encode())
    await registry.spoil(artifact["digest"], b"evil" + registry.workspace.encode())
    response = await registry.ana.post("/v1/models/churn/versions", json={"artifact": artifact})
    assert (response.status_code, response.json()["status"]) == (201, "pending")
    version = await registry.verified("churn", 1)
    assert version["status"] == "rejected"
    assert version["status_detail"].startswith("artifact-mismatch: model.onnx: declared sha256:")
    event = await registry.event(lambda e: e.type == VersionRejected.TYPE)
    assert event.payload(VersionRejected).file == "model.onnx"
    # It can never be used, and its number is not given again.
    refused = await registry.ana.post(
        "/v1/models/churn/versions/1/transitions", json={"to_stage": "Staging", "reason": "x"}
    )
    assert refused.json()["type"] == "urn:hallmark:problem:version-rejected"
    assert (await registry.register("churn"))["version"] == 2


async def test_a_file_that_was_not_uploaded_changes_nothing(registry: Harness) -> None:
    missing = {"digest": DIGEST, "size": 4, "filename": "model.onnx"}
    response = await registry.ana.post("/v1/models/churn/versions", json={"artifact": missing})
    assert (response.status_code, response.json()["type"]) == (422, "urn:hallmark:problem:artifact-missing")
    assert response.json()["files"] == ["model.onnx"]
    assert (await registry.ana.get("/v1/models/churn")).status_code == 404


async def test_verified_bytes_cannot_be_replaced_by_a_later_upload(registry: Harness) -> None:
    good = b"good" + registry.workspace.encode()
    artifact = (await registry.register("churn", good))["content"]["artifact"]
    body = {"files": [{"digest": artifact["digest"], "size": len(good)}]}
    [again] = (await registry.ana.post("/v1/artifacts", json=body)).json()["files"]
    assert again["state"] == "present"
    await registry.spoil(artifact["digest"], b"evil" + registry.workspace.encode())
    async with httpx2.AsyncClient() as outside:
        found = (await registry.ana.get("/v1/models/churn/resolve", params={"version": 1})).json()
        assert (await outside.get(found["download_url"])).content == good
    assert (await registry.register("churn", good))["status"] == "ready"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/models", {"name": "a/b"}, 422, "invalid-request"),
        ("/v1/models", {"name": "ok", "colour": "red"}, 422, "invalid-request"),
        ("/v1/models", {"name": "nul\x00"}, 422, "invalid-request"),
        ("/v1/models/churn/versions/1/transitions", {"to_stage": "Prod", "reason": "x"}, 422, "unknown-stage"),
        ("/v1/models/churn/versions/1/transitions", {"to_stage": "Production", "reason": "x"}, 409, "move-not-allowed"),
        ("/v1/models/churn/versions/9/transitions", {"to_stage": "Staging", "reason": "x"}, 404, "version-not-found"),
        ("/v1/models/nope/versions/1/transitions", {"to_stage": "Staging", "reason": "x"}, 404, "model-not-found"),
        ("/v1/models/churn/versions/0/transitions", {"to_stage": "Staging", "reason": "x"}, 422, "invalid-request"),
        ("/v1/models/churn/rollback", {"reason": "x"}, 403, "forbidden"),
    ],
)
async def test_bad_input_gets_a_clear_problem_and_changes_nothing(
    registry: Harness, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    await registry.register("churn")
    response = await registry.ana.post(path, json=body)
    assert (response.status_code, response.json()["type"]) == (status, f"urn:hallmark:problem:{code}")
    assert response.headers["content-type"] == "application/problem+json"
    assert (await registry.ana.get("/v1/models/churn/versions/1")).json()["stage"] == "Development"
    assert len((await registry.ana.get("/v1/models")).json()["items"]) == 1


async def test_what_is_too_large_is_refused_before_it_can_stop_the_relay(registry: Harness) -> None:
    artifact = await registry.upload(b"model")
    tags = {f"t{n}": "x" * 9_000 for n in range(60)}
    response = await registry.ana.post("/v1/models/churn/versions", json={"artifact": artifact, "tags": tags})
    assert (response.status_code, response.json()["type"]) == (413, "urn:hallmark:problem:content-too-large")
    tags = {f"t{n}": "x" * 9_000 for n in range(200)}
    response = await registry.ana.post("/v1/models/churn/versions", json={"artifact": artifact, "tags": tags})
    assert (response.status_code, response.json()["type"]) == (413, "urn:hallmark:problem:body-too-large")
    await registry.register("churn")
    await registry.event(lambda e: e.type == VersionRegistered.TYPE)
    metrics = {f"{n}" + "x" * 200: 1.0 for n in range(300)}
    body = {"dataset": {"name": "padded"}, "metrics": metrics, "evaluated_at": "2026-01-01T00:00:00Z"}
    response = await registry.ana.post("/v1/models/churn/versions/1/evaluations", json=body)
    assert (response.status_code, response.json()["type"]) == (422, "urn:hallmark:problem:evaluation-too-large")


async def test_a_long_decision_is_read(registry: Harness) -> None:
    await registry.register("churn")
    transition = await registry.request("churn", 1, "Staging")
    gates = tuple(Criterion(gate=f"g{n}", expression="x" * 9_000, result="pass") for n in range(40))
    await decide(registry, signed(registry, transition, gates=gates))
    assert (await registry.closed(transition["transition_id"]))["status"] == "applied"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
async def test_a_metric_must_be_finite(registry: Harness, number: str) -> None:
    artifact = json.dumps(await registry.upload(b"model"))
    response = await registry.ana.post(
        "/v1/models/churn/versions",
        content=f'{{"artifact": {artifact}, "metrics": {{"auc": {number}}}}}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 422
    assert "finite" in response.json()["detail"]


async def test_tokens_are_checked(registry: Harness) -> None:
    for client, code in (
        (registry.client("ana", "ml-engineers", ttl=-60), "token-expired"),
        (httpx2.AsyncClient(transport=httpx2.ASGITransport(registry.app), base_url="http://r"), "unauthenticated"),
    ):
        response = await client.get("/v1/models")
        assert (response.status_code, response.json()["type"]) == (401, f"urn:hallmark:problem:{code}")
    eve = registry.client("eve", "strangers")
    response = await eve.post("/v1/models", json={"name": "mine"})
    assert response.status_code == 403
    assert "needs one of admin, contributor" in response.json()["detail"]
    denied = await registry.event(lambda e: e.type == CommandRejected.TYPE and e.actor == "eve")
    assert (denied.actor, denied.payload(CommandRejected).code) == ("eve", "forbidden")


async def test_a_decision_moves_the_version_and_archives_the_former_one(registry: Harness) -> None:
    for n in (1, 2):
        await registry.register("churn", f"model {n}".encode(), metrics={"auc": n / 10})
        for stage in ("Staging", "Production"):
            closed = await promote(registry, "churn", n, stage)
            assert (closed["status"], closed["policy"]) == ("applied", f"test r1 {DIGEST}")
    stages = [v["stage"] for v in (await registry.ana.get("/v1/models/churn/versions")).json()["items"]]
    assert stages == ["Archived", "Production"]
    served = await registry.ana.get("/v1/models/churn/resolve", params={"stage": "Production"})
    assert served.json()["version"] == 2
    etag = {"if-none-match": served.headers["etag"]}
    again = await registry.ana.get("/v1/models/churn/resolve", params={"stage": "Production"}, headers=etag)
    assert (again.status_code, again.content) == (304, b"")
    requested = await registry.olga.post("/v1/models/churn/rollback", json={"reason": "errors"})
    assert requested.json()["kind"] == "rollback"
    await decide(registry, signed(registry, requested.json()))
    assert (await registry.closed(requested.json()["transition_id"]))["status"] == "applied"
    back = await registry.ana.get("/v1/models/churn/resolve", params={"stage": "Production"}, headers=etag)
    assert back.json()["version"] == 1
    # The version that was rolled back from is no good one to return to.
    once_more = await registry.olga.post("/v1/models/churn/rollback", json={"reason": "again"})
    assert once_more.json()["type"] == "urn:hallmark:problem:nothing-to-roll-back-to"
    await registry.event(
        lambda e: e.type == StageChanged.TYPE and e.payload(StageChanged).kind is TransitionKind.ROLLBACK
    )
    changes = [e.payload(StageChanged) for e in registry.heard if e.type == StageChanged.TYPE]
    assert [(c.version, c.to_stage) for c in changes[-2:]] == [(2, "Archived"), (1, "Production")]
    sequences = [e.sequence for e in registry.heard if e.key == registry.stream("churn")]
    assert sequences == list(range(1, len(sequences) + 1))


async def test_rejected_and_late_decisions_refuse_the_transition(registry: Harness) -> None:
    await registry.register("churn")
    for changed, code in (
        ({"verdict": Verdict.REJECTED, "reason": "too slow"}, "rejected"),
        ({"expires_at": now() - timedelta(seconds=1)}, "decision-expired"),
    ):
        transition = await registry.request("churn", 1, "Staging")
        await decide(registry, signed(registry, transition, **changed))
        closed = await registry.closed(transition["transition_id"])
        assert (closed["status"], closed["code"]) == ("refused", code)
    assert (await registry.ana.get("/v1/models/churn/versions/1")).json()["stage"] == "Development"


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        ({"digest": DIGEST}, "decision-mismatch"),
        ({"artifact_digest": DIGEST}, "decision-mismatch"),
        ({"version": 2}, "decision-mismatch"),
        ({"to_stage": Stage.PRODUCTION}, "decision-mismatch"),
        ({"model": "fraud"}, "decision-mismatch"),
        ({"workspace": "elsewhere"}, "decision-mismatch"),
        ({"transition_id": "another"}, "decision-replayed"),
        ("other key", "decision-unknown-key"),
        ("other key, same id", "decision-bad-signature"),
        ("changed body", "decision-bad-signature"),
        ("alg none", "decision-bad-signature"),
        ("no type", "decision-malformed"),
        ("garbage", "decision-malformed"),
        ("cut in the signature", "decision-bad-signature"),
        ("cut in the body", "decision-malformed"),
        ("without its signature", "decision-malformed"),
        ("parts in another order", "decision-malformed"),
    ],
    ids=str,
)
async def test_a_forged_decision_changes_nothing_and_blocks_nothing(
    registry: Harness, forge: Any, code: str, tmp_path: Path
) -> None:
    await registry.register("churn")
    transition = await registry.request("churn", 1, "Staging")
    forged = forge_decision(registry, transition, forge, tmp_path)
    envelope = await decide(registry, forged, stream=registry.stream("churn"))
    rejected = await registry.event(rejection_of(envelope))
    assert rejected.payload(CommandRejected).code == code
    [reason] = await registry.parked(APPROVAL_EVENTS.name)
    assert reason["dlt_code"] == code
    document = (await registry.ana.get(f"/v1/transitions/{transition['transition_id']}")).json()
    assert document["status"] == "open"
    # The true decision still counts, although the forged record came first and under the same sequence.
    await decide(registry, signed(registry, transition))
    assert (await registry.closed(transition["transition_id"]))["status"] == "applied"


def forge_decision(harness: Harness, transition: dict[str, Any], forge: Any, scratch: Path) -> RequestDecided:
    if isinstance(forge, dict):
        return signed(harness, transition, **forge)
    good = signed(harness, transition)
    header, body, signature = good.jws.split(".")
    if forge == "changed body":
        other = signed(harness, {**transition, "version": 2}).jws.split(".")[1]
        return good.model_copy(update={"jws": f"{header}.{other}.{signature}"})
    if pieces := {
        "cut in the signature": [header, body, signature[:-8]],
        "cut in the body": [header, body[:-40], signature],
        "without its signature": [header, body],
        "parts in another order": [body, header, signature],
    }.get(forge):
        return good.model_copy(update={"jws": ".".join(pieces)})
    if forge == "garbage":
        return good.model_copy(update={"jws": "not-a-jws"})
    if forge == "alg none":
        none = jws_part({"alg": "none", "typ": DECISION_TYPE, "kid": harness.keys["decision"].kid})
        return good.model_copy(update={"jws": f"{none}.{body}."})
    if forge == "no type":
        key = harness.keys["decision"]
        payload = canonical_json(good.decision.model_dump(mode="json"))
        token = jws.serialize_compact({"alg": "EdDSA", "kid": key.kid}, payload, key, algorithms=["EdDSA"])
        return good.model_copy(update={"jws": token})
    other_key = ensure_key(scratch / "other", "decision")
    if forge == "other key, same id":
        stolen: dict[str, Any] = {**other_key.as_dict(private=True)}
        stolen["kid"] = harness.keys["decision"].kid
        other_key = type(other_key).import_key(stolen)
    return signed(harness, transition, key=other_key)


def jws_part(value: dict[str, Any]) -> str:
    import base64

    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_decisions_in_another_order_are_each_good_for_their_own_request(registry: Harness) -> None:
    for n in (1, 2):
        await registry.register("churn", f"model {n}".encode())
    first, second = [await registry.request("churn", n, "Staging") for n in (1, 2)]
    decisions = [signed(registry, second), signed(registry, first)]
    clear = [decisions[1].decision, decisions[0].decision]  # does not count: here it is the other one's
    for decided, said, transition in zip(decisions, clear, (second, first), strict=True):
        await decide(registry, decided.model_copy(update={"decision": said}))
        closed = await registry.closed(transition["transition_id"])
        assert (closed["status"], closed["version"]) == ("applied", transition["version"])


async def test_a_replayed_decision_changes_nothing(registry: Harness) -> None:
    await registry.register("churn")
    transition = await registry.request("churn", 1, "Staging")
    decided = signed(registry, transition)
    first = await decide(registry, decided)
    await registry.closed(transition["transition_id"])
    await decide(registry, decided, event_id=first.id)  # the relay sent it twice: silence
    replay = await decide(registry, decided)  # somebody sends it again: refused
    rejected = await registry.event(rejection_of(replay))
    assert rejected.payload(CommandRejected).code == "decision-replayed"
    assert len(await registry.parked(APPROVAL_EVENTS.name)) == 1
    assert sum(e.type == StageChanged.TYPE for e in registry.heard) == 1


async def test_a_command_over_kafka_registers_a_version_once(registry: Harness) -> None:
    content = VersionContent(
        artifact=Artifact.model_validate(await registry.upload(b"model", "trainer")), metrics={"auc": 0.9}
    )
    token = registry.token("trainer", "ml-engineers")
    message = RegisterVersion(workspace=registry.workspace, model="churn", content=content)
    command = await registry.command(message, token, event_id="job-7")
    await registry.command(message, token, event_id="job-7", correlationid=command.correlationid)
    event = await registry.event(lambda e: e.type == VersionRegistered.TYPE)
    assert (event.correlationid, event.causationid, event.actor) == (command.correlationid, "job-7", "trainer")
    other = RegisterVersion(
        workspace=registry.workspace, model="churn", content=content.model_copy(update={"notes": "changed"})
    )
    changed = await registry.command(other, token, event_id="job-7")
    rejected = await registry.event(rejection_of(changed))
    assert rejected.payload(CommandRejected).code == "idempotency-key-reused"
    assert len((await registry.ana.get("/v1/models/churn/versions")).json()["items"]) == 1


async def test_bad_commands_are_answered_and_parked_and_block_nobody(registry: Harness) -> None:
    token = registry.token("trainer", "ml-engineers")
    topic, stream = registry.settings.topic_prefix + REGISTRY_COMMANDS.name, registry.stream("churn")

    def rejections() -> list[str]:
        return [e.payload(CommandRejected).code for e in registry.heard if e.type == CommandRejected.TYPE]

    before = len(rejections())
    missing = RequestTransition.model_validate({"model": "churn", "version": 9, "to_stage": "Staging", "reason": "x"})
    good = RegisterVersion(
        workspace=registry.workspace,
        model="churn",
        content=VersionContent(artifact=Artifact.model_validate(await registry.upload(b"m", "trainer"))),
    )

    def raw(value: bytes, **changed: bytes | None) -> Any:
        envelope = Envelope.of(missing, source="t", subject=stream, key=stream)
        headers = dict(envelope.headers()) | {"authorization": f"Bearer {token}".encode()} | changed
        pairs = [(name, v) for name, v in headers.items() if v is not None]
        return registry.producer.send_and_wait(topic, value=value, key=stream.encode(), headers=pairs)

    body = missing.model_dump_json().encode()
    await raw(b"{not json")
    await raw(b'{"model": "churn", "version": 1, "to_stage": "Staging", "reason": "x", "colour": 1}')
    await raw(body.replace(b'"Staging"', b'"Prod"'))
    await raw(body)
    await raw(body, ce_id=None)
    await raw(body, ce_source=b"\xff\xfe")
    await raw(body, authorization=None)
    await raw(body, authorization=b"Bearer " + registry.token("trainer", "ml-engineers", ttl=-60).encode())
    await raw(body, authorization=b"Bearer " + registry.token("eve").encode())
    await raw(body, ce_type=b"hallmark.model.explode.v1")
    nan = good.model_copy(update={"content": good.content.model_copy(update={"metrics": {"auc": 12345.5}})})
    await raw(nan.model_dump_json().encode().replace(b"12345.5", b"NaN"), ce_type=RegisterVersion.TYPE.encode())
    await registry.command(good, token)
    event = await registry.event(lambda e: e.type == VersionRegistered.TYPE)
    assert event.subject == f"{stream}/1"
    dead = await registry.parked(REGISTRY_COMMANDS.name, 11)
    assert not any("authorization" in headers for headers in dead), "tokens do not rest on dead-letter topics"
    codes = [headers["dlt_code"] for headers in dead]
    assert codes == [
        *("bad-event", "bad-event", "model-not-found", "model-not-found", "bad-event", "bad-event"),
        *("unauthenticated", "token-expired", "forbidden", "unknown-command", "bad-event"),
    ]
    await until(lambda: len(rejections()) >= before + len(codes))
    assert sorted(rejections()[before:]) == sorted(codes)


async def test_only_one_transition_is_open_for_a_version_and_target(registry: Harness) -> None:
    await registry.register("churn")
    client = registry.ana
    responses = await asyncio.gather(
        *(
            client.post("/v1/models/churn/versions/1/transitions", json={"to_stage": "Staging", "reason": "x"})
            for _ in range(6)
        )
    )
    assert sorted(r.status_code for r in responses) == [202, 409, 409, 409, 409, 409]
    assert {r.json()["type"] for r in responses if r.status_code == 409} == {"urn:hallmark:problem:transition-open"}


async def test_an_open_transition_expires(registry: Harness, settings: Any) -> None:
    await registry.register("churn")
    transition = await registry.request("churn", 1, "Staging")
    table = t(TransitionRow)
    row = sa.update(table).where(table.c.transition_id == transition["transition_id"])
    db = Database(settings.database_url.get_secret_value(), name="test")
    async with db.transaction() as tx:
        await tx.execute(row.values(expires_at=now() - timedelta(seconds=1)))
    closed = await registry.closed(transition["transition_id"])
    async with db.transaction() as tx:  # views must stay folds of the events
        await tx.execute(row.values(expires_at=datetime.fromisoformat(transition["expires_at"])))
    await db.close()
    assert (closed["status"], closed["code"]) == ("expired", "request-expired")


async def test_a_request_reaches_the_topic_with_all_that_approval_needs(registry: Harness) -> None:
    version = await registry.register("churn")
    transition = await registry.request("churn", 1, "Staging")
    event = await registry.event(lambda e: e.type == StageRequested.TYPE)
    requested = event.payload(StageRequested)
    assert requested.transition_id == transition["transition_id"]
    assert (requested.digest, requested.requested_by) == (version["digest"], "ana")


async def test_pages_follow_one_another(registry: Harness) -> None:
    for n in range(5):
        await registry.ana.post("/v1/models", json={"name": f"m{n}"})
    first = (await registry.ana.get("/v1/models", params={"limit": 3})).json()
    second = (await registry.ana.get("/v1/models", params={"limit": 3, "after": first["next"]})).json()
    assert [m["model"] for m in first["items"] + second["items"]] == [f"m{n}" for n in range(5)]
    assert second["next"] is None
