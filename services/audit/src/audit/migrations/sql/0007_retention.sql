-- What may go, and what went. `audit_guard.check_pruned` is the only judge of it.
create trigger pruned_conditions before insert on audit.pruned
  for each row execute function audit_guard.check_pruned();
alter table audit.pruned enable always trigger pruned_conditions;
create trigger minimum_index_grows before insert on audit.minimum_index
  for each row execute function audit_guard.check_minimum();
alter table audit.minimum_index enable always trigger minimum_index_grows;

create or replace function audit.ensure_partition(at timestamptz) returns void language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  month timestamptz := date_trunc('month', at, 'UTC');
  name text := 'entry_' || to_char(month at time zone 'UTC', 'YYYY_MM');
begin
  if to_regclass('audit_part.' || name) is not null then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('audit.ensure_partition', 0));
  if to_regclass('audit_part.' || name) is not null then
    return;
  end if;
  -- All its guards are there before it is attached: an unguarded partition is refused.
  execute format('create table audit_part.%I (like audit.entry including defaults including constraints)', name);
  execute format('create trigger guard_table before truncate on audit_part.%I '
    'for each statement execute function audit.refuse_change()', name);
  execute format('alter table audit_part.%I enable always trigger guard_table', name);
  execute format('alter table audit.entry attach partition audit_part.%I for values from (%L) to (%L)',
    name, month, (month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
end $$;

-- Entries as they are: of pruned ones the bytes are in the object store only.
create view audit.logged as
  select "index", recorded_at, topic, partition, kafka_offset, leaf, leaf_hash from audit.entry
  union all select "index", recorded_at, topic, partition, kafka_offset, null, leaf_hash from audit.pruned_entry;

-- The one way in which entries leave the database. Its conditions are those of `audit.pruned`.
create function audit.drop_partition(name text, size bigint) returns void language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
begin
  insert into audit.pruned (partition, checkpoint_size) values (name, size);
  execute format('insert into audit.pruned_entry select "index", recorded_at, topic, partition, kafka_offset, leaf_hash '
    'from audit_part.%I', name);
  execute format('drop table audit_part.%I', name);
end $$;

-- What keeps each month, oldest first, as if the ones before it had gone: null, nothing does. Changes nothing.
create function audit.judge_partitions(size bigint)
  returns table (partition text, first bigint, until bigint, problem text) language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  said text[] := '{}';
  firsts bigint[] := '{}';
  untils bigint[] := '{}';
  found text[];
  name text;
  low bigint;
  high bigint;
begin
  found := array(select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'audit.entry'::regclass and c.relname <> 'entry_default' order by c.relname);
  begin
    foreach name in array found loop
      execute format('select min("index"), max("index") + 1 from audit_part.%I', name) into low, high;
      firsts := firsts || low;
      untils := untils || high;
      begin
        if high > coalesce((select max("index") from audit.minimum_index), 0) then
          insert into audit.minimum_index ("index") values (high);
        end if;
        insert into audit.pruned (partition, checkpoint_size) values (name, size);
        said := said || null::text;
      exception when restrict_violation then
        said := said || sqlerrm;
      end;
    end loop;
    raise exception 'judged' using errcode = 'AU001';
  exception when sqlstate 'AU001' then null;
  end;
  return query select * from unnest(found, firsts, untils, said);
end $$;

-- With a default partition PostgreSQL allows no DETACH CONCURRENTLY, which commits before an event trigger can refuse it.
create table audit_part.entry_default (like audit.entry including defaults including constraints,
  constraint no_such_month check (false));
create trigger guard_table before truncate on audit_part.entry_default
  for each statement execute function audit.refuse_change();
alter table audit_part.entry_default enable always trigger guard_table;
alter table audit.entry attach partition audit_part.entry_default default;
