-- judge_dead_letters: where the tasks of parked records stand now, which decides what redriving them can do.
--
-- Locks    none: an answer that is to hold needs lock_dead_letters before it, in the same transaction.
-- Returns  one row per letter that there is
--            resolution    'redriven' | 'dropped', null: neither
--            newer_id      a later letter of the same task that is unresolved: the task died again
--            ended_by      why its fan-out takes no results: 'stale', 'caller', 'deadline'; null: it does, or would once it
--                          is reopened (one that ended by too many failures)
--            fan_out_run   null: its fan-out is not known (any more)
--            complete      whether the fan-out waits for no more results
--            refused       tasks that came, or will come, too late because it ended by too many failures: reopened, it waits
--                          for them
--            status, run, index, arg_hash   of the task's own result; null: it has none
create or replace function fanfold.judge_dead_letters(p_ids bigint[])
returns table (dead_letter_id bigint, resolution text, newer_id bigint, ended_by text, fan_out_run integer,
    complete boolean, refused integer, status text, run integer, index integer, arg_hash bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    return query
        select d.dead_letter_id, d.resolution,
            (select max(n.dead_letter_id) from fanfold.dead_letter n
             where n.fan_out_id = d.fan_out_id and n.task_id = d.task_id and n.thread_id = d.thread_id
                and n.dead_letter_id > d.dead_letter_id and n.resolved_at is null and n.code <> 'E_CONFLICT'),
            case
                when fanfold.clock_makes_stale(t.clock, f.base) then 'stale'
                when f.cancelled_by <> 'failures' then f.cancelled_by
                -- Completed with what there was: what is missing will not come any more. Its fold may run again.
                when f.completed_at is not null and f.remaining > 0 and r.index is distinct from -1
                    and (f.quorum is null or f.size - f.remaining - f.failed < f.quorum) then 'deadline' end,
            f.run, f.completed_at is not null, case when f.cancelled_by = 'failures' then f.remaining else 0 end,
            r.status, r.run, r.index, r.arg_hash
        from fanfold.dead_letter d
        left join fanfold.fan_out f on f.fan_out_id = d.fan_out_id and f.thread_id = d.thread_id
        left join fanfold.thread t on t.thread_id = f.thread_id
        left join fanfold.result r
            on r.thread_id = d.thread_id and r.task_id = d.task_id and r.fan_out_id = d.fan_out_id
        where d.dead_letter_id = any (p_ids)
        order by d.dead_letter_id;
end $$;
