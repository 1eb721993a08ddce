-- check_tasks: before their handlers run, say which tasks of a batch need not: what they would do is known already.
--
-- Locks    none; commit_results decides again under the lock. A verdict other than null no longer changes for the
--          same run, because results and clocks never go back; a closed fan-out may be reopened, but for new runs only.
--          Null may be wrong: a task_id that another fan-out of its thread has stored is a conflict to the commit.
-- Args     fan-outs and tasks as in commit_results.
-- Returns  per task in input order: null (run it), or 'duplicate' | 'stale' | 'closed' | 'conflict'.
create or replace function fanfold.check_tasks(
    p_fan_out_id text[], p_fan_thread_id text[], p_fan_base jsonb[],
    p_fan integer[], p_task_id text[], p_index integer[], p_run integer[], p_arg_hash bigint[])
returns text[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off  -- as in commit_results
as $$
declare
    v_fresh boolean[];
begin
    -- Nearly always the fan-out of a new task is unknown, or nothing of it is stored, and then there is nothing to say
    -- about its tasks one by one.
    select coalesce(array_agg(
        (f.fan_out_id is null or f.remaining = f.size and f.run = 1 and f.completed_at is null and f.cancelled_at is null)
            and (t.clock is null or t.clock @> h.base or not fanfold.clock_makes_stale(t.clock, h.base))
        order by h.no), '{}')
    into v_fresh
    from unnest(p_fan_out_id, p_fan_thread_id, p_fan_base) with ordinality as h (fan_out_id, thread_id, base, no)
    left join fanfold.thread t on t.thread_id = h.thread_id
    left join fanfold.fan_out f on f.fan_out_id = h.fan_out_id;
    -- The others are looked up per task, not per fan-out and then joined: the planner takes every array for a short one,
    -- and the join would be a nested loop over both.
    return (
        select coalesce(array_agg(v.verdict order by r.no), '{}')
        from unnest(p_fan, p_task_id, p_index, p_run, p_arg_hash) with ordinality
            as r (fan, task_id, index, run, arg_hash, no)
        left join lateral (
            select case
                -- In the order in which the commit decides, or a task could be parked for a conflict that is only stale.
                when t.clock is not null and not t.clock @> p_fan_base[r.fan]
                    and fanfold.clock_makes_stale(t.clock, p_fan_base[r.fan]) then 'stale'
                when f.cancelled_at is not null then 'closed'
                when r.index < 0 and (f.completed_at is null or f.run <> r.run) then 'stale'
                when e.arg_hash <> r.arg_hash or e.fan_out_id <> p_fan_out_id[r.fan] or e.index <> r.index then 'conflict'
                when e.run >= r.run then 'duplicate'
                when r.index between 0 and f.size - 1 and e.task_id is null
                    and (f.completed_at is not null and (f.quorum is not null or f.remaining > 0)
                        or f.size - f.remaining - f.failed >= f.quorum)
                    then 'closed'
                end as verdict
            from (select) one
            left join fanfold.thread t on t.thread_id = p_fan_thread_id[r.fan]
            left join fanfold.fan_out f on f.fan_out_id = p_fan_out_id[r.fan]
            left join fanfold.result e on e.thread_id = p_fan_thread_id[r.fan] and e.task_id = r.task_id
            where r.index < 0 or not v_fresh[r.fan]) v on true);
end $$;
