create trigger offset_gap_guard_rows before update or delete on audit.offset_gap
  for each row execute function audit.refuse_change();
create trigger offset_gap_guard_table before truncate on audit.offset_gap
  for each statement execute function audit.refuse_change();
alter table audit.offset_gap enable always trigger offset_gap_guard_rows;
alter table audit.offset_gap enable always trigger offset_gap_guard_table;

-- Only for the time of the change: the schema is not the owner's.
grant create on schema audit to hallmark_audit_owner;
alter table audit.offset_gap owner to hallmark_audit_owner;
revoke create on schema audit from hallmark_audit_owner;

create or replace function audit_guard.guarded() returns table (name text) language sql immutable
  set search_path = pg_catalog, pg_temp as $$
  select unnest(array['audit.entry', 'audit.node', 'audit.finding', 'audit.checkpoint', 'audit.event', 'audit.tree_head',
    'audit.kafka_offset', 'audit.offset_gap', 'audit.retention_policy', 'audit.hold', 'audit.hold_release',
    'audit.minimum_index', 'audit.pruned', 'audit.pruned_entry', 'audit.logged', 'audit_guard.change'])
$$;

-- As in 0007, and what the broker explained is only added to.
create or replace function audit.grant_service(service text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
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
    'audit.hold, audit.hold_release, audit.minimum_index, audit.offset_gap from %I', service);
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
