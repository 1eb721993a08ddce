-- settle_results: say what became of each result of a batch of which some were not simply new, and store the rest:
-- higher runs over lower ones, and folds. Only those are looked at if all that the caller tried to insert is stored: a
-- fold is in nearly every batch, and the others in it would cost more to look at than to store.
--
-- Locks    none of its own: the caller holds the threads' advisory locks.
-- Args     fan-outs and results as in commit_results; p_new_*: the rows the caller has just inserted; null: all it tried.
-- Returns  outcomes  'applied' | 'duplicate' | 'stale' | 'closed', or 'conflict': then the caller raises and nothing stands
--          count_*   by how much the countdown and the failures of a fan-out move, one entry per replaced result
create or replace function fanfold.settle_results(
    p_fan_out_id text[], p_fan_thread_id text[], p_fan_size integer[], p_state "char"[],
    p_fan integer[], p_task_id text[], p_index integer[], p_run integer[], p_failed boolean[], p_arg_hash bigint[],
    p_payload bytea[], p_admit boolean[], p_new_thread_id text[], p_new_task_id text[],
    out outcomes text[], out count_fan_out_ids text[], out count_new integer[], out count_failed integer[])
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_no bigint[];
    v_outcome text[];
begin
    with given as (
        select u.*, u.tried and row_number() over (partition by u.thread_id, u.task_id, u.tried order by u.no) = 1 as first
        from (
            -- tried: what the caller tried to insert, in this order; so the first of a task is the one it did.
            select r.*, p_fan_thread_id[r.fan] as thread_id, p_fan_out_id[r.fan] as fan_out_id, p_state[r.fan] as state,
                p_state[r.fan] in ('k', 'n') and r.index >= 0 and r.index < p_fan_size[r.fan]
                    and (p_admit is null or p_admit[r.no]) as tried
            from unnest(p_fan, p_task_id, p_index, p_run, p_failed, p_arg_hash, p_payload) with ordinality
                as r (fan, task_id, index, run, failed, arg_hash, payload, no)) u
        where not u.tried or p_new_task_id is not null),
    judged as (
        select g.*, e.status as old_status, case
            when g.state = 's' then 'stale'
            when g.state = 'c' then 'closed'
            when g.state = 'x' or g.index not between -1 and p_fan_size[g.fan] - 1 then 'conflict'
            -- A fold is welcome once its fan-out is complete, for that run. One that comes earlier was published by a
            -- database that has since gone back (failover): the real one follows.
            when g.index < 0 and (f.completed_at is null or f.run <> g.run) then 'stale'
            when e.task_id is null and g.index < 0 and o.task_id is null then 'fold'
            when e.task_id is null and g.index >= 0 and not p_admit[g.no] then 'closed'
            when e.task_id is null then 'conflict'  -- another task_id holds this index of the fan-out
            when e.fan_out_id <> g.fan_out_id or e.index <> g.index or e.arg_hash <> g.arg_hash then 'conflict'
            -- A hashed subplan; joined, it would be a nested loop, because the planner takes every array for a short one.
            when g.first and (g.thread_id, g.task_id) in (
                select n.thread_id, n.task_id from unnest(p_new_thread_id, p_new_task_id) as n (thread_id, task_id))
                then 'applied'
            when g.run > e.run then 'replace'
            else 'duplicate' end as verdict
        from given g
        left join fanfold.fan_out f on f.fan_out_id = g.fan_out_id
        left join fanfold.result e on e.thread_id = g.thread_id and e.task_id = g.task_id
        left join fanfold.result o on g.index < 0 and o.fan_out_id = g.fan_out_id and o.index = g.index),
    compared as (
        -- Two folds of one fan-out in one batch have to be the same, like any two results under one index.
        select j.thread_id, j.fan_out_id, j.task_id, j.index, j.run, j.failed, j.arg_hash, j.payload, j.no, j.old_status,
            case
                when j.verdict = 'fold' and (j.task_id, j.arg_hash) <> (
                    first_value(j.task_id) over w, first_value(j.arg_hash) over w) then 'conflict'
                else j.verdict end as verdict
        from judged j window w as (partition by j.fan_out_id, j.verdict order by j.no)),
    ranked as materialized (
        -- Of several runs of one task in one batch the highest is the last writer.
        select c.*, row_number() over (partition by c.thread_id, c.task_id, c.verdict order by c.run desc, c.no) as rank
        from compared c),
    replaced as (
        update fanfold.result t
        set run = r.run, status = case when r.failed then 'failed' else 'done' end, payload = r.payload,
            committed_at = now()
        from ranked r
        where r.verdict = 'replace' and r.rank = 1 and t.thread_id = r.thread_id and t.task_id = r.task_id),
    folded as (
        insert into fanfold.result (thread_id, task_id, fan_out_id, index, run, status, arg_hash, payload)
        select r.thread_id, r.task_id, r.fan_out_id, r.index, r.run, case when r.failed then 'failed' else 'done' end,
            r.arg_hash, r.payload
        from ranked r where r.verdict = 'fold' and r.rank = 1),
    marked as (
        update fanfold.fan_out f set folded_at = clock_timestamp()
        from ranked r
        where r.verdict in ('fold', 'replace') and r.rank = 1 and r.index < 0 and f.fan_out_id = r.fan_out_id)
    select
        coalesce(array_agg(r.no order by r.no), '{}'),
        coalesce(array_agg(case
            when r.verdict not in ('replace', 'fold') then r.verdict
            when r.rank = 1 then 'applied'
            else 'duplicate' end order by r.no), '{}'),
        coalesce(array_agg(r.fan_out_id order by r.no) filter (where r.verdict = 'replace' and r.rank = 1 and r.index >= 0), '{}'),
        coalesce(array_agg((r.old_status = 'pending')::integer order by r.no) filter (where r.verdict = 'replace' and r.rank = 1 and r.index >= 0), '{}'),
        coalesce(array_agg(r.failed::integer - (r.old_status = 'failed')::integer order by r.no) filter (where r.verdict = 'replace' and r.rank = 1 and r.index >= 0), '{}')
    into v_no, v_outcome, count_fan_out_ids, count_new, count_failed
    from ranked r;
    outcomes := array_fill('applied'::text, array[cardinality(p_task_id)]);
    for i in 1 .. cardinality(v_no) loop
        outcomes[v_no[i]] := v_outcome[i];
    end loop;
end $$;
