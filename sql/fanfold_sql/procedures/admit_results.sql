-- admit_results: which results of a batch their fan-outs still take. Those with a quorum refuse what is beyond it, those
-- that were completed by their deadline everything new.
--
-- Locks    none of its own: the caller holds the threads' advisory locks, so two batches cannot both take the last place.
-- Args     fan-outs by id and thread; results as in commit_results.
-- Returns  per result: false where the fan-out is complete, or has its quorum already (it was reopened and waits for
--          its reruns only), or where earlier tasks of this batch fill it.
--          What counts is how a task stands after the batch, so that nothing is refused that the fan-out then waits for: a
--          task whose last writer here failed takes no place, a stored success that is taken back leaves its own.
create or replace function fanfold.admit_results(
    p_fan_out_id text[], p_fan_thread_id text[], p_fan integer[], p_task_id text[], p_index integer[], p_run integer[],
    p_failed boolean[])
returns boolean[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select array_agg(
        case
            -- A complete fan-out that lacks nothing refuses nothing: what comes is known, or contradicts it.
            when a.completed_at is not null then a.quorum is null and a.remaining = 0
            else a.quorum is null or a.index < 0 or greatest(a.place, 1) <= a.quorum - a.succeeded + a.taken_back
        end order by a.no)
    from (
        -- A task's place is the number of tasks up to its first result that end as new successes; 0: it takes none.
        select t.no, t.index, t.quorum, t.remaining, t.completed_at, t.succeeded,
            case when t.ends_failed then 0 else count(*) filter (where t.nth = 1 and not t.ends_failed and t.old_status is null)
                over (partition by t.fan order by t.first_no) end as place,
            count(*) filter (where t.nth = 1 and t.ends_failed and t.old_status = 'done' and t.last_run > t.old_run)
                over (partition by t.fan) as taken_back
        from (
            select r.*, f.quorum, f.remaining, f.completed_at, f.size - f.remaining - f.failed as succeeded, e.run as old_run,
                -- A fold is no task, so it neither takes a place nor leaves one.
                case when r.index < 0 then 'fold' else e.status end as old_status
            from (
                select u.*, row_number() over arrival as nth, min(u.no) over task as first_no, max(u.run) over task as last_run,
                    first_value(u.failed) over writing as ends_failed
                from unnest(p_fan, p_task_id, p_index, p_run, p_failed) with ordinality
                    as u (fan, task_id, index, run, failed, no)
                window task as (partition by u.fan, u.task_id), arrival as (task order by u.no),
                    writing as (task order by u.run desc, u.no)) r
            left join fanfold.fan_out f on f.fan_out_id = p_fan_out_id[r.fan]
            left join fanfold.result e on e.thread_id = p_fan_thread_id[r.fan] and e.task_id = r.task_id) t) a
$$;
