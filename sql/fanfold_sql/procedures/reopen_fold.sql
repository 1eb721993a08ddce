-- reopen_fold: queue the fold of a complete fan-out once more, under a new run, because the last one failed. The results
-- it reads are as they were.
--
-- Locks    the thread's advisory lock.
-- Returns  the new run; null if there is nothing to fold again: the fan-out is unknown, waits for results (its fold follows
--          by itself), takes none any more, or has a fold that did not fail.
create or replace function fanfold.reopen_fold(p_fan_out_id text)
returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_thread_id text;
    v_run integer;
    v_topic text;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'reopen_fold needs READ COMMITTED, not %', current_setting('transaction_isolation')
            using errcode = 'ZF004';
    end if;
    select f.thread_id into v_thread_id from fanfold.fan_out f where f.fan_out_id = p_fan_out_id;
    perform pg_advisory_xact_lock(hashtextextended(v_thread_id, 4207));
    -- Complete from now on: it is this fold that whoever looks for one that is late has to wait for.
    update fanfold.fan_out f set run = f.run + 1, completed_at = clock_timestamp(), folded_at = null
    from fanfold.result r, fanfold.thread t
    where f.fan_out_id = p_fan_out_id and f.completed_at is not null and f.cancelled_at is null and f.topic is not null
        and r.fan_out_id = f.fan_out_id and r.index = -1 and r.run = f.run and r.status = 'failed'
        and t.thread_id = f.thread_id and not fanfold.clock_makes_stale(t.clock, f.base)
    returning f.run, f.topic into v_run, v_topic;
    if found then
        insert into fanfold.outbox (outbox_id, topic, fan_out_id, run) overriding system value
        values (fanfold.next_outbox_id(), v_topic, p_fan_out_id, v_run);
    end if;
    return v_run;
end $$;
