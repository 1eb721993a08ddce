-- Beside the stock saver's tables: the head of each (thread, namespace).
--
-- A trigger moves it, so that stock savers may write to the database at the same time (in a rolling upgrade, say): a head
-- that their checkpoints did not move would hide these from us.
create table if not exists {schema}.checkpoint_heads (
    thread_id text not null,
    checkpoint_ns text not null,
    checkpoint_id text not null,
    -- How many checkpoints were put so far: the namespace's component of the thread's vector clock.
    clock bigint not null,
    primary key (thread_id, checkpoint_ns)
) with (fillfactor = 50);

-- With its owner's rights: roles that may write to the stock saver's tables only still can.
create or replace function {schema}.checkpoint_becomes_head() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Ours hold it already. A stock saver's put waits here for one of ours, which has read the head and relies on it.
    perform pg_advisory_xact_lock(hashtextextended(new.thread_id, 4207));
    update {schema}.checkpoint_heads h
    set checkpoint_id = new.checkpoint_id, clock = h.clock + 1
    where h.thread_id = new.thread_id and h.checkpoint_ns = new.checkpoint_ns;
    if not found then
        insert into {schema}.checkpoint_heads (thread_id, checkpoint_ns, checkpoint_id, clock)
        select new.thread_id, new.checkpoint_ns, new.checkpoint_id, count(*)
        from {schema}.checkpoints c
        where c.thread_id = new.thread_id and c.checkpoint_ns = new.checkpoint_ns;
    end if;
    return null;
end $$;

revoke execute on function {schema}.checkpoint_becomes_head() from public;
