-- Roles belong to the whole cluster: another database may have made them, or be making them now.
do $$
declare
  name text;
begin
  foreach name in array array['hallmark_audit_owner', 'hallmark_audit_writer', 'hallmark_audit_reader',
                              'hallmark_audit_retention'] loop
    begin
      if to_regrole(name) is null then
        execute format('create role %I nologin', name);
      end if;
    exception when duplicate_object or unique_violation then null;
    end;
  end loop;
  -- Who is no superuser must be a member to give tables away.
  if not (select rolsuper from pg_roles where rolname = current_user) then
    execute format('grant hallmark_audit_owner to %I', current_user);
  end if;
end $$;

grant usage on schema audit to hallmark_audit_owner, hallmark_audit_writer, hallmark_audit_reader, hallmark_audit_retention;
grant usage, create on schema audit_part to hallmark_audit_owner;

do $$
declare
  relation regclass;
begin
  grant create on schema audit to hallmark_audit_owner;
  for relation in
    select c.oid from pg_class c where c.relnamespace = 'audit_part'::regnamespace and c.relkind in ('r', 'p')
    union all
    select format('audit.%I', name)::regclass from unnest(array['entry', 'node', 'finding', 'checkpoint', 'event',
      'tree_head', 'kafka_offset', 'retention_policy', 'hold', 'hold_release', 'minimum_index', 'pruned', 'pruned_entry', 'logged']) as name
  loop
    execute format('alter table %s owner to hallmark_audit_owner', relation);
  end loop;
  alter function audit.ensure_partition(timestamptz) owner to hallmark_audit_owner;
  alter function audit.drop_partition(text, bigint) owner to hallmark_audit_owner;
  alter function audit.judge_partitions(bigint) owner to hallmark_audit_owner;
  -- Functions that guard stay the property of who migrates: the owner of the tables cannot change them.
  revoke create on schema audit from hallmark_audit_owner;
end $$;

-- The writer appends; it reads of the log no more than its compare-and-set must.
grant insert on audit.entry, audit.node, audit.kafka_offset to hallmark_audit_writer;
grant select (id, size), update (size, root, frontier, at) on audit.tree_head to hallmark_audit_writer;
grant select (topic, partition, epoch, next, entries), update (next, entries)
  on audit.kafka_offset to hallmark_audit_writer;

revoke execute on function audit.ensure_partition(timestamptz), audit.drop_partition(text, bigint),
  audit.judge_partitions(bigint) from public;
grant execute on function audit.drop_partition(text, bigint) to hallmark_audit_retention;

-- Has the last word on what the service's own role may do; `kit.migrations` calls it after every migration.
create function audit.grant_service(service text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  name text;
begin
  grant select on all tables in schema audit to hallmark_audit_reader;
  execute format('grant execute on function audit.ensure_partition(timestamptz), audit.judge_partitions(bigint) to %I',
    service);
  if (select rolsuper from pg_roles where rolname = service) then
    return;
  end if;
  execute format('revoke insert, update, delete, truncate on audit.entry, audit.node, audit.tree_head, '
    'audit.kafka_offset, audit.pruned, audit.pruned_entry from %I', service);
  execute format('revoke update, delete, truncate on audit.finding, audit.checkpoint, audit.event, audit.retention_policy, '
    'audit.hold, audit.hold_release, audit.minimum_index from %I', service);
  -- It takes these roles on for one transaction (`set local role`), and inherits nothing of them.
  foreach name in array array['hallmark_audit_writer', 'hallmark_audit_retention'] loop
    if not pg_has_role(service, name, 'set') then
      begin
        execute format('grant %I to %I with inherit false, set true', name, service);
      exception when unique_violation or internal_error then  -- another database was faster
        if not pg_has_role(service, name, 'set') then
          raise;
        end if;
      end;
    end if;
  end loop;
end $$;
