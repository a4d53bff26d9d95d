"""Four eyes: whether somebody who asked for a change, or made the version, approved it as well."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.paging import Ask, Document
from audit.queries import Place

# Names are compared without their capitals. Whoever is voted for, or known by an e-mail address, counts by these too.
_ENTERED = """
with entered as (
    select s.index, s.since as at, s.workspace, s.model, s.version, s.stage as target, s.kind, s.requested_by,
           s.approved_by, s.decision_id, s.transition_id, s.policy
    from audit.stage_interval s
    where s.decision_id is not null and s.kind <> 'superseded'
      and s.known_from < :size and (s.known_until is null or s.known_until >= :size)
    union all
    select a.index, a.since, a.workspace, a.model, a.version, '@' || a.alias, 'alias', a.requested_by,
           a.approved_by, a.decision_id, a.transition_id, a.policy
    from audit.alias_interval a
    where a.decision_id is not null and a.version is not null
      and a.known_from < :size and (a.known_until is null or a.known_until >= :size)
), people as (
    select e.*, r.index as registered_index, d.index as decided_index,
           array(
               select distinct x.name from (
                   select p->>'name' as name from jsonb_array_elements(e.approved_by) p
                   union all
                   select unnest(array[v->>'voter', v->>'on_behalf_of', v->>'email'])
                   from jsonb_array_elements(d.data->'decision'->'votes') v where v->>'choice' = 'approve'
               ) x where x.name is not null order by 1
           ) as approvers,
           array(
               select distinct x.name from (
                   select r.data->>'registered_by' as name
                   union all
                   select jsonb_array_elements_text(r.data->'content'->'lineage'->'committers')
               ) x where x.name is not null order by 1
           ) as authors,
           d.data->'decision'->>'break_glass' is not null as break_glass
    from entered e
    left join lateral (
        select f.index, f.data from audit.fact f join audit.timeline t on t.index = f.index
        where f.workspace = e.workspace and f.model = e.model and f.version = e.version and f.index < :size
          and f.type = 'hallmark.version.registered.v1' and t.problem is null and t.copy_of is null
        order by f.index limit 1
    ) r on true
    left join lateral (
        select f.index, f.data from audit.fact f join audit.timeline t on t.index = f.index
        where f.request = e.transition_id and f.type = 'hallmark.request.decided.v1' and f.index < :size
          and f.data->'decision'->>'decision_id' = e.decision_id and t.copy_of is null
        order by f.index limit 1
    ) d on true
), judged as (
    select p.*,
           array(select a from unnest(p.approvers) a where lower(a) = lower(p.requested_by)) as requester_approved,
           array(
               select a from unnest(p.approvers) a
               where lower(a) in (select lower(w) from unnest(p.authors) w)
           ) as author_approved
    from people p
)
select index, at, workspace, model, version, target, kind, requested_by, approved_by, decision_id, transition_id,
       policy, registered_index, decided_index, approvers, authors, coalesce(break_glass, false) as break_glass,
       requester_approved, author_approved, cardinality(approvers) = 0 as unapproved,
       cardinality(requester_approved) + cardinality(author_approved) > 0 as violation,
       case when cardinality(requester_approved) + cardinality(author_approved) > 0 then 0
            when cardinality(approvers) = 0 then 1 else 2 end as rank
from judged
"""


async def four_eyes(tx: AsyncConnection, place: Place, violations: bool, ask: Ask) -> Document:
    """Every entry into a gated stage, or of a protected alias: violations first, then those nobody approved."""
    begun = await paging.begin(tx, ask, (int, int))
    names, text = ARRAY(sa.Text), sa.Text
    judged = (
        sa.text(_ENTERED)
        .bindparams(size=begun.size)
        .columns(
            sa.column("index", sa.BigInteger),
            sa.column("at", sa.DateTime(timezone=True)),
            *(sa.column(name, text) for name in ("workspace", "model", "target", "kind", "requested_by")),
            sa.column("version", sa.Integer),
            sa.column("approved_by", sa.dialects.postgresql.JSONB),
            *(sa.column(name, text) for name in ("decision_id", "transition_id", "policy")),
            *(sa.column(name, sa.BigInteger) for name in ("registered_index", "decided_index")),
            *(sa.column(name, names) for name in ("approvers", "authors", "requester_approved", "author_approved")),
            *(sa.column(name, sa.Boolean) for name in ("break_glass", "unapproved", "violation")),
            sa.column("rank", sa.Integer),
        )
        .subquery("judged")
    )
    query = sa.select(judged).where(*place.on(judged))
    if violations:
        query = query.where(judged.c.violation)
    order = (judged.c.rank, judged.c.index)
    return await paging.read(tx, query, order, ("rank", "index"), begun, ask.limit, _without_rank)


def _without_rank(row: Document) -> Document:
    return {name: value for name, value in row.items() if name != "rank"}
