-- The guard of the guards. This schema belongs to who migrates (a superuser), not to the owner of the tables.
create schema audit_guard;
revoke all on schema audit_guard from public;

create table audit_guard.expected (name text primary key, shape text not null);
create table audit_guard.partition (name text primary key, dropped boolean not null default false);
-- Every change of what is expected: who, when, why.
create table audit_guard.change (
  at timestamptz not null default now(), by text not null default session_user, reason text not null, shapes text not null
);
create trigger change_guard_rows before update or delete on audit_guard.change
  for each row execute function audit.refuse_change();
create trigger change_guard_table before truncate on audit_guard.change
  for each statement execute function audit.refuse_change();
alter table audit_guard.change enable always trigger change_guard_rows;
alter table audit_guard.change enable always trigger change_guard_table;

create function audit_guard.guarded() returns table (name text) language sql immutable
  set search_path = pg_catalog, pg_temp as $$
  select unnest(array['audit.entry', 'audit.node', 'audit.finding', 'audit.checkpoint', 'audit.event', 'audit.tree_head',
    'audit.kafka_offset', 'audit.retention_policy', 'audit.hold', 'audit.hold_release', 'audit.minimum_index',
    'audit.pruned', 'audit.pruned_entry', 'audit.logged', 'audit_guard.change'])
$$;

-- All that protects a table, in words: owner, columns, constraints, triggers with their functions' bodies, rules.
create function audit_guard.shape(relation oid) returns text language sql stable
  set search_path = pg_catalog, pg_temp as $$
  select concat_ws(E'\n',
    format('%s %s owner=%s rls=%s', c.relkind, c.relpersistence, c.relowner::regrole, c.relrowsecurity),
    (select string_agg(format('column %s %s %s %s%s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid)), E'\n' order by a.attname)
      from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    (select string_agg('constraint ' || d, E'\n' order by d) from (
      select pg_get_constraintdef(oid) as d from pg_constraint where conrelid = c.oid) constraints),
    (select string_agg(format('trigger %s %s %s (%s) when(%s) %s by %s %s', t.tgname, t.tgenabled, t.tgtype, t.tgattr,
        pg_get_expr(t.tgqual, t.tgrelid), p.oid::regprocedure, p.proowner::regrole, md5(p.prosrc)), E'\n' order by t.tgname)
      from pg_trigger t join pg_proc p on p.oid = t.tgfoid where t.tgrelid = c.oid and not t.tgisinternal),
    -- An expression in an index runs when somebody else plans a query.
    (select format('indexes with expressions: %s', count(*)) from pg_index
      where indrelid = c.oid and (indexprs is not null or indpred is not null)),
    (select string_agg('rule ' || r.rulename, E'\n' order by r.rulename) from pg_rewrite r where r.ev_class = c.oid),
    case c.relkind when 'v' then pg_get_viewdef(c.oid) end
  ) from pg_class c where c.oid = relation
$$;

-- What is wrong now; null when nothing is.
create function audit_guard.flaw() returns text language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  bad text;
begin
  select g.name into bad from audit_guard.guarded() g left join audit_guard.expected e on e.name = g.name
    where to_regclass(g.name) is null or e.shape is distinct from audit_guard.shape(to_regclass(g.name)) limit 1;
  if bad is not null then
    return format('%s is not as it was', bad);
  end if;
  select i.inhrelid::regclass::text into bad
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    left join audit_guard.expected e on e.name = case when c.relname = 'entry_default' then 'default' else 'partition' end
    where i.inhparent = 'audit.entry'::regclass and (
      i.inhdetachpending or c.relnamespace <> 'audit_part'::regnamespace
      or e.shape is distinct from audit_guard.shape(c.oid)) limit 1;
  if bad is not null then
    return format('the partition %s is not guarded', bad);
  end if;
  select p.name into bad from audit_guard.partition p where not p.dropped and not exists (
    select from pg_inherits where inhparent = 'audit.entry'::regclass
      and inhrelid = to_regclass(format('audit_part.%I', p.name))) limit 1;
  if bad is not null then
    return format('the partition %s is gone', bad);
  end if;
  return null;
end $$;

-- Books new partitions and dropped ones that may go, and raises when anything else is not as it was.
create function audit_guard.check() returns void language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  bad text;
begin
  if to_regclass('audit.entry') is not null and to_regclass('audit.pruned') is not null then
    update audit_guard.partition p set dropped = true
      where not dropped and to_regclass(format('audit_part.%I', p.name)) is null and exists (
        select from audit.pruned g where g.partition = p.name and g.transaction = pg_current_xact_id()::text);
    insert into audit_guard.partition (name)
      select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'audit.entry'::regclass
        and not exists (select from audit_guard.partition p where p.name = c.relname and not p.dropped);
  end if;
  bad := audit_guard.flaw();
  if bad is not null then
    raise exception 'audit data stays guarded: %', bad using errcode = 'restrict_violation',
      hint = 'A migration changes guarded tables within audit.guards.changed(); see that module.';
  end if;
end $$;

create function audit_guard.accept(reason text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  delete from audit_guard.expected;
  insert into audit_guard.expected select name, audit_guard.shape(to_regclass(name)) from audit_guard.guarded();
  insert into audit_guard.expected
    select 'default', audit_guard.shape(to_regclass('audit_part.entry_default'))
    union all (
      select 'partition', audit_guard.shape(inhrelid) from pg_inherits
      where inhparent = 'audit.entry'::regclass and inhrelid <> 'audit_part.entry_default'::regclass
      order by inhrelid limit 1);
  insert into audit_guard.change (reason, shapes)
    select accept.reason, string_agg(name || E'\n' || shape, E'\n\n' order by name) from audit_guard.expected;
  perform audit_guard.check();
end $$;

create function audit_guard.on_command() returns event_trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
begin
  if tg_tag in ('GRANT', 'REVOKE', 'COMMENT', 'ALTER DEFAULT PRIVILEGES') then
    return;
  end if;
  -- What others do in their own schemas is none of our business, unless one of ours has moved there.
  if not exists (
    select from pg_event_trigger_ddl_commands() c where c.schema_name is null
      or c.schema_name in ('audit', 'audit_part', 'audit_guard')
      or (c.classid = 'pg_class'::regclass and exists (
        select from pg_inherits where inhrelid = c.objid and inhparent = to_regclass('audit.entry')))
  ) and not exists (select from audit_guard.guarded() g where to_regclass(g.name) is null) then
    return;
  end if;
  perform audit_guard.check();
end $$;

create function audit_guard.on_drop() returns event_trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
begin
  if exists (
    select from pg_event_trigger_dropped_objects() d
    where d.schema_name is null or d.schema_name in ('audit', 'audit_part', 'audit_guard')
  ) then
    perform audit_guard.check();
  end if;
end $$;

create function audit_guard.on_rewrite() returns event_trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
begin
  if pg_event_trigger_table_rewrite_oid() in (
    select to_regclass(name) from audit_guard.guarded()
    union all select inhrelid from pg_inherits where inhparent = to_regclass('audit.entry')
  ) then
    raise exception 'audit data is not rewritten' using errcode = 'restrict_violation';
  end if;
end $$;

-- For whoever watches: what is missing of all this, by name. Empty: nothing.
create function audit.guards_missing() returns text[] language sql stable security definer
  set search_path = pg_catalog, pg_temp as $$
  select array(
    select name from unnest(array['audit_guard_command', 'audit_guard_drop', 'audit_guard_rewrite']) as name
    where not exists (select from pg_event_trigger where evtname = name and evtenabled = 'A')
    union all select audit_guard.flaw() where audit_guard.flaw() is not null)
$$;
