"""What the audit service answers to questions about decisions, times and keeping."""

from datetime import datetime
from typing import Any

from pydantic import Field

from hallmark.results import Result, Tenure


class Fact(Result):
    """One entry of the log: `index` is its place, `data` the body of its event."""

    index: int
    type: str
    at: datetime
    actor: str | None = None
    summary: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    problem: str | None = None


class Explained(Result):
    """Which version it was, and all that the log says of it, in parts; `pin.agrees`: the log says what the pin said.

    `version` is None when nothing held the target at that moment. `proofs` hold an inclusion proof of each fact.
    """

    workspace: str
    model: str
    target: str
    at: datetime
    version: int | None = None
    stay: Tenure | None = None
    pin: dict[str, Any] | None = None
    registration: list[Fact] = Field(default_factory=list)
    checks: list[Fact] = Field(default_factory=list)
    evaluations: list[Fact] = Field(default_factory=list)
    evidence: list[Fact] = Field(default_factory=list)
    remarks: list[Fact] = Field(default_factory=list)
    revocations: list[Fact] = Field(default_factory=list)
    deletions: list[Fact] = Field(default_factory=list)
    request: list[Fact] = Field(default_factory=list)
    gates: list[Fact] = Field(default_factory=list)
    votes: list[Fact] = Field(default_factory=list)
    decision: list[Fact] = Field(default_factory=list)
    policies: list[Fact] = Field(default_factory=list)
    proofs: dict[str, Any] | None = None


class Stay(Result):
    """One version's time in a stage; `until` is None while it is there."""

    version: int
    since: datetime
    until: datetime | None = None
    requested_by: str | None = None
    reason: str | None = None
    approved_by: list[Any] = Field(default_factory=list)
    index: int | None = None


class LeadTime(Result):
    """How long a version took from its registration to the stage."""

    model: str
    version: int
    registered_at: datetime
    at: datetime
    seconds: float


class Hold(Result):
    """A legal hold: what it covers is neither pruned nor erased until it is released."""

    id: str
    workspace: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    placed_by: str
    reason: str
    at: datetime
    released_by: str | None = None
    released_at: datetime | None = None
    release_reason: str | None = None


class Holds(Result):
    items: list[Hold]


class RetentionRule(Result):
    topic: str
    type: str
    days: int


class Retention(Result):
    """How long what is kept at least; without rules everything is kept."""

    rules: list[RetentionRule] = Field(default_factory=list)
    reason: str | None = None
    published_by: str | None = None
    at: datetime | None = None
