"""The shape of the explanation of a decision."""

from datetime import datetime
from typing import Any

from audit.answers import Answer
from contracts.registry import Approval, Criterion


class Fact(Answer):
    """What an entry says (`data`: the event without what is bulky or signed), and what is wrong with it if so."""

    index: int
    at: datetime
    recorded_at: datetime
    type: str
    actor: str | None
    summary: str
    problem: str | None
    data: dict[str, Any]


class Holding(Answer):
    """How the version came to hold the target."""

    version: int
    since: datetime
    until: datetime | None
    kind: str
    digest: str
    artifact_digest: str
    requested_by: str
    reason: str
    approved_by: list[Approval]
    criteria: list[Criterion]
    policy: str | None
    decision_id: str | None
    transition_id: str | None
    revoked: dict[str, Any] | None
    index: int
    known_from: int
    closed_by: int | None


class PinSaid(Answer):
    """What the pin says. `agrees`: the log has registered exactly this version, and it held the target then."""

    workspace: str
    model: str
    target: str
    version: int
    digest: str
    artifact_digest: str
    status: str | None
    sequence: int
    issued_at: datetime
    agrees: bool


class Proof(Answer):
    """`proof` leads from `leaf_hash` (hex) to the root of the checkpoint; hashes in base64 (RFC 6962)."""

    index: int
    leaf_hash: str
    proof: list[str]


class Proofs(Answer):
    size: int
    checkpoint: str
    items: list[Proof]


class Explanation(Answer):
    """The version that held the target at `at`, as a tree of `known_size` entries knew it, and each fact's entry."""

    workspace: str
    model: str
    target: str
    at: datetime
    version: int | None
    others: list[int]
    known_size: int
    stay: Holding | None
    registration: list[Fact]
    checks: list[Fact]
    evaluations: list[Fact]
    evidence: list[Fact]
    remarks: list[Fact]
    revocations: list[Fact]
    request: list[Fact]
    gates: list[Fact]
    votes: list[Fact]
    decision: list[Fact]
    policies: list[Fact]
    truncated: bool
    pin: PinSaid | None
    proofs: Proofs | None
