"""Revocations as the approval service signs them: who believes them, what they end, and what takes the place."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from joserfc import jws

from contracts.approval import DECISION_TYPE, REVOCATION_TYPE, Revocation, RevocationOrdered, Verdict
from contracts.canonical import canonical_json
from contracts.envelope import Envelope, now
from contracts.lifecycle import DEFAULT_LIFECYCLE, StageRule, TransitionKind
from contracts.registry import CommandRejected, StageChanged, StageRefused, StageRequested, VersionRevoked
from contracts.topics import APPROVAL_EVENTS
from embedded.fixtures import S3, Kafka
from kit.db import Database
from kit.keys import ensure_key
from kit.topics import apply_topics
from registry.rebuild import rebuild
from registry.settings import RegistrySettings
from registry.tables import event_log

from .conftest import Harness, new_settings, running
from .test_catalogue import code_of, put
from .test_lifecycle_changes import FINDING, in_production
from .test_registry import DIGEST, decide, promote, rejection_of, signed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
REGISTRY = "hallmark/registry"


def ordered(
    harness: Harness, version: dict[str, Any], /, key: Any = None, *, typ: str = REVOCATION_TYPE, **changed: Any
) -> RevocationOrdered:
    """A revocation of the version, as the approval service signs it, with fields changed."""
    revocation = Revocation(
        revocation_id=str(uuid4()),
        workspace=version["workspace"],
        model=version["model"],
        version=version["version"],
        digest=version["digest"],
        artifact_digest=version["content"]["artifact"]["digest"],
        revoked_by="olga",
        reason="it leaks training data",
        fallback=None,
        revoked_at=now(),
    ).model_copy(update=changed)
    key = key or harness.keys["decision"]
    header = {"alg": "EdDSA", "kid": key.kid, "typ": typ}
    body = canonical_json(revocation.model_dump(mode="json"))
    return RevocationOrdered(revocation=revocation, jws=jws.serialize_compact(header, body, key, algorithms=["EdDSA"]))


async def order(harness: Harness, message: RevocationOrdered, event_id: str | None = None) -> Envelope:
    stream = f"{message.revocation.workspace}/{message.revocation.model}"
    envelope = Envelope.of(
        message, source="hallmark/approval", subject=stream, key=stream, sequence=1, event_id=event_id
    )
    await harness.send(APPROVAL_EVENTS.name, envelope)
    return envelope


async def version_of(harness: Harness, number: int, model: str = "fraud") -> dict[str, Any]:
    document: dict[str, Any] = (await harness.ana.get(f"/v1/models/{model}/versions/{number}")).json()
    return document


async def revoke(harness: Harness, number: int, **changed: Any) -> VersionRevoked:
    await order(harness, ordered(harness, await version_of(harness, number), **changed))
    return await revoked(harness, number)


async def revoked(harness: Harness, number: int) -> VersionRevoked:
    event = await harness.event(lambda e: e.type == VersionRevoked.TYPE and e.payload(VersionRevoked).version == number)
    return event.payload(VersionRevoked)


async def asked_by_itself(
    harness: Harness, target: str = "Production", *, version: int | None = None
) -> StageRequested:
    """What the registry asked for on its own."""

    def matches(envelope: Envelope) -> bool:
        if envelope.type != StageRequested.TYPE:
            return False
        asked = envelope.payload(StageRequested)
        fits = version is None or asked.version == version
        return (asked.requested_by, asked.to_stage, fits) == (REGISTRY, target, True)

    event = await harness.event(matches)
    assert event.actor == REGISTRY
    return event.payload(StageRequested)


async def decided(harness: Harness, asked: StageRequested, **changed: Any) -> dict[str, Any]:
    await decide(harness, signed(harness, asked.model_dump(), **changed))
    return await harness.closed(asked.transition_id)


async def resolved(harness: Harness, model: str = "fraud", **params: Any) -> tuple[int, dict[str, Any]]:
    response = await harness.ana.get(f"/v1/models/{model}/resolve", params=params)
    return response.status_code, response.json()


async def left(harness: Harness, number: int) -> StageChanged:
    """The move of a version into the archive, on its own."""

    def matches(envelope: Envelope) -> bool:
        if envelope.type != StageChanged.TYPE:
            return False
        changed = envelope.payload(StageChanged)
        return (changed.version, changed.to_stage, changed.requested_by) == (number, "Archived", REGISTRY)

    return (await harness.event(matches)).payload(StageChanged)


def asked_of(harness: Harness) -> list[tuple[int, str]]:
    found = [e.payload(StageRequested) for e in harness.heard if e.type == StageRequested.TYPE]
    return [(asked.version, asked.to_stage) for asked in found if asked.requested_by == REGISTRY]


async def test_a_revoked_version_leaves_production_for_the_one_approved_to_return_to(registry: Harness) -> None:
    await in_production(registry, 1, 2, 3)
    said = await revoke(registry, 3, fallback=1)
    assert (said.revoked_by, said.reason, said.fallback) == ("olga", "it leaks training data", 1)
    document = await version_of(registry, 3)
    assert (document["status"], document["stage"]) == ("revoked", "Production")
    assert document["revocation"]["by"] == "olga"
    assert document["revocation"]["reason"] == document["status_detail"] == "it leaks training data"

    asked = await asked_by_itself(registry)
    assert (asked.kind, asked.version, asked.from_stage) == (TransitionKind.ROLLBACK, 1, "Archived")
    assert "olga revoked it: it leaks training data" in asked.reason
    for params in ({"stage": "Production"}, {"version": 3}):
        status, problem = await resolved(registry, **params)
        assert (status, problem["type"]) == (410, "urn:hallmark:problem:version-revoked")
        assert (problem["version"], problem["reason"], problem["by"]) == (3, "it leaks training data", "olga")
        assert problem["at"] == document["revocation"]["at"]
        assert "Stop using it" in problem["detail"]

    assert (await decided(registry, asked))["status"] == "applied"
    status, answer = await resolved(registry, stage="Production")
    assert (status, answer["version"]) == (200, 1)
    assert [v["stage"] for v in (await registry.ana.get("/v1/models/fraud/versions")).json()["items"]] == [
        *("Production", "Archived", "Archived")
    ]
    found = await registry.ana.get("/v1/search/versions", params={"filter": "status = 'revoked'"})
    assert [(v["version"], v["revocation"]["by"]) for v in found.json()["items"]] == [(3, "olga")]
    sequences = [e.sequence for e in registry.heard if e.key == registry.stream("fraud")]
    assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.parametrize("fallback", [None, 3, 4, 99, 1], ids=["none", "itself", "never-there", "unknown", "unsafe"])
async def test_without_a_fallback_that_qualifies_it_is_the_last_good_one(
    registry: Harness, fallback: int | None
) -> None:
    await in_production(registry, 1, 2, 3)
    await registry.register("fraud", b"model 4")
    scan = {"scanner": "grype", "findings": [FINDING]}
    (await registry.olga.post("/v1/models/fraud/versions/1/scans", json=scan)).raise_for_status()
    await revoke(registry, 3, fallback=fallback)
    assert (await asked_by_itself(registry)).version == 2


async def test_with_nobody_to_return_to_it_leaves_at_once(registry: Harness) -> None:
    await in_production(registry, 1)
    await revoke(registry, 1)
    out = await left(registry, 1)
    assert (out.kind, out.from_stage, out.decision) == (TransitionKind.RETIREMENT, "Production", None)
    assert asked_of(registry) == []
    # Production is empty: whoever still has the version is told, not only that nothing is there.
    status, problem = await resolved(registry, stage="Production")
    assert (status, problem["version"]) == (410, 1)
    await registry.register("fraud", b"model 2")
    for stage in ("Staging", "Production"):
        await promote(registry, "fraud", 2, stage)
    assert (await resolved(registry, stage="Production"))[1]["version"] == 2


@pytest.mark.parametrize("how", ["refused", "cancelled"])
async def test_when_the_rollback_comes_to_nothing_it_leaves_all_the_same(registry: Harness, how: str) -> None:
    await in_production(registry, 1, 2)
    await revoke(registry, 2)
    asked = await asked_by_itself(registry)
    if how == "refused":
        closed = await decided(registry, asked, verdict=Verdict.REJECTED, reason="no policy matches")
        assert (closed["status"], closed["code"]) == ("refused", "rejected")
    else:
        path = f"/v1/transitions/{asked.transition_id}/cancel"
        (await registry.olga.post(path, json={"reason": "rather empty"})).raise_for_status()
    assert (await left(registry, 2)).from_stage == "Production"
    assert (await version_of(registry, 2))["stage"] == "Archived"
    assert asked_of(registry) == [(1, "Production")], "it is not asked for again"


async def test_when_the_one_to_return_to_is_revoked_too_the_next_is_asked_for(registry: Harness) -> None:
    await in_production(registry, 1, 2, 3)
    await revoke(registry, 3)
    first = await asked_by_itself(registry, version=2)
    await revoke(registry, 2)
    closed = await registry.closed(first.transition_id)
    assert (closed["status"], closed["code"]) == ("refused", "version-revoked")
    second = await asked_by_itself(registry, version=1)
    assert (await decided(registry, second))["status"] == "applied"
    assert (await resolved(registry, stage="Production"))[1]["version"] == 1


async def test_who_came_after_a_revoked_version_is_not_pushed_out_by_its_rollback(registry: Harness) -> None:
    await in_production(registry, 1, 2)
    await registry.register("fraud", b"model 3")
    await promote(registry, "fraud", 3, "Staging")
    await revoke(registry, 2)
    asked = await asked_by_itself(registry)
    assert (await promote(registry, "fraud", 3, "Production"))["status"] == "applied"
    closed = await decided(registry, asked)
    assert (closed["status"], closed["code"]) == ("refused", "no-longer-needed")
    assert (await resolved(registry, stage="Production"))[1]["version"] == 3


async def test_a_revoked_version_goes_nowhere_and_what_waited_for_it_is_closed(registry: Harness) -> None:
    await in_production(registry, 1, 2)
    await registry.register("fraud", b"model 3")
    waiting = [await registry.request("fraud", 3, "Staging")]
    back = await registry.olga.post("/v1/models/fraud/rollback", json={"reason": "x", "to_version": 1})
    await revoke(registry, 3)
    await revoke(registry, 1)
    for transition in (*waiting, back.json()):
        closed = await registry.closed(transition["transition_id"])
        assert (closed["status"], closed["code"]) == ("refused", "version-revoked")
    late = await decide(registry, signed(registry, waiting[0]))
    assert (await registry.event(rejection_of(late))).payload(CommandRejected).code == "decision-replayed"

    path = "/v1/models/fraud/versions/3"
    asks = await registry.ana.post(f"{path}/transitions", json={"to_stage": "Staging", "reason": "x"})
    alias = await registry.ana.put("/v1/models/fraud/aliases/best", json={"version": 3})
    rolls = await registry.olga.post("/v1/models/fraud/rollback", json={"reason": "x", "to_version": 1})
    none = await registry.olga.post("/v1/models/fraud/rollback", json={"reason": "x"})
    assert [code_of(r) for r in (asks, alias, rolls)] == ["version-revoked"] * 3
    assert [r.status_code for r in (asks, alias, rolls)] == [409] * 3
    assert code_of(none) == "nothing-to-roll-back-to"
    assert asked_of(registry) == [], "nobody relied on them"
    # What is learnt later is still appended, and away from here it may go.
    (await registry.ana.post(f"{path}/notes", json={"text": "post mortem"})).raise_for_status()
    gone = await registry.ana.post(f"{path}/transitions", json={"to_stage": "Archived", "reason": "x"})
    assert gone.json()["status"] == "applied"
    assert (await registry.olga.post("/v1/models/fraud/rename", json={"name": "scam"})).status_code == 200
    assert (await version_of(registry, 3, "scam"))["status"] == "revoked"


async def test_a_protected_alias_returns_by_decision_and_another_one_says_what_happened(registry: Harness) -> None:
    await put(registry, f"/v1/workspaces/{registry.workspace}", {"protected_aliases": ["champion"]}, by="ada")
    await in_production(registry, 1, 2)
    for number in (1, 2):
        moved = await put(registry, "/v1/models/fraud/aliases/champion", {"version": number})
        await decide(registry, signed(registry, moved))
        assert (await registry.closed(moved["transition_id"]))["status"] == "applied"
    await put(registry, "/v1/models/fraud/aliases/mine", {"version": 2})
    await revoke(registry, 2)
    alias, stage = await asked_by_itself(registry, "@champion"), await asked_by_itself(registry)
    assert (alias.kind, alias.version, alias.expected) == (TransitionKind.ROLLBACK, 1, 2)
    for name in ("champion", "mine"):
        status, problem = await resolved(registry, alias=name)
        assert (status, problem["version"]) == (410, 2)
    # Version 1 returns to Production first; the alias does not mind where it stands.
    assert (await decided(registry, stage))["status"] == "applied"
    assert (await decided(registry, alias))["status"] == "applied"
    assert (await resolved(registry, alias="champion"))[1]["version"] == 1
    assert (await resolved(registry, alias="mine"))[0] == 410
    assert (await registry.ana.get("/v1/models/fraud/aliases/mine")).json()["version"] == 2


async def test_a_stage_open_to_many_lets_it_go_and_takes_nobody_back(registry: Harness) -> None:
    """Version 1 is what Production can return to: it must stay where a rollback finds it."""
    await in_production(registry, 1, 2)
    await registry.register("fraud", b"model 3")
    await promote(registry, "fraud", 3, "Staging")
    await revoke(registry, 3)
    assert (await left(registry, 3)).from_stage == "Staging"
    back = await registry.olga.post("/v1/models/fraud/rollback", json={"reason": "errors"})
    assert back.json()["version"] == 1
    assert asked_of(registry) == []


async def test_of_several_in_a_stage_the_others_go_on(registry: Harness) -> None:
    canary = StageRule(name="Canary", gated=True, holds=2)
    lifecycle = DEFAULT_LIFECYCLE.model_copy(update={"stages": (*DEFAULT_LIFECYCLE.stages, canary), "open_moves": True})
    rules = {"lifecycle": lifecycle.model_dump(mode="json")}
    await put(registry, f"/v1/workspaces/{registry.workspace}", rules, by="ada")
    for n in (1, 2, 3):
        await registry.register("fraud", f"model {n}".encode())
        await promote(registry, "fraud", n, "Canary")
    before = (await resolved(registry, stage="Canary"))[1]
    assert before["version"] == 3
    await revoke(registry, 3)
    await left(registry, 3)
    after = (await resolved(registry, stage="Canary"))[1]
    assert after["version"] == 2
    assert after["sequence"] > before["sequence"], "servers take no answer older than what they have"


FORGERIES = {
    "other key": "revocation-unknown-key",
    "other key, same id": "revocation-bad-signature",
    "changed body": "revocation-bad-signature",
    "a decision's type": "revocation-malformed",
    "garbage": "revocation-malformed",
    "another digest": "revocation-mismatch",
    "another artifact": "revocation-mismatch",
    "unknown version": "version-not-found",
    "another model": "model-not-found",
    "another workspace": "model-not-found",
}


@pytest.mark.parametrize("forge", FORGERIES)
async def test_a_forged_or_foreign_revocation_changes_nothing_and_blocks_nothing(
    registry: Harness, forge: str, tmp_path: Path
) -> None:
    version = await registry.register("fraud")
    envelope = await order(registry, forged(registry, version, forge, tmp_path))
    rejected = await registry.event(rejection_of(envelope))
    assert rejected.payload(CommandRejected).code == FORGERIES[forge]
    assert (await version_of(registry, 1))["status"] == "ready"
    assert (await resolved(registry, version=1))[0] == 200
    # The true one still counts, although the forged record came first and under the same sequence.
    await revoke(registry, 1)


def forged(harness: Harness, version: dict[str, Any], forge: str, scratch: Path) -> RevocationOrdered:
    changes: dict[str, dict[str, Any]] = {
        "another digest": {"digest": DIGEST},
        "another artifact": {"artifact_digest": DIGEST},
        "unknown version": {"version": 9},
        "another model": {"model": "other"},
        "another workspace": {"workspace": "elsewhere"},
        "a decision's type": {"typ": DECISION_TYPE},
    }
    if forge in changes:
        return ordered(harness, version, **changes[forge])
    good = ordered(harness, version)
    if forge == "garbage":
        return good.model_copy(update={"jws": "not-a-jws"})
    if forge == "changed body":
        header, _, signature = good.jws.split(".")
        body = ordered(harness, {**version, "version": 2}).jws.split(".")[1]
        return good.model_copy(update={"jws": f"{header}.{body}.{signature}"})
    key = ensure_key(scratch / "other", "decision")
    if forge == "other key, same id":
        stolen: dict[str, Any] = {**key.as_dict(private=True), "kid": harness.keys["decision"].kid}
        key = type(key).import_key(stolen)
    return ordered(harness, version, key=key)


async def test_a_decision_signed_as_one_revokes_nothing(registry: Harness) -> None:
    await registry.register("fraud")
    transition = await registry.request("fraud", 1, "Staging")
    decision = signed(registry, transition)
    message = ordered(registry, await version_of(registry, 1)).model_copy(update={"jws": decision.jws})
    rejected = await registry.event(rejection_of(await order(registry, message)))
    assert rejected.payload(CommandRejected).code == "revocation-malformed"
    assert (await version_of(registry, 1))["status"] == "ready"


async def test_a_revocation_counts_once_however_often_it_comes(registry: Harness) -> None:
    await in_production(registry, 1, 2)
    message = ordered(registry, await version_of(registry, 2))
    first = await order(registry, message)
    await revoked(registry, 2)
    await order(registry, message, event_id=first.id)  # the relay sent it twice
    await order(registry, message)  # somebody sends it again
    other = await order(registry, ordered(registry, await version_of(registry, 2), reason="another reason"))
    await revoke(registry, 1)  # all of them were read
    assert sum(e.type == VersionRevoked.TYPE and e.subject.endswith("/2") for e in registry.heard) == 1
    assert (await version_of(registry, 2))["revocation"]["reason"] == "it leaks training data"
    assert asked_of(registry) == [(1, "Production")]
    assert not any(rejection_of(envelope)(e) for envelope in (first, other) for e in registry.heard)


async def test_a_version_of_a_deleted_model_is_revoked_too(registry: Harness) -> None:
    await registry.register("fraud")
    (await registry.olga.post("/v1/models/fraud/delete", json={"reason": "over"})).raise_for_status()
    await revoke(registry, 1)
    assert (await resolved(registry, version=1))[1]["type"].endswith("version-revoked")
    assert (await resolved(registry, stage="Production"))[1]["type"].endswith("model-deleted")


async def test_servers_that_still_run_it_are_listed(registry: Harness) -> None:
    await in_production(registry, 1)
    report = {"target": "Production", "version": 1, "state": "serving"}
    for server in ("s1", "s2", "s3"):
        (await registry.ana.post("/v1/models/fraud/serving", json={"server": server, **report})).raise_for_status()
    gone = {**report, "server": "s3", "state": "stopped"}
    (await registry.ana.post("/v1/models/fraud/serving", json=gone)).raise_for_status()
    assert (await registry.ana.get("/v1/stale")).json()["items"] == []
    assert (await registry.ana.get("/v1/models/fraud/serving")).json()["in_step"]
    await revoke(registry, 1)
    await left(registry, 1)
    [item] = (await registry.ana.get("/v1/stale")).json()["items"]
    assert (item["version"], item["status"], item["servers"]) == (1, "revoked", ["s1", "s2"])
    assert item["reason"] == "revoked: it leaks training data; still run by s1, s2"
    side = (await registry.ana.get("/v1/models/fraud/serving")).json()
    assert not side["in_step"]
    [production] = [t for t in side["targets"] if t["target"] == "Production"]
    assert production["desired"] is None
    assert {s["server"]: s["revoked"] for s in production["actual"]} == {"s1": True, "s2": True, "s3": True}
    archive = await registry.olga.post("/v1/stale/archive", json={"reason": "x", "dry_run": False})
    assert archive.json()["items"] == [], "it is in the archive"
    for server in ("s1", "s2"):
        stopped = {**report, "server": server, "state": "stopped"}
        (await registry.ana.post("/v1/models/fraud/serving", json=stopped)).raise_for_status()
    assert (await registry.ana.get("/v1/stale")).json()["items"] == []


async def test_the_views_are_what_the_events_say(registry: Harness) -> None:
    await put(registry, f"/v1/workspaces/{registry.workspace}", {"protected_aliases": ["champion"]}, by="ada")
    await in_production(registry, 1, 2)
    await put(registry, "/v1/models/fraud/aliases/mine", {"version": 2})
    await registry.register("fraud", b"model 3")
    body = {"to_stage": "Staging", "reason": "x", "fields": {"ticket": "CHG1"}}
    (await registry.ana.post("/v1/models/fraud/versions/3/transitions", json=body)).raise_for_status()
    for number in (2, 3):
        await revoke(registry, number)
    await decided(registry, await asked_by_itself(registry))
    db = Database(registry.settings.database_url.get_secret_value(), name="test")
    try:
        assert (await rebuild(db, event_log(), lambda _: None)).differing == ()
    finally:
        await db.close()


@pytest.fixture
def own(infra_postgres: str, infra_s3: S3, kafka: Kafka, tmp_path: Path) -> Iterator[RegistrySettings]:
    """Of a registry that a test may stop."""
    with new_settings(infra_postgres, infra_s3, kafka, tmp_path) as settings:
        yield settings


async def test_a_revocation_that_came_while_the_registry_was_away_is_carried_out(
    own: RegistrySettings, tmp_path: Path
) -> None:
    await apply_topics(own.kafka_bootstrap, prefix=own.topic_prefix)
    async with running(own, tmp_path) as before:
        await in_production(before, 1, 2)
        message = ordered(before, await version_of(before, 2))
    producer = AIOKafkaProducer(bootstrap_servers=own.kafka_bootstrap, acks="all")
    await producer.start()
    await order(replace(before, producer=producer), message)
    await producer.stop()
    async with running(own, tmp_path) as meanwhile:
        asked = await asked_by_itself(meanwhile)
    async with running(own, tmp_path) as after:
        assert (await resolved(after, stage="Production"))[0] == 410
        assert (await decided(after, asked))["status"] == "applied"
        assert (await resolved(after, stage="Production"))[1]["version"] == 1
        assert not any(e.type == StageRefused.TYPE for e in after.heard)
