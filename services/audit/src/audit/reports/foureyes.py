"""Four eyes: whether somebody who asked for a change, or made the version, approved it, waived for it or broke the
glass for it as well; what got into a gated place without a decision; and who tried what they must not."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.paging import Ask, Document, known_with
from audit.queries import Place
from audit.reports.eyes import judged
from audit.reports.people import good
from audit.view_tables import alias_interval, claim, fact, stage_interval, timeline
from contracts.approval import RequestDecided, VoteRefused
from contracts.lifecycle import DEFAULT_LIFECYCLE, TransitionKind
from contracts.registry import VersionRegistered

s, a, f, t = stage_interval.c, alias_interval.c, fact.c, timeline.c
BATCH = 500
DECIDED = ("approved_by", "policy", "decision_id", "transition_id")
# The rules of the workspace that were in force: whether the stage was gated, or the alias protected.
_GATED = """coalesce(
    (select c.lifecycle from audit.configuration c where c.workspace = stage_interval.workspace
        and c.at <= stage_interval.since and c.index < :size order by c.sequence desc, c.index desc limit 1),
    cast(:default as jsonb)
) @> jsonb_build_object('stages', jsonb_build_array(jsonb_build_object('name', stage_interval.stage, 'gated', true)))"""
_PROTECTED = """exists (select from (
    select c.protected_aliases from audit.configuration c where c.workspace = alias_interval.workspace
        and c.at <= alias_interval.since and c.index < :size order by c.sequence desc, c.index desc limit 1
) rules where rules.protected_aliases @> to_jsonb(alias_interval.alias))"""


async def four_eyes(tx: AsyncConnection, place: Place, finding: str | None, ask: Ask) -> Document:
    """Every entry into a gated stage or of a protected alias, and every attempt that was not let through, in order of
    the log; `finding` narrows it to those with that finding."""
    begun = await paging.begin(tx, ask, (int,))
    found: list[Document] = []
    after = begun.place[0] if begun.place else -1
    while len(found) <= ask.limit:
        rows = [dict(row) for row in (await tx.execute(_entered(place, begun.size, after))).mappings()]
        items = await _judged(tx, rows, begun.size)
        found += [item for item in items if finding in (None, item["finding"])]
        if len(rows) < BATCH:
            break
        after = rows[-1]["index"]
    return paging.page(found[: ask.limit + 1], ("index",), begun, ask.limit)


def _entered(place: Place, size: int, after: int) -> sa.Select[Any]:
    """The next `BATCH` of what the report is about."""
    nothing = {"null": sa.null(), "empty": sa.literal([], JSONB)}
    stages = _branch(
        stage_interval,
        place.on(stage_interval, "since"),
        after,
        (s.since, s.stage, s.kind, sa.true(), s.requested_by, sa.cast(sa.null(), sa.Text), *(s[n] for n in DECIDED)),
        known_with(stage_interval, size),
        s.kind != TransitionKind.SUPERSEDED.value,
        sa.or_(s.decision_id.is_not(None), sa.text(_GATED)),
    )
    told = (a.since, sa.func.concat("@", a.alias), sa.literal("alias"), sa.true(), a.requested_by)
    aliases = _branch(
        alias_interval,
        place.on(alias_interval, "since"),
        after,
        (*told, sa.cast(sa.null(), sa.Text), *(a[n] for n in DECIDED)),
        known_with(alias_interval, size),
        a.version.is_not(None),
        sa.or_(a.decision_id.is_not(None), sa.text(_PROTECTED)),
    )
    c = claim.c
    asked_by = sa.func.coalesce(f.data["requested_by"].astext, f.data["registered_by"].astext)
    undecided = (nothing["empty"], f.data["policy"].astext, f.data["decision_id"].astext, c.transition_id)
    claims = _branch(
        claim,
        place.on(claim),
        after,
        (c.at, c.target, sa.literal("not-believed"), sa.false(), asked_by, t.problem, *undecided),
        ~c.good,
        c.index < size,
        ~sa.exists().where(s.index == c.index, known_with(stage_interval, size)),
        ~sa.exists().where(a.index == c.index, known_with(alias_interval, size)),
        t.index == c.index,
        t.copy_of.is_(None),
        f.index == c.index,
    )
    why = sa.func.concat(f.data["code"].astext, ": ", f.data["detail"].astext)
    refused = _branch(
        fact,
        place.on(fact),
        after,
        (f.at, nothing["null"], sa.literal("vote-refused"), sa.false(), f.person, why, nothing["empty"],
         nothing["null"], nothing["null"], f.request),
        f.type == VoteRefused.TYPE,
        *good(size),
    )  # fmt: skip
    every = sa.union_all(*(sa.select(part.subquery()) for part in (stages, aliases, claims, refused))).subquery()
    query = sa.select(every).order_by(every.c.index).limit(BATCH)
    return query.params(size=size, default=DEFAULT_LIFECYCLE.model_dump_json())


NAMES = ("at", "target", "kind", "entered", "requested_by", "problem", *DECIDED)


def _branch(
    table: sa.Table, place: list[sa.ColumnElement[bool]], after: int, columns: Any, *conditions: Any
) -> sa.Select[Any]:
    of = table.c
    told = [sa.type_coerce(column, _TYPES.get(name, sa.Text())).label(name)
            for name, column in zip(NAMES, columns, strict=True)]  # fmt: skip
    return (
        sa.select(of.index, of.workspace, of.model, of.version, *told)
        .where(*conditions, *place, of.index > after)
        .order_by(of.index)
        .limit(BATCH)
    )


_TYPES: dict[str, Any] = {"at": sa.DateTime(timezone=True), "entered": sa.Boolean(), "approved_by": JSONB()}


async def _judged(tx: AsyncConnection, rows: list[Document], size: int) -> list[Document]:
    """The rows with who decided them and who made the versions, judged."""
    versions = sorted({(r["workspace"], r["model"], r["version"]) for r in rows if r["model"] and r["version"]})
    requests = sorted({r["transition_id"] for r in rows if r["transition_id"]})
    made = sa.select(
        f.index, f.workspace, f.model, f.version, f.data["registered_by"].astext.label("registered_by"),
        f.data["content"]["lineage"]["committers"].label("committers"),
    ).where(f.type == VersionRegistered.TYPE, sa.tuple_(f.workspace, f.model, f.version).in_(versions))  # fmt: skip
    decided = sa.select(
        f.index, f.workspace, f.model, f.request,
        *(f.data["decision"][name].label(name) for name in ("decision_id", "votes", "waived", "break_glass")),
    ).where(f.type == RequestDecided.TYPE, f.request.in_(requests))  # fmt: skip
    authors: dict[Any, Document] = {}
    decisions: dict[Any, Document] = {}
    for query, wanted, found, key in (
        (made, versions, authors, ("workspace", "model", "version")),
        (decided, requests, decisions, ("workspace", "model", "decision_id")),
    ):
        if wanted:
            for row in (await tx.execute(query.where(*good(size)).order_by(f.index))).mappings():
                found.setdefault(tuple(row[name] for name in key), dict(row))
    return [
        judged(
            row,
            authors.get((row["workspace"], row["model"], row["version"])),
            decisions.get((row["workspace"], row["model"], row["decision_id"])),
        )
        for row in rows
    ]
