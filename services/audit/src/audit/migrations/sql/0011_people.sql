create schema if not exists people;

-- Every name that somebody has or had: a subject or an address. Rows are written once and never updated, so that no old
-- version of a row lies about; what changes is in `state`.
create table people.name (
  pseudonym text primary key check (pseudonym ~ '^p_[a-z2-7]{26}$'),
  folded text not null unique,
  written text not null,
  issuer text not null,
  salt bytea not null check (length(salt) = 32),
  first_seen timestamptz not null default now()
);
-- Statistics would keep samples of the names in pg_statistic.
alter table people.name alter folded set statistics 0, alter written set statistics 0;

-- `person`: it was the subject of a person's token. `announced`: the log has its commitment.
create table people.state (
  pseudonym text primary key references people.name on delete cascade,
  person boolean not null,
  last_seen timestamptz not null,
  announced boolean not null default false
);
create index state_to_announce on people.state (pseudonym) where not announced;

create table people.address (
  person text references people.name on delete cascade,
  address text references people.name on delete cascade,
  primary key (person, address)
);
create index address_of on people.address (address);

-- Pseudonyms of the erased. Whoever asks the vault chooses the pseudonyms, and must not bring one back.
create table people.gone (pseudonym text primary key);

-- The lock first, in a statement of its own, so that the next one sees the table as it then is: to whoever has looked
-- before, a table that is written anew is empty.
create function people.known(wanted text) returns text language plpgsql volatile security definer
  set search_path = pg_catalog, pg_temp as $$
begin
  lock table people.name in access share mode;
  return (select n.pseudonym from people.name n where n.folded = wanted);
end $$;

-- The pseudonym of a name, made (`fresh`, with `salt`) when there is none.
create function people.ensure(issued_by text, is_person boolean, name text, fold text, fresh text, salt bytea)
  returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  found text;
begin
  loop
    found := people.known(fold);
    exit when found is not null;
    if exists (select from people.gone g where g.pseudonym = fresh) then
      raise exception 'that pseudonym was somebody''s' using errcode = 'unique_violation';
    end if;
    insert into people.name (pseudonym, folded, written, issuer, salt)
      values (fresh, fold, name, issued_by, salt) on conflict (folded) do nothing;
  end loop;
  insert into people.state as s (pseudonym, person, last_seen) values (found, is_person, now())
    on conflict (pseudonym) do update set last_seen = now(), person = s.person or excluded.person
    where s.last_seen < now() - interval '1 minute' or (excluded.person and not s.person);
  return found;
end $$;

-- The pseudonyms of a caller's subject and, where there is one, address. Of a service account the subject is only looked
-- up: null, no person has that name.
create function people.meet(issued_by text, is_person boolean, names text[], folds text[], fresh text[], salts bytea[])
  returns text[] language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  subject text;
  address text;
begin
  if is_person then
    subject := people.ensure(issued_by, true, names[1], folds[1], fresh[1], salts[1]);
  else
    subject := people.known(folds[1]);
  end if;
  if cardinality(names) > 1 then
    address := people.ensure(issued_by, false, names[2], folds[2], fresh[2], salts[2]);
    if is_person and subject <> address then
      insert into people.address values (subject, address) on conflict do nothing;
    end if;
  end if;
  return array[subject, address];
end $$;

-- Lets nobody else read or write names in this transaction. Comes first in it, or two who erase wait for one another.
-- Whoever asks meanwhile waits behind it, so it gives up after a second.
create function people.shut() returns void language plpgsql security definer
  set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
begin
  lock table people.name in access exclusive mode;
end $$;

-- Forgets somebody, and the addresses that nobody else has. Gives the pseudonyms that now stand for nobody.
create function people.erase(wanted text) returns text[] language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  gone text[];
begin
  perform people.shut();
  gone := wanted || array(
    select a.address from people.address a where a.person = wanted
      and not exists (select from people.address o where o.address = a.address and o.person <> wanted)
      and not exists (select from people.state s where s.pseudonym = a.address and s.person)
    order by a.address);
  delete from people.name where pseudonym = wanted;
  if not found then
    return '{}';
  end if;
  delete from people.name where pseudonym = any (gone);
  insert into people.gone select unnest(gone);
  -- Writes the table and its indexes anew: a deleted row's bytes would stay in the old pages until something else
  -- is written over them.
  alter table people.name alter written type text using written || '';
  return gone;
end $$;

-- `keeper`: the audit service, which resolves, announces and erases. `caller`: the role that every service asks with.
-- Refused where the log names people already: somebody's name and their pseudonym would count as two people.
create function people.grant_vault(keeper text, caller text) returns void language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  if not has_schema_privilege(caller, 'people', 'usage') and not exists (select from people.name) and exists (
    select from audit.fact f where f.person !~ '^(p_[a-z2-7]{26}$|hallmark/)'
  ) then
    raise exception 'the log has names of people or service accounts: a vault of identities is on from the first event '
      'on, or never';
  end if;
  execute format('grant usage on schema people to %I, %I', keeper, caller);
  execute format('grant select on people.name, people.state, people.address to %I', keeper);
  execute format('grant update (announced) on people.state to %I', keeper);
  execute format('grant execute on function people.erase(text), people.shut(), people.known(text) to %I', keeper);
  execute format('grant execute on function people.known(text), '
    'people.ensure(text, boolean, text, text, text, bytea), '
    'people.meet(text, boolean, text[], text[], text[], bytea[]) to %I', caller);
end $$;

revoke execute on all functions in schema people from public;
grant usage, create on schema people to hallmark_audit_owner;
alter table people.name owner to hallmark_audit_owner;
alter table people.state owner to hallmark_audit_owner;
alter table people.address owner to hallmark_audit_owner;
alter table people.gone owner to hallmark_audit_owner;
alter function people.shut() owner to hallmark_audit_owner;
alter function people.known(text) owner to hallmark_audit_owner;
alter function people.ensure(text, boolean, text, text, text, bytea) owner to hallmark_audit_owner;
alter function people.meet(text, boolean, text[], text[], text[], bytea[]) owner to hallmark_audit_owner;
alter function people.erase(text) owner to hallmark_audit_owner;
revoke create on schema people from hallmark_audit_owner;
