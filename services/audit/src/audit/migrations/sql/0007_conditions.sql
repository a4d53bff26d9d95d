create function audit_guard.check_minimum() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  present bigint := (select max("index") from audit.minimum_index);
begin
  if new.index <= coalesce(present, 0) then
    raise exception 'the minimum index only grows: it is %', coalesce(present, 0) using errcode = 'restrict_violation';
  end if;
  if new.index > coalesce((select max(size) from audit.checkpoint), 0) then
    raise exception 'the minimum index is beyond every checkpoint' using errcode = 'restrict_violation';
  end if;
  new.at := now();
  return new;
end $$;

-- Whether a month may go: judged by what is in guarded tables, whoever asks. Fills in the rest of the row.
create function audit_guard.check_pruned() returns trigger language plpgsql security definer
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
begin
  if part is null or not exists (
    select from pg_inherits where inhrelid = part and inhparent = 'audit.entry'::regclass
  ) then
    raise exception 'there is no month %', new.partition using errcode = 'restrict_violation';
  end if;
  if new.partition >= 'entry_' || to_char(now() at time zone 'UTC', 'YYYY_MM') then
    raise exception 'the month of % is not over', new.partition using errcode = 'restrict_violation';
  end if;
  -- Nobody places a hold, or changes the policy, until this transaction ends.
  lock table audit.hold, audit.hold_release, audit.retention_policy, audit.minimum_index in share mode;
  execute format('lock table %s in share row exclusive mode', part);
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
  new.transaction := pg_current_xact_id()::text;
  return new;
end $$;
