"""Records of a busy registry without end: lives of versions, with their approvals, and what the notifier delivers.

About a third is of the registry, a quarter of the approval service, the rest of the notifier. The bodies are made once,
with placeholders; a life is the same bytes with its own names. Signatures are of the usual length, and no more.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.unit.audit.approvals import AT, BOUND, GATE, POLICY, VOTE

from contracts.approval import Decision, GatesEvaluated, RequestDecided, RequestOpened, Verdict, VoteCast
from contracts.envelope import Envelope
from contracts.lifecycle import Stage, TransitionKind
from contracts.model import (
    Artifact,
    Dataset,
    Environment,
    Evaluation,
    Inspection,
    Lineage,
    VersionContent,
)
from contracts.notifier import DeliverySucceeded
from contracts.payload import Message
from contracts.registry import (
    AliasChanged,
    Approval,
    ModelRegistered,
    StageChanged,
    StageRequested,
    VersionEvaluated,
    VersionRegistered,
    VersionVerified,
)
from contracts.topics import APPROVAL_EVENTS, NOTIFIER_EVENTS, REGISTRY_EVENTS, Topic
from kit.bus import Record

MODELS = 300
DELIVERIES = 14  # of one life: some subscribers for each change, request and decision
MODEL, VERSION, PREVIOUS, TAIL = "soak-model", 999_999_991, 999_999_992, "f" * 20
DIGEST = f"sha256:{'0' * 44}{TAIL}"
JWS = f"{'h' * 120}.{'p' * 2_400}.{'s' * 86}"
PLACE: dict[str, Any] = {"workspace": "default", "model": MODEL, "version": VERSION}
BYTES: dict[str, Any] = {"digest": DIGEST, "artifact_digest": DIGEST}
DEV, STAGING, PRODUCTION, ARCHIVED = Stage.DEVELOPMENT, Stage.STAGING, Stage.PRODUCTION, Stage.ARCHIVED
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Template:
    topic: Topic
    headers: tuple[tuple[str, bytes], ...]
    value: bytes
    wants_previous: bool  # only where another version was there before

    @classmethod
    def of(cls, topic: Topic, message: Message, *, wants_previous: bool = False) -> "Template":
        key = f"default/{MODEL}"
        writer = topic.writer
        sent = Envelope.of(
            message, source=f"hallmark/{writer}", subject=f"{key}/{VERSION}", key=key, sequence=1, actor="ana"
        )
        own = ("ce_id", "ce_sequence", "ce_time", "ce_correlationid")
        headers = tuple(header for header in sent.headers() if header[0] not in own)
        return cls(topic, headers, sent.value, wants_previous)


def _transition(start: str, to: str) -> dict[str, Any]:
    of = {"transition_id": f"t-{MODEL}-{VERSION}-{to}", "kind": TransitionKind.PROMOTION, **PLACE, **BYTES}
    return {**of, "from_stage": start, "to_stage": to}


def _promotion(start: str, to: str, votes: int) -> Iterator[Template]:
    of, asked = _transition(start, to), {"requested_by": "ana", "reason": "better on last month's data"}
    request = of["transition_id"]
    given = {"gates": (GATE,), "inputs_digest": DIGEST, "request_digest": DIGEST, "policies": (POLICY,)}
    decision = Decision(
        **of, **asked, **given, decision_id=f"d-{request}", verdict=Verdict.APPROVED, votes=(VOTE,) * votes,
        decided_at=AT, expires_at=AT,
    )  # fmt: skip
    yield Template.of(REGISTRY_EVENTS, StageRequested(**of, **asked, expires_at=AT))
    yield Template.of(APPROVAL_EVENTS, RequestOpened(**of, **asked, **BOUND))
    passed = GatesEvaluated(request_id=request, gates=(GATE,), passed=True, inputs_digest=DIGEST)
    yield Template.of(APPROVAL_EVENTS, passed)
    for _ in range(votes):
        yield Template.of(APPROVAL_EVENTS, VoteCast(request_id=request, vote=VOTE))
    yield Template.of(APPROVAL_EVENTS, RequestDecided(decision=decision, jws=JWS, inputs={}, documents={}))
    rests: dict[str, Any] = {
        "approved_by": (Approval(name="ben", at=AT, meaning="approval"),) * votes, "criteria": (GATE,),
        "policy": "prod@3", "decision_id": decision.decision_id,
    }  # fmt: skip
    if to == PRODUCTION:
        leaves = {
            **of, "version": PREVIOUS, "kind": TransitionKind.SUPERSEDED, "from_stage": PRODUCTION,
            "to_stage": ARCHIVED, "decision_id": decision.decision_id,
        }  # fmt: skip
        left = StageChanged(**leaves, **asked, superseded_by=VERSION)
        yield Template.of(REGISTRY_EVENTS, left, wants_previous=True)
    yield Template.of(REGISTRY_EVENTS, StageChanged(**of, **asked, **rests, decision=JWS))


def _life() -> Iterator[Template]:
    data = Dataset(name="cards", version="7", digest=DIGEST)
    content = VersionContent(
        artifact=Artifact(digest=DIGEST, size=10, filename="model.onnx"),
        metrics={f"metric_{n}": 0.9 for n in range(12)},
        parameters={f"parameter_{n}": n for n in range(20)},
        environment=Environment(python="3.11", packages={f"package-{n}": "2.1" for n in range(15)}),
        lineage=Lineage(git_commit="a" * 40, datasets=(data,)),
    )
    registered = VersionRegistered(**PLACE, digest=DIGEST, content=content, registered_by="trainer")
    yield Template.of(REGISTRY_EVENTS, registered)
    yield Template.of(
        REGISTRY_EVENTS, VersionVerified(**PLACE, **BYTES, inspection=Inspection(scanner="hallmark/1", findings=()))
    )
    measured = Evaluation(dataset=data, metrics={"accuracy": 0.95}, evaluated_at=AT)
    yield Template.of(REGISTRY_EVENTS, VersionEvaluated(**PLACE, evaluation=measured))
    yield from _promotion(DEV, STAGING, 0)
    yield from _promotion(STAGING, PRODUCTION, 2)
    champion = AliasChanged(**PLACE, **BYTES, alias="champion", requested_by="ana", reason="it serves")
    yield Template.of(REGISTRY_EVENTS, champion)
    delivered = DeliverySucceeded(
        delivery_id="d" * 36, subscription_id="s" * 36, event_id="e" * 36, event_type="hallmark.stage.changed.v1",
        attempt=1, latency_ms=12.5, detail="x" * 250,
    )  # fmt: skip
    for _ in range(DELIVERIES):
        yield Template.of(NOTIFIER_EVENTS, delivered)


class Registry:
    """Gives records in the order of their topics, partitions and streams."""

    def __init__(self) -> None:
        self._model = Template.of(REGISTRY_EVENTS, ModelRegistered(workspace="default", model=MODEL))
        self._life = tuple(_life())
        self._offsets, self._sequences = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
        self._count = 0

    def records(self) -> Iterator[Record]:
        life = 0
        while True:
            number, version = life % MODELS, life // MODELS + 1
            if version == 1:
                yield self._record(self._model, number, version, life)
            for template in self._life:
                if version > 1 or not template.wants_previous:
                    yield self._record(template, number, version, life)
            life += 1

    def _record(self, template: Template, number: int, version: int, life: int) -> Record:
        topic, partition = template.topic.name, number % template.topic.partitions
        place, stream = (topic, partition), (topic, number)
        self._count += 1
        self._sequences[stream] += 1
        offset = self._offsets[place]
        self._offsets[place] += 1
        id_ = f"01a1ff00-0000-7000-8000-{self._count:012x}".encode()
        at = (FIRST + timedelta(seconds=life)).isoformat().replace("+00:00", "Z").encode()
        model = b"m-%d" % number

        def named(text: bytes) -> bytes:
            text = text.replace(MODEL.encode(), model).replace(TAIL.encode(), b"%020d" % version)
            return text.replace(b"%d" % VERSION, b"%d" % version).replace(b"%d" % PREVIOUS, b"%d" % (version - 1))

        own = (
            ("ce_id", id_), ("ce_time", at), ("ce_sequence", b"%d" % self._sequences[stream]), ("ce_correlationid", id_)
        )  # fmt: skip
        headers = (*((name, named(value)) for name, value in template.headers), *own)
        return Record(topic, partition, offset, 1_763_640_000_000, b"default/" + model, headers, named(template.value))
