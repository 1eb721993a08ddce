-- check_tasks: before their handlers run, say which tasks of a batch need not: what they would do is known already.
--
-- Locks    none; commit_results decides again under the lock. A verdict other than null can no longer change for the
--          same run, because results, clocks and closed fan-outs never go back.
-- Args     fan-outs and tasks as in commit_results.
-- Returns  per task in input order: null (run it), or 'duplicate' | 'stale' | 'closed' | 'conflict'.
create or replace function fanfold.check_tasks(
    p_fan_out_id text[], p_fan_thread_id text[], p_fan_base jsonb[],
    p_fan integer[], p_task_id text[], p_index integer[], p_run integer[], p_arg_hash bigint[])
returns text[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(case
        -- In the order in which the commit decides, or a task could be parked for a conflict that is only stale.
        when h.stale then 'stale'
        when r.index < 0 and (h.completed_at is null or h.run <> r.run) then 'stale'
        when e.arg_hash <> r.arg_hash or e.fan_out_id <> h.fan_out_id or e.index <> r.index then 'conflict'
        when e.run >= r.run then 'duplicate'
        when r.index >= 0 and e.task_id is null and h.quorum is not null and h.completed_at is not null then 'closed'
        end order by r.no), '{}')
    from unnest(p_fan, p_task_id, p_index, p_run, p_arg_hash) with ordinality as r (fan, task_id, index, run, arg_hash, no)
    join (
        select u.no, u.fan_out_id, u.thread_id, f.completed_at, f.run, f.quorum,
            fanfold.clock_makes_stale(t.clock, u.base) as stale
        from unnest(p_fan_out_id, p_fan_thread_id, p_fan_base) with ordinality as u (fan_out_id, thread_id, base, no)
        left join fanfold.thread t on t.thread_id = u.thread_id
        left join fanfold.fan_out f on f.fan_out_id = u.fan_out_id) h on h.no = r.fan
    left join fanfold.result e on e.thread_id = h.thread_id and e.task_id = r.task_id
$$;
