-- admit_results: which results of a batch their fan-outs still take. Only fan-outs with a quorum refuse any.
--
-- Locks    none of its own: the caller holds the threads' advisory locks, so two batches cannot both take the last place.
-- Args     fan-outs by id and thread; results as in commit_results.
-- Returns  per result: false where the fan-out is complete, or where earlier successes of this batch complete it.
--          Refused is only what the fan-out can do without: a success that this very batch takes back (a higher run that
--          failed) leaves its place to another, or the fan-out might wait for ever for a result it was given.
create or replace function fanfold.admit_results(
    p_fan_out_id text[], p_fan_thread_id text[], p_fan integer[], p_task_id text[], p_index integer[], p_run integer[],
    p_failed boolean[])
returns boolean[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select array_agg(
        a.quorum is null or a.completed_at is null
            and (a.failed or a.index < 0 or a.nth_success <= a.quorum - a.succeeded + a.taken_back)
        order by a.no)
    from (
        select t.no, t.failed, t.index, t.quorum, t.completed_at, t.succeeded,
            count(*) filter (where not t.failed and t.index >= 0 and t.old_run is null and t.first)
                over (partition by t.fan order by t.no) as nth_success,
            count(*) filter (where t.failed and t.first_of_kind and t.run > t.success_run)
                over (partition by t.fan) as taken_back
        from (
            select r.*, f.quorum, f.completed_at, f.size - f.remaining - f.failed as succeeded, e.run as old_run,
                -- The run of a success that stands before this result is looked at.
                least(case when e.status = 'done' then e.run end, r.new_success_run) as success_run
            from (
                select u.*, row_number() over (partition by u.fan, u.task_id order by u.no) = 1 as first,
                    row_number() over (partition by u.fan, u.task_id, u.failed order by u.run desc, u.no) = 1 as first_of_kind,
                    min(u.run) filter (where not u.failed) over (partition by u.fan, u.task_id) as new_success_run
                from unnest(p_fan, p_task_id, p_index, p_run, p_failed) with ordinality
                    as u (fan, task_id, index, run, failed, no)) r
            left join fanfold.fan_out f on f.fan_out_id = p_fan_out_id[r.fan]
            left join fanfold.result e on e.thread_id = p_fan_thread_id[r.fan] and e.task_id = r.task_id) t) a
$$;
