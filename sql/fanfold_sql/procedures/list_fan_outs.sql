-- list_fan_outs: fan-outs with their progress, newest first.
--
-- Args     each filter may be null: ids, thread, state. p_limit: rows at most.
-- Returns  state: 'open' (waits for results), 'folding' (complete, its fold is not in yet), 'done', 'failed' (its fold
--          failed, or it ended: ended_by 'failures' or 'deadline'), 'stale' (its thread moved past its base before it was
--          done: it never will be), 'cancelled'. The fold's result is read with read_results: it may be large.
-- Plan     for these very filters: one for any filters would read the whole table for a single id.
create or replace function fanfold.list_fan_outs(
    p_fan_out_ids text[], p_thread_id text, p_state text, p_limit integer)
returns table (fan_out_id text, thread_id text, size integer, remaining integer, failed integer, run integer,
    base jsonb, fold text, quorum integer, max_failures integer, deadline_ms bigint, on_deadline text, topic text,
    state text, ended_by text, created_at timestamptz, completed_at timestamptz, folded_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    return query
        select l.*
        from (
            select f.fan_out_id, f.thread_id, f.size, f.remaining, f.failed, f.run, f.base, f.fold, f.quorum, f.max_failures,
                f.deadline_ms, f.on_deadline, f.topic, case
                    when f.cancelled_by = 'caller' then 'cancelled'
                    when f.cancelled_at is not null then 'failed'
                    when f.completed_at is not null and (f.fold is null or r.run = f.run) then
                        case when r.status = 'failed' then 'failed' else 'done' end
                    when not t.clock @> f.base and fanfold.clock_makes_stale(t.clock, f.base) then 'stale'
                    when f.completed_at is null then 'open'
                    else 'folding' end as state, nullif(f.cancelled_by, 'caller') as ended_by,
                f.created_at, f.completed_at, f.folded_at
            from fanfold.fan_out f
            join fanfold.thread t on t.thread_id = f.thread_id
            left join fanfold.result r on r.fan_out_id = f.fan_out_id and r.index = -1
            where (p_fan_out_ids is null or f.fan_out_id = any (p_fan_out_ids))
                and (p_thread_id is null or f.thread_id = p_thread_id)) l
        where p_state is null or l.state = p_state
        order by l.created_at desc, l.fan_out_id
        limit p_limit;
end $$;
