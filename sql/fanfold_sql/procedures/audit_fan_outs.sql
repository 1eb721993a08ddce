-- audit_fan_outs: fan-outs with all that can be counted about them, in one snapshot, for an audit.
--
-- Locks    none. Reads every result of the fan-outs, without payloads: ask for few wide ones at a time.
-- Returns  one row per fan-out that there is:
--            ended_by      why it takes no results: 'stale', 'caller', 'failures', 'deadline'; null: it does
--            done, failed_results, pending   results of its tasks by status
--            misplaced     results beyond its size, or under another thread
--            indexes       those of its tasks' results, as an int4multirange
--            fold_run      of the fold's result; null: it has none
--            folds_queued  fold tasks of its run in the outbox
create or replace function fanfold.audit_fan_outs(p_fan_out_ids text[])
returns table (fan_out_id text, thread_id text, size integer, remaining integer, failed integer, run integer, base jsonb,
    fold text, quorum integer, max_failures integer, deadline_ms bigint, on_deadline text, topic text, complete boolean,
    ended_by text, done integer, failed_results integer, pending integer, misplaced integer, indexes text,
    fold_run integer, folds_queued integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return query
        select f.fan_out_id, f.thread_id, f.size, f.remaining, f.failed, f.run, f.base, f.fold, f.quorum, f.max_failures,
            f.deadline_ms, f.on_deadline, f.topic, f.completed_at is not null, case
                when f.cancelled_by is not null then f.cancelled_by
                when fanfold.clock_makes_stale(t.clock, f.base) then 'stale' end,
            r.done, r.failed, r.pending, r.misplaced, r.indexes, r.fold_run, (
                select count(*)::integer from fanfold.outbox o where o.fan_out_id = f.fan_out_id and o.run = f.run)
        from fanfold.fan_out f
        left join fanfold.thread t on t.thread_id = f.thread_id
        cross join lateral (
            select (count(*) filter (where e.index >= 0 and e.status = 'done'))::integer as done,
                (count(*) filter (where e.index >= 0 and e.status = 'failed'))::integer as failed,
                (count(*) filter (where e.index >= 0 and e.status = 'pending'))::integer as pending,
                (count(*) filter (where e.index >= f.size or e.thread_id <> f.thread_id))::integer as misplaced,
                coalesce(range_agg(int4range(e.index, e.index + 1)) filter (where e.index >= 0), '{}')::text as indexes,
                max(e.run) filter (where e.index = -1) as fold_run
            from fanfold.result e where e.fan_out_id = f.fan_out_id) r
        where f.fan_out_id = any (p_fan_out_ids)
        order by f.fan_out_id;
end $$;
