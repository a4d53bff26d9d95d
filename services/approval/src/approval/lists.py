"""Lists of requests: pages, in the order of opening, of what the caller may see and asks for.

A page costs the same whatever the number of requests. Rows are read from an index in their order: of one key (a status,
or a group and a status) and of one workspace, one model, one of both, or all. What no index tells is looked at row by
row; a page looks at `LOOKED_AT` rows of each at most, and when that ends it, it may be short, and says where to go on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import domain
from approval.tables import AskedRow, RequestRow, of
from kit.patterns import covers, fits, literal

LOOKED_AT = 1_000
POLICIES = "*"  # the workspace of changes of policies, which everybody may read
EVERY = ("*", "*")
WAITING = (domain.OPEN, domain.APPROVED)  # for votes and waivers; for a review
Pattern = tuple[str, str]
Place = tuple[datetime, str]
Condition = sa.ColumnElement[bool]
_asked, _request = of(AskedRow), of(RequestRow)


@dataclass(frozen=True)
class Page:
    """`next`: the place after which the next page begins; what is there may have been passed over."""

    places: tuple[Place, ...] = ()
    next: Place | None = None

    @property
    def request_ids(self) -> list[str]:
        return [request_id for _, request_id in self.places]


@dataclass(frozen=True)
class Section:
    """Requests of a workspace and a model (None: of any), which an index tells; one of the patterns of both fits."""

    workspace: str | None
    model: str | None
    patterns: frozenset[Pattern]

    def exactly(self, table: sa.Table) -> Condition:
        given = (("workspace", self.workspace), ("model", self.model))
        return sa.and_(sa.true(), *(table.c[name] == value for name, value in given if value is not None))

    def roughly(self, table: sa.Table) -> Condition:
        if EVERY in self.patterns:
            return sa.true()
        return _fit(table.c.workspace, table.c.model, self.patterns)


@dataclass(frozen=True)
class Voice:
    """Somebody in whose name the caller may vote: themselves, or a delegator. `lasts`: how long the delegation does.
    `votes`: the access file lets them vote where one of these patterns fits."""

    subject: str
    groups: frozenset[str]
    email: str | None = None
    lasts: timedelta | None = None
    votes: frozenset[Pattern] = frozenset({EVERY})

    @property
    def names(self) -> tuple[str, str, str]:
        """Those by which a request may name them."""
        return self.subject, self.subject.casefold(), (self.email or self.subject).casefold()


def readable(grants: Iterable[Pattern], workspace: str | None = None, model: str | None = None) -> list[Section]:
    """What somebody may read who has these grants, of this workspace and model."""
    found: dict[tuple[str | None, str | None], set[Pattern]] = {}
    for w, m in grants:
        if (workspace is None or covers(w, workspace)) and (model is None or covers(m, model)):
            in_workspace, of_model = workspace or (w if literal(w) else None), model or (m if literal(m) else None)
            rest = ("*" if in_workspace else w, "*" if of_model else m)
            found.setdefault((in_workspace, of_model), set()).add(rest)
    if workspace in (None, POLICIES):
        found.setdefault((POLICIES, model), set()).add(EVERY)
    if EVERY in found.get((workspace, model), ()):
        return [Section(workspace, model, frozenset({EVERY}))]
    return [Section(*exactly, frozenset(patterns)) for exactly, patterns in found.items()]


async def requests(
    tx: AsyncConnection,
    sections: Sequence[Section],
    *,
    status: str | None = None,
    asked_by: str | None = None,
    after: Place | None = None,
    limit: int,
) -> Page:
    """The newest first."""
    statuses = [status] if status is not None else sorted(get_args(domain.Status))
    keys = sa.func.unnest(sa.cast(statuses, ARRAY(sa.Text()))).table_valued("status").render_derived()
    here = _request.c.status == keys.c.status
    parts = [(sa.and_(here, one.exactly(_request)), one.roughly(_request)) for one in sections]
    if asked_by is not None and parts:
        parts = [(sa.and_(here, _request.c.requested_by == asked_by), _within(sections))]
    return await _page(tx, _request, keys, parts, after=after, limit=limit, newest=True)


async def decided(tx: AsyncConnection, sections: Sequence[Section], *, of_policies: bool, limit: int) -> list[str]:
    """The latest requests that came to an end, but for the cancelled: those about policies, or those about versions."""
    about = _request.c.kind == "policy" if of_policies else _request.c.kind != "policy"
    query = (
        sa.select(_request.c.request_id)
        .where(_request.c.status.in_((domain.APPROVED, domain.REJECTED, domain.EXPIRED)), about, _within(sections))
        .order_by(_request.c.opened_at.desc(), _request.c.request_id.desc())
        .limit(limit)
    )
    return list((await tx.scalars(query)).all())


def _within(sections: Sequence[Section]) -> Condition:
    return sa.or_(sa.false(), *(sa.and_(one.exactly(_request), one.roughly(_request)) for one in sections))


async def inbox(
    tx: AsyncConnection,
    sections: Sequence[Section],
    voices: Sequence[Voice],
    *,
    status: str | None = None,
    after: Place | None = None,
    limit: int,
) -> Page:
    """Requests that wait for somebody of the groups of these voices, the first of which is the caller's own, and that
    nobody forbids them to vote on; the oldest first. A delegate votes where both have the right to."""
    wanted = [
        (group, one, *voice.names, voice.lasts)
        for voice in voices
        for group in sorted(voice.groups)
        for one in WAITING
        if status in (None, one)
    ]
    if not wanted:
        return Page()
    *texts, lasts = map(list, zip(*wanted, strict=True))
    columns = [sa.cast(values, ARRAY(sa.Text())) for values in texts] + [sa.cast(lasts, ARRAY(sa.Interval()))]
    names = ("group_name", "status", "subject", "folded", "email", sa.column("lasts", sa.Interval()))
    keys = sa.func.unnest(*columns).table_valued(*names).render_derived()
    passes = sa.and_(
        ~_asked.c.without.overlap(sa.cast(list(voices[0].names), ARRAY(sa.Text()))),
        ~_asked.c.without.overlap(array([keys.c.subject, keys.c.folded, keys.c.email])),
        sa.or_(keys.c.lasts.is_(None), keys.c.lasts <= _asked.c.delegation),
        _entitled(voices[0].votes),
        *(sa.or_(keys.c.subject != one.subject, _entitled(one.votes)) for one in voices[1:]),
    )
    here = sa.and_(_asked.c.group_name == keys.c.group_name, _asked.c.status == keys.c.status)
    parts = [(sa.and_(here, one.exactly(_asked)), sa.and_(passes, one.roughly(_asked))) for one in sections]
    return await _page(tx, _asked, keys, parts, after=after, limit=limit)


def _entitled(patterns: frozenset[Pattern]) -> Condition:
    """One of the patterns fits the place of the request: that of a change of a policy is all of them."""
    everywhere = _asked.c.workspace == POLICIES
    model = sa.case((everywhere, "*"), else_=_asked.c.model)
    return sa.true() if EVERY in patterns else _fit(_asked.c.workspace, model, patterns)


def _fit(workspace: sa.ColumnElement[str], model: sa.ColumnElement[str], patterns: Iterable[Pattern]) -> Condition:
    each = (sa.and_(fits(workspace, {w}), fits(model, {m})) for w, m in sorted(patterns))
    return sa.or_(sa.false(), *each)


async def _page(
    tx: AsyncConnection,
    table: sa.Table,
    keys: sa.TableValuedAlias,
    parts: Sequence[tuple[Condition, Condition]],
    *,
    after: Place | None,
    limit: int,
    newest: bool = False,
) -> Page:
    """`parts`: what an index tells of a row and its key, and what has to be looked at."""
    if not parts:
        return Page()

    def order(rows: Any) -> list[Any]:
        columns = (rows.c.opened_at, rows.c.request_id)
        return [column.desc() for column in columns] if newest else [*columns]

    found = []
    for exactly, passes in parts:
        nth = sa.func.row_number().over(order_by=order(table)).label("nth")
        query = sa.select(table.c.opened_at, table.c.request_id, passes.label("passes"), nth)
        query = query.where(exactly).order_by(*order(table)).limit(LOOKED_AT).correlate(keys)
        if after is not None:
            here, there = sa.tuple_(table.c.opened_at, table.c.request_id), sa.tuple_(*map(sa.literal, after))
            query = query.where(here < there if newest else here > there)
        rows = query.subquery()
        last = (rows.c.nth == LOOKED_AT).label("last")
        shown = sa.select(rows.c.opened_at, rows.c.request_id, rows.c.passes, last)
        part = shown.where(sa.or_(rows.c.passes, last)).order_by(*order(rows)).limit(limit + 1).lateral()
        found.append(sa.select(part).select_from(keys.join(part, sa.true())))
    every = sa.union_all(*found).subquery()
    passed, last = sa.func.bool_or(every.c.passes).label("passes"), sa.func.bool_or(every.c.last).label("last")
    together = sa.select(every.c.opened_at, every.c.request_id, passed, last)
    together = together.group_by(every.c.opened_at, every.c.request_id).order_by(*order(every)).limit(limit + 1)
    return _cut((await tx.execute(together)).all(), limit)


def _cut(rows: Sequence[Any], limit: int) -> Page:
    places: list[Place] = []
    for row in rows:
        if row.passes:
            places.append((row.opened_at, row.request_id))
        if len(places) > limit:
            return Page(tuple(places[:limit]), places[limit - 1])
        if row.last:
            return Page(tuple(places), (row.opened_at, row.request_id))
    return Page(tuple(places))
