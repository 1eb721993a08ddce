-- reopen_fan_out: let some tasks of a fan-out run again: their results wait for a higher run, and the fold with them.
--
-- Locks    the thread's advisory lock. Call it in one transaction with `enqueue` of the tasks at the run it returns, so
--          that a fan-out is never reopened without the tasks that close it again.
-- Args     p_task_ids: those that have no result yet are left alone; they count once they finish. So are all of them if
--          the thread moved past the fan-out's base or it was cancelled, by a caller or its deadline: their results would
--          be refused, and it would never close again. One that ended by too many failures goes on.
-- Effect   the fan-out has no deadline any more. Tasks that were skipped because it had ended do not come by themselves:
--          it waits until they are published again, too.
-- Returns  the run to give the tasks: the fan-out's own while it is open, the next one if it was complete; null if the
--          fan-out is unknown (then nothing ran yet and run 1 stands).
create or replace function fanfold.reopen_fan_out(p_fan_out_id text, p_task_ids text[])
returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_thread_id text;
    v_run integer;
    v_done integer;
    v_failed integer;
    v_refused boolean;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'reopen_fan_out needs READ COMMITTED, not %', current_setting('transaction_isolation')
            using errcode = 'ZF004';
    end if;
    select f.thread_id into v_thread_id from fanfold.fan_out f where f.fan_out_id = p_fan_out_id;
    if not found then
        return null;
    end if;
    perform pg_advisory_xact_lock(hashtextextended(v_thread_id, 4207));
    -- A run is never handed out twice for one task, or the second could not overwrite what the first left.
    select greatest(f.run + (f.completed_at is not null)::integer, coalesce((
        select max(r.run) + 1 from fanfold.result r
        where r.fan_out_id = p_fan_out_id and r.index >= 0 and r.status <> 'pending' and r.task_id = any (p_task_ids)), 0)),
        fanfold.clock_makes_stale(t.clock, f.base) or coalesce(f.cancelled_by, 'failures') <> 'failures'
    into v_run, v_refused
    from fanfold.fan_out f join fanfold.thread t on t.thread_id = f.thread_id
    where f.fan_out_id = p_fan_out_id;
    if v_refused then
        return v_run;
    end if;
    with old as (
        select r.thread_id, r.task_id, r.status from fanfold.result r
        where r.fan_out_id = p_fan_out_id and r.index >= 0 and r.status <> 'pending' and r.task_id = any (p_task_ids)),
    waiting as (
        update fanfold.result r set status = 'pending'
        from old where r.thread_id = old.thread_id and r.task_id = old.task_id)
    select count(*), count(*) filter (where old.status = 'failed') into v_done, v_failed from old;
    update fanfold.fan_out f
    set run = v_run, remaining = f.remaining + v_done, failed = f.failed - v_failed, completed_at = null,
        cancelled_at = null, cancelled_by = null,
        -- The fold of the new run is still to come, so nothing may be pruned before it.
        folded_at = null
    where f.fan_out_id = p_fan_out_id and v_done > 0;
    return v_run;
end $$;
