-- What no query can see afterwards, written down by triggers in the transaction that did it: so it stands if, and only
-- if, that transaction does, and a failover takes both back.
create schema chaos;
create table chaos.seen (
    at timestamptz not null default clock_timestamp(),
    xid xid8 not null default pg_current_xact_id(),
    -- The guarantee that was broken; 0: a commit sent again after its first try had gone through, as it may be.
    guarantee integer not null,
    what text not null
);

create function chaos.finished(p_next_offset bigint, p_islands int8multirange) returns int8multirange
language sql immutable as $$
    select p_islands + int8multirange(int8range(null, coalesce(p_next_offset, 0)))
$$;

create function chaos.watch_progress() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    insert into chaos.seen (guarantee, what)
    select c.guarantee, format('%s-%s of %s: from epoch %s, seq %s, owner %s, finished %s %s to epoch %s, seq %s, owner %s, finished %s %s on %s',
        n.topic, n.partition, n.group_id, o.epoch, o.commit_seq, o.owner, o.next_offset, o.islands,
        n.epoch, n.commit_seq, n.owner, n.next_offset, n.islands, fanfold.timeline())
    from old_rows o
    join new_rows n using (progress_id)
    cross join lateral (values
        (6, n.epoch < o.epoch or n.commit_seq < o.commit_seq),
        -- Under one claim what is finished only grows. A commit that knows less than the row is one of another owner.
        (7, n.epoch = o.epoch and not chaos.finished(n.next_offset, n.islands) @> chaos.finished(o.next_offset, o.islands)),
        (7, n.commit_seq > o.commit_seq and (n.epoch <> o.epoch or n.owner is null or n.owner is distinct from o.owner)),
        (8, n.commit_seq > o.commit_seq and o.timeline <> fanfold.timeline())) as c (guarantee, broken)
    where c.broken;
    -- The whole commit finished nothing, and yet it locks threads: there were results in it, all known already.
    if (select bool_and(n.commit_seq > o.commit_seq and n.epoch = o.epoch and n.next_offset = o.next_offset and n.islands = o.islands)
        from old_rows o join new_rows n using (progress_id))
        and exists (select from pg_locks l where l.locktype = 'advisory' and l.pid = pg_backend_pid())
    then
        insert into chaos.seen (guarantee, what)
        select 0, string_agg(format('%s-%s seq %s at %s %s', n.topic, n.partition, n.commit_seq, n.next_offset, n.islands), ', ')
            || (select string_agg(l.objid::text || l.granted, ',') from pg_locks l where l.locktype = 'advisory' and l.pid = pg_backend_pid())
        from new_rows n;
    end if;
    return null;
end $$;
create trigger watch_progress after update on fanfold.partition_progress
referencing old table as old_rows new table as new_rows
for each statement execute function chaos.watch_progress();

create function chaos.watch_result() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    -- 'pending' is how a rerun that was asked for begins; its result is a new one.
    if tg_op = 'DELETE' or new.status <> 'pending' and new.run <= old.run and old.status <> 'pending' then
        insert into chaos.seen (guarantee, what)
        values (1, format('%s %s of run %s: a second effect (%s)', old.fan_out_id, old.task_id, old.run, tg_op));
    end if;
    return null;
end $$;
create trigger watch_result after update or delete on fanfold.result
for each row execute function chaos.watch_result();

create function chaos.watch_fan_out() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    if new.run = old.run and (new.remaining > old.remaining or old.completed_at is not null and new.completed_at is null) then
        insert into chaos.seen (guarantee, what)
        values (3, format('%s: remaining %s to %s, completed %s to %s', old.fan_out_id, old.remaining, new.remaining,
            old.completed_at, new.completed_at));
    end if;
    return null;
end $$;
create trigger watch_fan_out after update on fanfold.fan_out
for each row execute function chaos.watch_fan_out();
