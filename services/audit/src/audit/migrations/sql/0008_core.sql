create or replace function audit_guard.check_pruned() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  part regclass := to_regclass(format('audit_part.%I', new.partition));
  oldest timestamptz;
  newest timestamptz;
  minimum bigint;
  rules jsonb;
  rule jsonb;
  held record;
  found boolean;
  large bytea := '"detached":{';
  -- A row that only asks: no drop can refer to it, since it names no transaction.
  asks constant boolean := coalesce(new.transaction = 'asked', false);
begin
  if part is null or not exists (
    select from pg_inherits where inhrelid = part and inhparent = 'audit.entry'::regclass
  ) then
    raise exception 'there is no month %', new.partition using errcode = 'restrict_violation';
  end if;
  if new.partition >= 'entry_' || to_char(now() at time zone 'UTC', 'YYYY_MM') then
    raise exception 'the month of % is not over', new.partition using errcode = 'restrict_violation';
  end if;
  -- Nobody places a hold, or changes the policy, until this transaction ends. Who only asks keeps nobody waiting.
  if not asks then
    lock table audit.hold, audit.hold_release, audit.retention_policy, audit.minimum_index in share mode;
    execute format('lock table %s in share row exclusive mode', part);
  end if;
  execute format('select min("index"), max("index") + 1, min(recorded_at), max(recorded_at) from %s', part)
    into new.first, new.until, oldest, newest;
  if new.first is null then
    raise exception 'the month % holds nothing', new.partition using errcode = 'restrict_violation';
  end if;
  if exists (
    select from audit.entry where "index" < new.first
      and "index" >= coalesce((select max(p.until) from audit.pruned p), 0)
  ) then
    raise exception 'an older month than % is still there', new.partition using errcode = 'restrict_violation';
  end if;
  minimum := coalesce((select max("index") from audit.minimum_index), 0);
  if new.until > minimum then
    raise exception '% reaches beyond the minimum index %', new.partition, minimum using errcode = 'restrict_violation';
  end if;
  if new.until > new.checkpoint_size / 256 * 256 or not exists (select from audit.checkpoint where size = new.checkpoint_size) then
    raise exception 'no checkpoint of size % covers % with full bundles', new.checkpoint_size, new.partition
      using errcode = 'restrict_violation';
  end if;
  rules := (select p.rules from audit.retention_policy p order by sequence desc limit 1);
  if rules is null then
    raise exception 'nothing goes without a retention policy' using errcode = 'restrict_violation';
  end if;
  for rule in select jsonb_array_elements(rules) loop
    continue when newest <= now() - make_interval(days => (rule ->> 'days')::int);
    -- The type stands in the header of the leaf; of a large leaf only the store knows it.
    execute format('select exists (select from %s where recorded_at > now() - make_interval(days => $1) '
      'and ($2 = ''*'' or topic = $2) and ($3 = ''*'' or position($4 in leaf) > 0 or position($5 in leaf) > 0))', part)
      into found using (rule ->> 'days')::int, rule ->> 'topic', rule ->> 'type',
        convert_to(format('["ce_type","%s"]', rule ->> 'type'), 'UTF8'), large;
    if found then
      raise exception '% holds records that must be kept for % days (%, %)',
        new.partition, rule ->> 'days', rule ->> 'topic', rule ->> 'type' using errcode = 'restrict_violation';
    end if;
  end loop;
  for held in
    select * from audit.hold h where not exists (select from audit.hold_release r where r.id = h.id)
      and (h.since is null or h.since <= newest) and (h.until is null or h.until > oldest)
  loop
    execute format('select exists (select from %s where ($1 is null or recorded_at >= $1) '
      'and ($2 is null or recorded_at < $2) and (cardinality($3) = 0 or position($4 in leaf) > 0 '
      'or exists (select from unnest($3) as mark where position(mark in leaf) > 0)))', part)
      into found using held.since, held.until, held.marks, large;
    if found then
      raise exception '% is protected by the legal hold %', new.partition, held.id using errcode = 'restrict_violation';
    end if;
  end loop;
  new.minimum_index := minimum;
  new.at := now();
  if not asks then
    new.transaction := pg_current_xact_id()::text;
  end if;
  return new;
end $$;

-- As in 0007, but it only asks.
create or replace function audit.judge_partitions(size bigint)
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
        insert into audit.pruned (partition, checkpoint_size, transaction) values (name, size, 'asked');
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

-- As in 0007, but it says when PostgreSQL itself is another one.
create or replace function audit_guard.flaw() returns text language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  bad text;
  -- PostgreSQL spells conditions and views in words of its own, which may change with a new major version.
  upgraded text := (select format(' (PostgreSQL is %s, and was %s when the guards were accepted: compare, then '
    'select audit_guard.accept(...))', split_part(version(), ' ', 2), e.shape)
    from audit_guard.expected e where e.name = 'server_version'
    and split_part(e.shape, '.', 1) <> split_part(split_part(version(), ' ', 2), '.', 1));
begin
  select g.name into bad from audit_guard.guarded() g left join audit_guard.expected e on e.name = g.name
    where to_regclass(g.name) is null or e.shape is distinct from audit_guard.shape(to_regclass(g.name)) limit 1;
  if bad is not null then
    return format('%s is not as it was%s', bad, upgraded);
  end if;
  select i.inhrelid::regclass::text into bad
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    left join audit_guard.expected e on e.name = case when c.relname = 'entry_default' then 'default' else 'partition' end
    where i.inhparent = 'audit.entry'::regclass and (
      i.inhdetachpending or c.relnamespace <> 'audit_part'::regnamespace
      or e.shape is distinct from audit_guard.shape(c.oid)) limit 1;
  if bad is not null then
    return format('the partition %s is not guarded%s', bad, upgraded);
  end if;
  select p.name into bad from audit_guard.partition p where not p.dropped and not exists (
    select from pg_inherits where inhparent = 'audit.entry'::regclass
      and inhrelid = to_regclass(format('audit_part.%I', p.name))) limit 1;
  if bad is not null then
    return format('the partition %s is gone', bad);
  end if;
  return null;
end $$;

create or replace function audit_guard.accept(reason text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  delete from audit_guard.expected;
  insert into audit_guard.expected select name, audit_guard.shape(to_regclass(name)) from audit_guard.guarded();
  insert into audit_guard.expected
    select 'default', audit_guard.shape(to_regclass('audit_part.entry_default'))
    union all (
      select 'partition', audit_guard.shape(inhrelid) from pg_inherits
      where inhparent = 'audit.entry'::regclass and inhrelid <> 'audit_part.entry_default'::regclass
      order by inhrelid limit 1);
  insert into audit_guard.expected values ('server_version', split_part(version(), ' ', 2));
  insert into audit_guard.change (reason, shapes)
    select accept.reason, string_agg(name || E'\n' || shape, E'\n\n' order by name) from audit_guard.expected;
  perform audit_guard.check();
end $$;
