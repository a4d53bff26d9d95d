"""Which model made this decision? All that the log says of the version that held a place at an instant."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import queries
from audit.forgetting import pruned_until
from audit.paging import Document, Known
from audit.reports.confirming import signed_index
from audit.view_tables import fact, timeline
from contracts.approval import (
    EvidenceAttached,
    GatesEvaluated,
    GateWaived,
    GlassBroken,
    PolicyPublished,
    RequestDecided,
    RequestOpened,
    RevocationOrdered,
    VoteCast,
    VoteRefused,
    VoteWithdrawn,
)
from contracts.payload import Message
from contracts.registry import (
    ModelDeleted,
    ModelRecreated,
    ModelRestored,
    StageRequested,
    VersionDeleted,
    VersionDescribed,
    VersionEvaluated,
    VersionNoted,
    VersionRegistered,
    VersionRejected,
    VersionRestored,
    VersionRevoked,
    VersionScanned,
    VersionTagged,
    VersionVerified,
)

f, t = fact.c, timeline.c
MOST = 100
MOST_BYTES = 2 << 20
STAY = (
    "version", "since", "until", "kind", "digest", "artifact_digest", "requested_by", "reason", "approved_by",
    "criteria", "policy", "decision_id", "transition_id", "superseded_by", "revoked", "index", "known_from",
    "closed_by",
)  # fmt: skip
# Parts of the answer, and the types of the entries that make them.
OF_VERSION: dict[str, tuple[type[Message], ...]] = {
    "registration": (VersionRegistered,),
    "checks": (VersionVerified, VersionRejected, VersionScanned),
    "evaluations": (VersionEvaluated,),
    "evidence": (EvidenceAttached,),
    "remarks": (VersionTagged, VersionNoted, VersionDescribed, VersionDeleted, VersionRestored),
    "revocations": (VersionRevoked, RevocationOrdered),
}
OF_MODEL: dict[str, tuple[type[Message], ...]] = {"deletions": (ModelDeleted, ModelRestored, ModelRecreated)}
OF_REQUEST: dict[str, tuple[type[Message], ...]] = {
    "request": (StageRequested, RequestOpened),
    "gates": (GatesEvaluated, GateWaived, GlassBroken),
    "votes": (VoteCast, VoteWithdrawn, VoteRefused),
    "decision": (RequestDecided,),
}

PARTS = (*OF_MODEL, *OF_VERSION, *OF_REQUEST, "policies")


@dataclass(frozen=True)
class Question:
    """Which version held a target, a stage or an `@alias`, at one of these instants.

    `version`: that one, if it did.
    """

    workspace: str
    model: str
    target: str
    instants: tuple[datetime, ...]
    version: int | None = None


async def explain(tx: AsyncConnection, asked: Question, known: Known, *, auditor: bool = True) -> Document:
    """The version and its facts, each with its entry.

    `version` is null when there was none; `stay` is null when the version that was asked for did not hold the target.
    `truncated`: there are more than 100 facts, or 2 MiB, of one kind, or more than 1,000 others; the timeline has all.
    `pruned_until`: facts of entries below this index may have been pruned; the evidence bundle of the version has them.
    """
    answer: Document = {}
    stays: list[Document] = []
    for at in reversed(asked.instants):
        answer, stays = await _stays(tx, asked, at, known)
        if asked.version is not None:
            stays = [stay for stay in stays if stay["version"] == asked.version]
        if stays:
            break
    stay = stays[0] if stays else None
    version = stay["version"] if stay else asked.version
    size = answer["known_size"]
    request = stay["transition_id"] if stay else None
    told = await facts(tx, asked.workspace, asked.model, version, request, size, auditor=auditor)
    truncated = answer["truncated"] or told["truncated"]
    until = await pruned_until(tx)
    return {**answer, "version": version, "stay": stay, **told, "truncated": truncated, "pruned_until": until}


async def _stays(tx: AsyncConnection, asked: Question, at: datetime, known: Known) -> tuple[Document, list[Document]]:
    """What the answer says of the place, and who held it."""
    of = (tx, asked.workspace, asked.model)
    if asked.target.startswith("@"):
        found = await queries.pointed(*of, asked.target[1:], at, known)
        target, holders = f"@{found['alias']}", [] if found["version"] is None else [{**found, "kind": "alias"}]
    else:
        found = await queries.occupant(*of, asked.target, at, known)
        target, holders = found["stage"], found["occupants"]
        if asked.version is not None and found["truncated"]:
            holders = (await queries.occupant(*of, asked.target, at, known, asked.version))["occupants"]
    told = {name: found[name] for name in ("workspace", "model", "at", "deleted", "known_size")}
    told["truncated"] = found.get("truncated", False)
    others = found.get("others", [])
    return {**told, "target": target, "others": others}, [{name: each.get(name) for name in STAY} for each in holders]


async def facts(
    tx: AsyncConnection,
    workspace: str,
    model: str,
    version: int | None,
    request: str | None,
    size: int,
    *,
    auditor: bool,
) -> Document:
    """The facts of a version, and of the request that let it in. Who is no `auditor` of everything learns how many
    policies it was decided by, and not what else the log says of them."""
    parts: Document = {name: [] for name in PARTS}
    parts["policies_withheld"] = 0
    parts["truncated"] = False
    if version is None:
        return parts
    of_model = sa.and_(f.workspace == workspace, f.model == model)
    sources = [
        (OF_MODEL, sa.and_(of_model, f.version.is_(None))),
        (OF_VERSION, sa.and_(of_model, f.version == version)),
    ]
    if request is not None:
        # Ids of requests are the writers' choice: those of another model are not this one's.
        sources.append((OF_REQUEST, sa.and_(f.request == request, of_model)))
    for kinds, condition in sources:
        for name, types in kinds.items():
            parts[name], cut = await _read(tx, size, condition, f.type.in_([kind.TYPE for kind in types]))
            parts["truncated"] |= cut
    good = [each for each in parts["decision"] if each["problem"] is None]
    for each in (*parts["votes"], *parts["gates"]):
        each["signed_index"] = signed_index(each["data"], good)
    digests = {ref["digest"] for each in good for ref in each["data"]["decision"]["policies"]}
    if auditor:
        parts["policies"], cut = await _policies(tx, size, digests)
        parts["truncated"] |= cut
    else:
        parts["policies_withheld"] = len(digests)
    return parts


async def _policies(tx: AsyncConnection, size: int, digests: set[str]) -> tuple[list[Document], bool]:
    """The entries that published the policies that were decided by."""
    if not digests:
        return [], False
    of = f.data["policy"]["digest"].astext.in_(sorted(digests))
    return await _read(tx, size, f.type == PolicyPublished.TYPE, of)


async def _read(tx: AsyncConnection, size: int, *conditions: sa.ColumnElement[bool]) -> tuple[list[Document], bool]:
    """The facts, and whether there are more than 100 of them, or more than 2 MiB."""
    of = [f.index, f.at, f.type, t.recorded_at, t.actor, t.summary, t.problem, f.data]
    first = (
        sa.select(*of, sa.func.octet_length(sa.cast(f.data, sa.Text)).label("bytes"))
        .join_from(fact, timeline, t.index == f.index)
        .where(f.index < size, t.copy_of.is_(None), *conditions)
        .order_by(f.index)
        .limit(MOST + 1)
        .subquery()
        .c
    )
    fits = sa.func.sum(first.bytes).over(order_by=first.index) <= MOST_BYTES
    columns = [first[column.key] for column in of[:-1]]
    query = sa.select(*columns, sa.case((fits, first.data)).label("data")).order_by(first.index)
    rows = [dict(row) for row in (await tx.execute(query)).mappings()]
    told = [row for row in rows[:MOST] if row["data"] is not None]
    return told, len(told) < len(rows)


def indexes(answer: Document) -> list[int]:
    """Every entry that the answer rests on."""
    named: Iterable[Any] = (each["index"] for name in PARTS for each in answer[name])
    stay = answer["stay"]
    more = [stay["index"]] + ([stay["closed_by"]] if stay["closed_by"] is not None else []) if stay else []
    return sorted({*named, *more})
