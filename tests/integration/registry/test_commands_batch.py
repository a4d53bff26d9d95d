"""Commands in bulk over Kafka: few transactions, one answer each, and nobody pays for another's mistake."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.support.waiting import until

from contracts.envelope import Envelope
from contracts.model import Artifact, Dataset, Evaluation, VersionContent
from contracts.payload import Message
from contracts.registry import (
    AliasChanged,
    CommandRejected,
    EvaluateVersion,
    RegisterModel,
    RegisterVersion,
    RequestTransition,
    RollBack,
    SetAlias,
    StageRequested,
    Tags,
    TagVersion,
    VersionEvaluated,
    VersionRegistered,
    VersionTagged,
)
from contracts.topics import REGISTRY_COMMANDS
from kit.db import Database

from .conftest import Harness
from .test_registry import rejection_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def publish(registry: Harness, messages: Sequence[tuple[Message, dict[str, Any]]]) -> list[Envelope]:
    """All at once, in order: the producer does not wait between them."""
    token, topic = registry.token("trainer", "ml-engineers"), registry.settings.topic_prefix + REGISTRY_COMMANDS.name
    envelopes, sent = [], []
    for message, attributes in messages:
        stream = registry.stream(message.model)  # type: ignore[attr-defined]
        envelope = Envelope.of(message, source="test/trainer", subject=stream, key=stream, **attributes)
        headers = [*envelope.headers(), ("authorization", f"Bearer {token}".encode())]
        envelopes.append(envelope)
        sent.append(await registry.producer.send(topic, value=envelope.value, key=stream.encode(), headers=headers))
    await asyncio.gather(*sent)
    return envelopes


async def content(registry: Harness, **fields: Any) -> VersionContent:
    return VersionContent(artifact=Artifact.model_validate(await registry.upload(b"model", "trainer")), **fields)


def answered(registry: Harness, commands: list[Envelope]) -> dict[str, list[Envelope]]:
    """What each command caused."""
    found: dict[str, list[Envelope]] = {command.id: [] for command in commands}
    for event in registry.heard:
        if event.causationid in found:
            found[event.causationid].append(event)
    return found


async def all_answered(registry: Harness, commands: list[Envelope]) -> dict[str, list[Envelope]]:
    def all_of_them() -> dict[str, list[Envelope]] | None:
        found = answered(registry, commands)
        return found if all(found.values()) else None

    return await until(all_of_them, 60, f"an answer to each of {len(commands)} commands")


async def transactions(registry: Harness, ids: list[str]) -> int:
    """In how many transactions the commands were applied: their inbox rows hold the time at which theirs began.

    Savepoints have ids of their own, so that xmin would not say.
    """
    db = Database(registry.settings.database_url.get_secret_value(), name="test")
    try:
        async with db.snapshot() as tx:
            rows = await tx.execute(
                sa.text("select count(*), count(distinct at) from registry.inbox where event_id = any(:ids)"),
                {"ids": [f"trainer:{one}" for one in ids]},
            )
            count, distinct = rows.one()
    finally:
        await db.close()
    assert count == len(ids)
    return int(distinct)


async def test_200_commands_for_40_models(registry: Harness) -> None:
    made = await content(registry)
    commands: list[tuple[Message, dict[str, Any]]] = [
        (
            RegisterVersion(
                workspace=registry.workspace, model=f"m{n % 40}", content=made.model_copy(update={"notes": f"{n}"})
            ),
            {},
        )
        for n in range(200)
    ]
    sent = await publish(registry, commands)
    found = await all_answered(registry, sent)
    # Order per model: the n-th command for a model made its n-th version.
    for n, command in enumerate(sent):
        [version] = [e for e in found[command.id] if e.type == VersionRegistered.TYPE]
        registered = version.payload(VersionRegistered)
        assert (registered.version, registered.content.notes) == (n // 40 + 1, f"{n}")
        assert (version.correlationid, version.actor) == (command.correlationid, "trainer")
    for n in range(40):
        sequences = [e.sequence for e in registry.heard if e.key == registry.stream(f"m{n}")]
        assert sequences == [*range(1, len(sequences) + 1)]
    assert await transactions(registry, [command.id for command in sent]) <= 100


async def test_poison_and_refused_commands_cost_nobody_else(registry: Harness) -> None:
    made = await content(registry)
    w = registry.workspace
    good: list[tuple[Message, dict[str, Any]]] = [
        (RegisterVersion(workspace=w, model=f"m{n % 5}", content=made), {}) for n in range(40)
    ]
    missing = Artifact(digest="sha256:" + "0" * 64, size=4, filename="m.bin")
    bad: list[tuple[Message, str]] = [
        (RequestTransition(workspace=w, model="m1", version=99, to_stage="Staging", reason="x"), "version-not-found"),
        (RequestTransition(workspace=w, model="m1", version=1, to_stage="Nowhere", reason="x"), "unknown-stage"),
        (
            RegisterVersion(workspace=w, model="m2", content=made.model_copy(update={"artifact": missing})),
            "artifact-missing",
        ),
        (SetAlias(workspace=w, model="m3", version=1, alias="latest"), "reserved-alias"),
        (RollBack(workspace=w, model="m4", reason="x"), "forbidden"),
    ]
    messages: list[tuple[Message, dict[str, Any]]] = [*good[:20], *((one, {}) for one, _ in bad), *good[20:]]
    stream = registry.stream("m0")
    poison = [("ce_id", b"\xff"), ("content-type", b"application/json")]
    topic = registry.settings.topic_prefix + REGISTRY_COMMANDS.name
    before = asyncio.create_task(publish(registry, messages[:10]))
    broken = await registry.producer.send(topic, value=b"{", key=stream.encode(), headers=poison)
    sent = [*await before, *await publish(registry, messages[10:])]
    await broken
    found = await all_answered(registry, sent)
    numbers: dict[str, list[int]] = {}
    for envelope, (message, _) in zip(sent, messages, strict=True):
        answers = found[envelope.id]
        code = next((c for one, c in bad if one is message), None)
        if code is not None:
            [rejected] = answers
            said = rejected.payload(CommandRejected)
            assert (said.code, said.command_id, said.command_type) == (code, envelope.id, envelope.type)
            assert rejected.correlationid == envelope.correlationid
            continue
        [version] = [e.payload(VersionRegistered) for e in answers if e.type == VersionRegistered.TYPE]
        numbers.setdefault(version.model, []).append(version.version)
    assert numbers == {f"m{n}": [*range(1, 9)] for n in range(5)}
    codes = [headers["dlt_code"] for headers in await registry.parked(REGISTRY_COMMANDS.name, len(bad) + 1)]
    assert sorted(codes) == sorted([*(code for _, code in bad), "bad-event"])


async def test_an_event_id_makes_one_version_whatever_comes(registry: Harness) -> None:
    made, job = await content(registry), f"job-{uuid4()}"
    w = registry.workspace
    first = RegisterVersion(workspace=w, model="churn", content=made)
    changed = RegisterVersion(workspace=w, model="churn", content=made.model_copy(update={"notes": "changed"}))
    other_model = RegisterVersion(workspace=w, model="other", content=made)
    same: list[tuple[Message, dict[str, Any]]] = [(first, {"event_id": job, "correlationid": "c1"})] * 5
    again: list[tuple[Message, dict[str, Any]]] = [(changed, {"event_id": job, "correlationid": "c2"})]
    # As many in one batch as there are, and once more in a later one.
    await publish(registry, [*same, *again, *same])
    await registry.event(lambda e: e.type == CommandRejected.TYPE and e.correlationid == "c2")
    await publish(registry, [*same, (other_model, {"event_id": job, "correlationid": "c3"})])
    await registry.event(lambda e: e.type == CommandRejected.TYPE and e.correlationid == "c3")
    rejected = [e.payload(CommandRejected).code for e in registry.heard if e.correlationid in ("c2", "c3")]
    assert rejected == ["idempotency-key-reused"] * 2
    [last] = await publish(registry, [(first, {})])
    await all_answered(registry, [last])
    versions = [e for e in registry.heard if e.type == VersionRegistered.TYPE]
    assert [(e.causationid, e.correlationid) for e in versions] == [(job, "c1"), (last.id, last.correlationid)]
    # The id of another producer is another id.
    eve = registry.token("eve", "ml-engineers")
    await registry.command(first, eve, event_id=job, correlationid="c4")
    event = await registry.event(lambda e: e.type == VersionRegistered.TYPE and e.correlationid == "c4")
    assert event.actor == "eve"


async def test_every_command_is_answered_under_its_correlation(registry: Harness) -> None:
    made, w = await content(registry), registry.workspace
    when = datetime(2026, 5, 31, tzinfo=UTC)
    evaluation = Evaluation(dataset=Dataset(name="may"), metrics={"auc": 0.8}, evaluated_at=when)
    start: list[tuple[Message, dict[str, Any]]] = [
        (RegisterModel(workspace=w, model="churn", owner="team"), {}),
        (RegisterVersion(workspace=w, model="churn", content=made), {}),
    ]
    await all_answered(registry, await publish(registry, start))
    await registry.verified("churn", 1)
    wishes: list[tuple[Message, str]] = [
        (EvaluateVersion(workspace=w, model="churn", version=1, evaluation=evaluation), VersionEvaluated.TYPE),
        (TagVersion(workspace=w, model="churn", version=1, tags=Tags(set={"a": "b"})), VersionTagged.TYPE),
        (SetAlias(workspace=w, model="churn", version=1, alias="best", expected=0), AliasChanged.TYPE),
        (SetAlias(workspace=w, model="churn", version=1, alias="best", expected=7), CommandRejected.TYPE),
        (RequestTransition(workspace=w, model="churn", version=1, to_stage="Staging", reason="x"), StageRequested.TYPE),
        (EvaluateVersion(workspace=w, model="churn", version=2, evaluation=evaluation), CommandRejected.TYPE),
        (RegisterModel(workspace=w, model="churn"), CommandRejected.TYPE),
    ]
    sent = await publish(registry, [(message, {"correlationid": f"c-{n}"}) for n, (message, _) in enumerate(wishes)])
    found = await all_answered(registry, sent)
    for n, (envelope, (_, kind)) in enumerate(zip(sent, wishes, strict=True)):
        [answer] = found[envelope.id]
        assert (answer.type, answer.correlationid) == (kind, f"c-{n}")
    alias = (await registry.ana.get("/v1/models/churn/aliases/best")).json()
    assert (alias["version"], alias["set_by"]) == (1, "trainer")
    refused = await registry.event(rejection_of(sent[3]))
    assert refused.payload(CommandRejected).code == "alias-moved"


async def test_an_alias_set_twice_over_kafka_is_answered_twice(registry: Harness) -> None:
    """A command that changes nothing has no event to be answered by, so a rejection says that it is so already."""
    await registry.register("churn")
    w = registry.workspace
    wish = SetAlias(workspace=w, model="churn", version=1, alias="best")
    first, again, last = await publish(
        registry,
        [(wish, {}), (wish, {}), (TagVersion(workspace=w, model="churn", version=1, tags=Tags(set={"a": "b"})), {})],
    )
    found = await all_answered(registry, [first, again, last])
    assert [e.type for e in found[first.id]] == [AliasChanged.TYPE]
    [answer] = found[again.id]
    assert answer.payload(CommandRejected).code == "nothing-to-change"
