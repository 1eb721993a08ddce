-- advance_thread: move a thread's clock to the least upper bound of itself and p_clock. What was derived from an older
-- base on a branch that moved is stale from the commit of this call on: this is how new work supersedes old.
--
-- Locks    the thread's advisory lock, so that every commit is either counted before or refused after.
-- Args     p_clock: {branch: counter}. Opens the thread if it is unknown.
-- Returns  the thread's clock.
-- Raises   ZF004  not READ COMMITTED, as in commit_results.
-- Retry    safe: a clock that already dominates p_clock does not move.
create or replace function fanfold.advance_thread(p_thread_id text, p_clock jsonb)
returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_clock jsonb;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'advance_thread needs READ COMMITTED, not %', current_setting('transaction_isolation')
            using errcode = 'ZF004';
    end if;
    perform pg_advisory_xact_lock(hashtextextended(p_thread_id, 4207));
    insert into fanfold.thread as t (thread_id, clock) values (p_thread_id, p_clock)
    on conflict (thread_id) do update set clock = t.clock || (
        select coalesce(jsonb_object_agg(n.key, n.value), '{}') from jsonb_each(excluded.clock) n
        where n.value::bigint > coalesce((t.clock ->> n.key)::bigint, 0))
    returning t.clock into v_clock;
    return v_clock;
end $$;
