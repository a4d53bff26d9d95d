"""The audit service with the keys of decisions, and changes that carry one."""

from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from joserfc.jwk import OKPKey
from tests.support.decisions import publish

from approval.decision import sign
from audit import tables, view_tables
from audit.decisions import Decisions
from audit.rebuild import rebuild
from audit.views import STAGES, Views
from contracts.approval import Choice, Decision, Verdict, Vote, approvals_of, policies_of
from contracts.envelope import Envelope
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import AliasChanged, Approval, StageChanged, Transition
from kit.auth import KeySource
from kit.keys import ensure_key, load_key

from .conftest import NOON, Harness, changed, digest, event, hours, record, registered

Change = TypeVar("Change", StageChanged, AliasChanged)
DEV, STAGING, PRODUCTION, ARCHIVED = Stage.DEVELOPMENT, Stage.STAGING, Stage.PRODUCTION, Stage.ARCHIVED


def decided(change: Change, key: OKPKey, **other: Any) -> Change:
    """The change with a decision for it; `other` is what the decision says instead."""
    given = {name: getattr(change, name) for name in Transition.model_fields if hasattr(change, name)}
    if isinstance(change, AliasChanged):
        given |= {"kind": TransitionKind.ALIAS, "from_stage": DEV, "to_stage": f"@{change.alias}"}
    said: dict[str, Any] = {
        **given,
        "decision_id": f"d-{change.transition_id}",
        "verdict": Verdict.APPROVED,
        "reason": "",
        "requested_by": change.requested_by,
        "policies": (),
        "gates": change.criteria,
        "votes": tuple(_vote(approval) for approval in change.approved_by),
        "inputs_digest": digest(0),
        "request_digest": digest(0),
        "decided_at": NOON,
        "expires_at": hours(72),
        **other,
    }
    decision = Decision(**said)
    told = {"approved_by": approvals_of(decision), "criteria": decision.gates, "policy": policies_of(decision)}
    return change.model_copy(
        update={"decision": sign(decision, key), "decision_id": f"d-{change.transition_id}", **told},
    )


def _vote(approval: Approval) -> Vote:
    given = {"rule": "prod/agree", "auth_method": "webauthn", "request_digest": digest(0)}
    return Vote(voter=approval.name, meaning=approval.meaning, at=approval.at, choice=Choice.APPROVE, **given)


class Signed:
    """The service with the keys of decisions, and a history of two versions: v1 in production, then v2."""

    def __init__(self, audit: Harness, directory: Path) -> None:
        ensure_key(directory, "decision")
        self.audit, self.key = audit, load_key(directory / "decision.jwk")
        self.jwks = directory / "decision.jwks.json"
        self.views = Views(Decisions(KeySource(str(self.jwks))))
        self.ledger = audit.log(self.views)

    def publish(self, members: dict[str, Any]) -> None:
        """The key with more members; they are read before the next record."""
        publish(self.jwks, (self.key, members))
        self.views = Views(Decisions(KeySource(str(self.jwks))))
        self.ledger = self.audit.log(self.views)

    async def tell(self, *envelopes: Envelope) -> list[str | None]:
        outcomes = await self.ledger.append([record(envelope) for envelope in envelopes])
        return [outcome.flaw for outcome in outcomes]

    def first(self) -> list[Envelope]:
        """v1 is in production."""
        return [
            event(registered(1), 1, at=hours(0)),
            event(decided(changed(1, DEV, STAGING), self.key), 2, at=hours(1)),
            event(decided(changed(1, STAGING, PRODUCTION), self.key), 3, at=hours(2)),
            event(registered(2), 4, at=hours(3)),
            event(decided(changed(2, DEV, STAGING), self.key), 5, at=hours(4)),
        ]

    def swap(self) -> list[Envelope]:
        """v2 takes the place of v1."""
        entering = decided(changed(2, STAGING, PRODUCTION, replaces=1), self.key)
        leaving = changed(1, PRODUCTION, ARCHIVED, TransitionKind.SUPERSEDED, superseded_by=2)
        same = {"transition_id": entering.transition_id, "decision_id": entering.decision_id}
        return [event(leaving.model_copy(update=same), 6, at=hours(5)), event(entering, 7, at=hours(5))]

    async def production(self) -> Any:
        return (await self.audit.get("/v1/models/fraud/production"))["version"]

    async def intervals(self) -> list[dict[str, Any]]:
        return await self.audit.rows(view_tables.stage_interval)

    async def views_of_log(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every view; when an early record was put aside is left out."""
        found = {table.name: await self.audit.rows(table) for table in view_tables.VIEWS}
        for table in (tables.mechanism.progress, tables.mechanism.early):
            found[table.name] = [row for row in await self.audit.rows(table) if row["consumer"] == STAGES]
            for row in found[table.name]:
                row.pop("at", None)
        return found

    async def assert_rebuilt_alike(self) -> None:
        """Law 2."""
        before = await self.views_of_log()
        await self.audit.execute("delete from audit.stage_interval", "update audit.timeline set problem = 'lost'")
        async with self.audit.db.transaction() as tx:
            count = await rebuild(tx, self.views)
            assert count == await tx.scalar(sa.select(sa.func.count()).select_from(tables.entry))
        assert await self.views_of_log() == before
