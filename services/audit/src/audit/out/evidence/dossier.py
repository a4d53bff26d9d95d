"""What the logged events say of one version, put in order for the files of its bundle. Pure."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from audit.out.rows import Row
from contracts import approval, registry
from contracts.approval import Decision, RequestDecided, Vote
from contracts.lifecycle import subject_of
from policy.findings import Judgement
from policy.judge import judge
from policy.signature import BadSignature, taken_apart

# Checks of a decision without which nobody's signature is shown. A key that was revoked since takes nothing back.
UNSIGNED = {"signature", "payload"}


@dataclass(frozen=True)
class Signing:
    """One person's signature as 21 CFR 11.50 wants it shown: printed name, date and time, meaning."""

    name: str
    at: datetime
    meaning: str
    about: str
    how: str
    index: int


@dataclass(frozen=True)
class Decided:
    """A decision, and what came of judging it again from what the log holds."""

    index: int
    record: Mapping[str, Any]
    jws: str
    judgement: Judgement


@dataclass(frozen=True)
class Dossier:
    workspace: str
    model: str
    version: int
    rows: Sequence[Row]
    registered: registry.VersionRegistered | None = None
    verified: registry.VersionVerified | None = None
    described: registry.ModelRegistered | None = None
    revoked: registry.VersionRevoked | None = None
    evaluations: list[registry.VersionEvaluated] = field(default_factory=list)
    moves: list[tuple[Row, registry.StageChanged | registry.AliasChanged]] = field(default_factory=list)
    evidence: list[approval.Evidence] = field(default_factory=list)
    decisions: list[Decided] = field(default_factory=list)
    signings: list[Signing] = field(default_factory=list)

    @property
    def copies(self) -> int:
        """How many of the entries only repeat another."""
        return sum(row.fields["copy_of"] is not None for row in self.rows)

    @property
    def name(self) -> str:
        return subject_of(self.workspace, self.model, self.version)


def dossier_of(workspace: str, model: str, version: int, rows: Sequence[Row], keys: Mapping[str, Any]) -> Dossier:
    """`rows`: every entry about the version, in order of the log. `keys`: the JWK Set that decisions are checked with.

    A record with a problem, or a copy of one that was logged before, is in the bundle, but nothing that it claims is
    told (again).
    """
    told = [row for row in rows if row.fields["problem"] is None and row.fields["copy_of"] is None]
    good = [row for row in told if row.reading.message is not None]
    decisions = _decisions(good, keys)
    signed = {one.jws for one in decisions if not {check.name for check in one.judgement.failed} & UNSIGNED}
    return Dossier(
        workspace,
        model,
        version,
        rows,
        registered=_first(good, registry.VersionRegistered),
        verified=_first(good, registry.VersionVerified),
        described=_first(good, registry.ModelRegistered),
        revoked=_first(good, registry.VersionRevoked),
        evaluations=[m for row in good if isinstance(m := row.reading.message, registry.VersionEvaluated)],
        moves=[
            (row, m)
            for row in good
            if isinstance(m := row.reading.message, registry.StageChanged | registry.AliasChanged)
        ],
        evidence=[m.evidence for row in good if isinstance(m := row.reading.message, approval.EvidenceAttached)],
        decisions=decisions,
        signings=[signing for row in good for signing in _signings(row, signed)],
    )


def _first(rows: Iterable[Row], kind: type[Any]) -> Any:
    return next((row.reading.message for row in rows if isinstance(row.reading.message, kind)), None)


def _decisions(rows: Sequence[Row], keys: Mapping[str, Any]) -> list[Decided]:
    """Those that the approval service logged, and those that a change carries and it did not."""
    found: dict[str, Decided] = {}
    for row in rows:
        message = row.reading.message
        if isinstance(message, RequestDecided) and message.jws not in found and row.leaf is not None:
            record = json.loads(row.leaf.value or b"")
            found[message.jws] = Decided(row.stored.index, record, message.jws, judge(record, keys))
    for row in rows:
        jws = getattr(row.reading.message, "decision", None)
        if isinstance(jws, str) and jws not in found:
            record = {"decision": _payload(jws), "jws": jws}
            found[jws] = Decided(row.stored.index, record, jws, judge(record, keys))
    return sorted(found.values(), key=lambda one: one.index)


def _payload(jws: str) -> Any:
    try:
        return json.loads(taken_apart(jws, approval.DECISION_TYPE).payload)
    except (BadSignature, ValueError, RecursionError):
        return None


def _signings(row: Row, signed: Collection[str]) -> Iterable[Signing]:
    message, index = row.reading.message, row.stored.index
    match message:
        case approval.RequestDecided() if message.jws in signed:
            yield from _of_decision(message.decision, index)
        case approval.ReviewGiven():
            verdict = "justified" if message.justified else "not justified"
            about = f"emergency of request {message.request_id}: {verdict}"
            yield Signing(message.reviewer, message.at, "review", about, message.auth_method, index)
        case registry.VersionRevoked():
            at = row.fields["at"]
            yield Signing(message.revoked_by, at, "revocation", f"why: {message.reason}", "signed order", index)


def _of_decision(decision: Decision, index: int) -> Iterable[Signing]:
    about = f"version {decision.version}: {decision.from_stage} to {decision.to_stage}"
    for vote in decision.votes:
        yield Signing(_printed(vote), vote.at, f"{vote.meaning} ({vote.choice})", about, vote.auth_method, index)
    for waiver in decision.waived:
        meaning = f"waiver of the gate {waiver.gate}: {waiver.reason}"
        yield Signing(waiver.by, waiver.at, meaning, about, waiver.auth_method, index)
    if (glass := decision.break_glass) is not None:
        meaning = f"emergency, without {', '.join(glass.skips)}: {glass.reason}"
        yield Signing(glass.by, glass.at, meaning, about, glass.auth_method, index)


def _printed(vote: Vote) -> str:
    name = f"{vote.voter} <{vote.email}>" if vote.email else vote.voter
    return f"{name} for {vote.on_behalf_of}" if vote.on_behalf_of else name
