"""Who approved or refused what, and what they meant by it; who broke the glass, and who looked at it afterwards."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.paging import Ask, Document
from audit.queries import Place
from audit.reports.confirming import signed_index
from audit.view_tables import fact, timeline
from contracts.approval import (
    GateWaived,
    GlassBroken,
    RequestDecided,
    ReviewGiven,
    ReviewOverdue,
    VoteCast,
    VoteRefused,
    VoteWithdrawn,
)
from contracts.lifecycle import TransitionKind
from contracts.payload import Message
from contracts.registry import AliasChanged, StageChanged

f = fact.c
_SAID = f.data["vote"]["choice"].astext
# What somebody did, by the type of the entry.
_ACT = sa.case(
    (f.type == VoteCast.TYPE, _SAID),
    (f.type == VoteWithdrawn.TYPE, "withdraw"),
    (f.type == VoteRefused.TYPE, "refused"),
    (f.type == GateWaived.TYPE, "waive"),
    (f.type == GlassBroken.TYPE, "break-glass"),
    (f.data["justified"].astext == "true", "justified"),
    else_="not-justified",
)
ACTS = ("approve", "reject", "withdraw", "refused", "waive", "break-glass", "justified", "not-justified")
_ACTING = (VoteCast, VoteWithdrawn, VoteRefused, GateWaived, GlassBroken, ReviewGiven)


def good(size: int) -> list[sa.ColumnElement[bool]]:
    """Facts of a tree of so many entries that nothing is wrong with, once each."""
    t = timeline.c
    return [f.index < size, t.index == f.index, t.problem.is_(None), t.copy_of.is_(None)]


async def approvals(
    tx: AsyncConnection, place: Place, person: str | None, act: str | None, request: str | None, ask: Ask
) -> Document:
    """What people did to requests, in order of the log."""
    begun = await paging.begin(tx, ask, (int,))
    query = _acts(place, begun.size)
    for column, value in ((f.person, person), (_ACT, act), (f.request, request)):
        if value is not None:
            query = query.where(column == value)
    page = await paging.read(tx, query, (f.index,), ("index",), begun, ask.limit)
    decisions = await _later(tx, page["items"], (RequestDecided,), begun.size)
    return {**page, "items": [_act(row, _of(row, decisions)) for row in page["items"]]}


async def _later(
    tx: AsyncConnection, items: list[Document], kinds: Sequence[type[Message]], size: int
) -> list[Document]:
    """The facts of these kinds about the requests of the items."""
    requests = sorted({item["request"] for item in items if item["request"]})
    if not requests:
        return []
    of = (f.request.in_(requests), f.type.in_([kind.TYPE for kind in kinds]))
    found = await tx.execute(sa.select(fact).where(*of, *good(size)).order_by(f.index))
    return [dict(row) for row in found.mappings()]


def _of(row: Document, found: list[Document]) -> list[Document]:
    """Those of the same request. Ids are the writers' choice: those of another model do not count."""
    same = ("request", "workspace", "model")
    return [each for each in found if all(each[name] == row[name] for name in same)]


async def approvers(tx: AsyncConnection, place: Place, ask: Ask) -> Document:
    """How often each person did what, in order of their names."""
    begun = await paging.begin(tx, ask, (str,))
    acts = _acts(place, begun.size).where(f.person.is_not(None)).subquery()
    counts = [sa.func.count().filter(acts.c.act == name).label(name.replace("-", "_")) for name in ACTS]
    who = acts.c.person
    ends = (sa.func.min(acts.c.index).label("first_index"), sa.func.max(acts.c.index).label("last_index"))
    query = sa.select(who, *counts, *ends).group_by(who)
    return await paging.read(tx, query, (who,), ("person",), begun, ask.limit)


def _acts(place: Place, size: int) -> sa.Select[Any]:
    types = [kind.TYPE for kind in _ACTING]
    return sa.select(fact, _ACT.label("act")).where(f.type.in_(types), *good(size), *place.on(fact))


def _act(row: Document, decisions: list[Document]) -> Document:
    data = row["data"]
    told = next((data[name] for name in ("vote", "waiver", "glass") if name in data), data)
    return {
        **{name: row[name] for name in ("index", "at", "person", "act", "request", "workspace", "model", "version")},
        "meaning": told.get("meaning"),
        "rule": told.get("rule") or told.get("gate"),
        "comment": told.get("comment") or told.get("reason") or told.get("detail") or "",
        "on_behalf_of": told.get("on_behalf_of"),
        "auth_method": told.get("auth_method"),
        "code": told.get("code"),
        "signed_index": signed_index(data, decisions),
    }


async def emergencies(tx: AsyncConnection, place: Place, ask: Ask) -> Document:
    """Every use of break-glass, with what came of it and who reviewed it."""
    begun = await paging.begin(tx, ask, (int,))
    query = sa.select(fact).where(f.type == GlassBroken.TYPE, *good(begun.size), *place.on(fact))
    page = await paging.read(tx, query, (f.index,), ("index",), begun, ask.limit)
    after = (ReviewGiven, ReviewOverdue, RequestDecided, StageChanged, AliasChanged)
    found = await _later(tx, page["items"], after, begun.size)
    page["items"] = [_emergency(item, _of(item, found)) for item in page["items"]]
    return page


def _emergency(row: Document, later: list[Document]) -> Document:
    def of(*kinds: Any) -> list[Document]:
        """Also those that were logged first: a change comes from another topic."""
        return [each for each in later if each["type"] in [kind.TYPE for kind in kinds]]

    glass = row["data"]["glass"]
    reviews = [
        {"index": r["index"], "at": r["at"]} | {n: r["data"][n] for n in ("reviewer", "justified", "comment", "closes")}
        for r in of(ReviewGiven)
    ]
    overdue = next((r["index"] for r in of(ReviewOverdue)), None)
    decided = next((r["index"] for r in of(RequestDecided)), None)
    moves = (r for r in of(StageChanged, AliasChanged) if r["data"]["version"] == row["version"])
    entered = next((r["index"] for r in moves if r["data"].get("kind") != TransitionKind.SUPERSEDED), None)
    return {
        **{name: row[name] for name in ("index", "at", "person", "request", "workspace", "model", "version")},
        **{name: glass[name] for name in ("reason", "skips", "until", "review_by", "review", "review_count")},
        "reviews": reviews,
        "state": _state(reviews, overdue),
        "overdue_index": overdue,
        "decided_index": decided,
        "signed_index": signed_index(row["data"], of(RequestDecided)),
        "entered_index": entered,
    }


def _state(reviews: list[Document], overdue: int | None) -> str:
    if any(review["closes"] for review in reviews):
        return "justified"
    if any(not review["justified"] for review in reviews):
        return "not-justified"
    return "open" if overdue is None else "overdue"
