-- cancel_thread: end everything a thread has open, and make stale what was derived from its clock but has not arrived.
--
-- Locks    the thread's advisory lock.
-- Effect   every branch of its clock moves on by one; every fan-out that is not done is cancelled, as by cancel_fan_out.
--          Not reached: a fan-out of which nothing is in yet, if its base names no branch that the clock has. Cancel that
--          one by its id.
-- Returns  the new clock (null: the thread is unknown, nothing changed) and the fan-outs that this call cancelled.
-- Raises   ZF004  not READ COMMITTED, as in commit_results.
-- Retry    safe: the clock moves on once more and nothing else is left to cancel.
create or replace function fanfold.cancel_thread(p_thread_id text, out clock jsonb, out fan_out_ids text[])
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'cancel_thread needs READ COMMITTED, not %', current_setting('transaction_isolation')
            using errcode = 'ZF004';
    end if;
    perform pg_advisory_xact_lock(hashtextextended(p_thread_id, 4207));
    update fanfold.thread t
    set clock = (select coalesce(jsonb_object_agg(n.key, least(n.value::bigint, 9223372036854775806) + 1), '{}') from jsonb_each(t.clock) n)
    where t.thread_id = p_thread_id
    returning t.clock into clock;
    with cancelled as (
        update fanfold.fan_out f set cancelled_at = clock_timestamp(), cancelled_by = 'caller'
        where f.thread_id = p_thread_id and f.cancelled_at is null
            and (f.completed_at is null or f.fold is not null and f.folded_at is null)
        returning f.fan_out_id)
    select coalesce(array_agg(c.fan_out_id order by c.fan_out_id), '{}') into fan_out_ids from cancelled c;
end $$;
