"""The shape of the explanation of a decision."""

from datetime import datetime
from typing import Any

from audit.answers import Answer, Deleted, Proofs, Tenant


class Fact(Answer):
    """What an entry says (`data`: the event without what is bulky or signed), and what is wrong with it if so.

    `signed_index`, of a vote, a waiver or an emergency: the entry of the signed decision that has this very one.
    """

    index: int
    at: datetime
    recorded_at: datetime
    type: str
    actor: str | None
    summary: str
    problem: str | None
    signed_index: int | None = None
    data: dict[str, Any]


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


class Explanation(Answer):
    """The version that held the target at `at`, as a tree of `known_size` entries knew it, and each fact's entry.

    `policies_withheld`: it was decided by so many policies, whose entries only auditors of everything read.
    `pruned_until`: facts of entries below this index may have been pruned; the version's evidence bundle has them.
    """

    workspace: str
    model: str
    target: str
    at: datetime
    version: int | None
    others: list[int]
    known_size: int
    stay: Tenant | None
    deleted: Deleted | None
    deletions: list[Fact]
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
    policies_withheld: int
    truncated: bool
    pruned_until: int
    pin: PinSaid | None
    proofs: Proofs | None
