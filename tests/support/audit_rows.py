"""Entries of a log as the audit service's exports see them, made from real events in real leaves."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.tlog_copy import ED25519, ORIGIN, leaf_hash, note_of, root_of

from audit.leaf import Leaf
from audit.merkle import inclusion_proof
from audit.note import Checkpoint, Signer
from audit.out.query import Query
from audit.out.rows import Row, Stored, row_of
from audit.tlog.signing import LocalSigner
from contracts import approval, audit, notifier
from contracts.envelope import Envelope
from contracts.model import Artifact, ArtifactFile, Dataset, Environment, Lineage, VersionContent, manifest_digest
from contracts.payload import Message
from contracts.registry import COMMANDS, ModelRegistered, VersionRegistered
from contracts.topics import APPROVAL_EVENTS, AUDIT_EVENTS, NOTIFIER_EVENTS, REGISTRY_COMMANDS, REGISTRY_EVENTS

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DIGEST = f"sha256:{'1' * 64}"
SIGNER = LocalSigner([Signer(ORIGIN, ED25519)], ORIGIN)


def topic_of(message: Message) -> str:
    for kinds, topic in (
        (COMMANDS, REGISTRY_COMMANDS),
        (approval.EVENTS, APPROVAL_EVENTS),
        (notifier.EVENTS, NOTIFIER_EVENTS),
        (audit.EVENTS, AUDIT_EVENTS),
    ):
        if isinstance(message, kinds):
            return topic.name
    return REGISTRY_EVENTS.name


def leaf(message: Message, index: int = 0, **attributes: Any) -> Leaf:
    """`attributes` of the CloudEvent; without them those of an event about version 2 of default/fraud."""
    model = getattr(message, "model", "fraud")
    given: dict[str, Any] = {
        "source": "hallmark/test",
        "subject": f"default/{model}/2",
        "key": f"default/{model}",
        "actor": "ana",
        "sequence": index + 1,
        "time": NOON + timedelta(minutes=index),
        "event_id": f"e-{index}",
    }
    envelope = Envelope.of(message, **{**given, **attributes})
    at = NOON + timedelta(minutes=index, seconds=1)
    headers = tuple(envelope.headers())
    return Leaf(topic_of(message), 0, index, 1_763_640_000_000, at, envelope.key.encode(), headers, envelope.value)


def row(message: Message, index: int = 0, **attributes: Any) -> Row:
    data = leaf(message, index, **attributes).encode()
    return row_of(Stored(index, data, leaf_hash(data)))


def rows(*messages: Message) -> list[Row]:
    return [row(message, n) for n, message in enumerate(messages)]


def head_of(log: Sequence[Row]) -> tuple[Checkpoint, str]:
    root = root_of([one.stored.leaf_hash for one in log])
    return Checkpoint(ORIGIN, len(log), root), note_of(len(log), root)


def proofs_of(log: Sequence[Row]) -> dict[int, list[bytes]]:
    hashes = [one.stored.leaf_hash for one in log]
    return {n: inclusion_proof(hashes, n) for n in range(len(log))}


class Listed:
    """A source that has its rows in a list, and gives a few at a time."""

    def __init__(self, log: Sequence[Row], size: int = 3) -> None:
        self._log, self._size = log, size

    async def known(self) -> int:
        return max((one.stored.index for one in self._log), default=-1) + 1

    async def pruned_until(self) -> int:
        return 0

    async def batches(self, query: Query) -> AsyncIterator[Sequence[Row]]:
        found = [one for one in self._log if query.start <= one.stored.index < query.end]
        for n in range(0, len(found), self._size):
            yield found[n : n + self._size]


def files(*paths: str) -> Artifact:
    listed = tuple(ArtifactFile(path=path, digest=DIGEST, size=1) for path in sorted(paths))
    return Artifact(digest=manifest_digest(listed), size=len(listed), filename="model", files=listed)


def registration(model: str = "fraud", artifact: Artifact | None = None, **content: Any) -> VersionRegistered:
    given: dict[str, Any] = {
        "metrics": {"accuracy": 0.95},
        "parameters": {"depth": 3},
        "environment": Environment(python="3.11", packages={"numpy": "2.1"}),
        "lineage": Lineage(git_commit="abc", datasets=(Dataset(name="cards", version="7", digest=DIGEST),)),
        "owner": "risk team",
    }
    content_ = VersionContent(
        artifact=artifact or Artifact(digest=DIGEST, size=10, filename="model.onnx"), **{**given, **content}
    )
    return VersionRegistered(
        workspace="default", model=model, version=2, digest=DIGEST, content=content_, registered_by="trainer"
    )


def model_registered(model: str = "fraud", **more: Any) -> ModelRegistered:
    return ModelRegistered(workspace="default", model=model, **more)
