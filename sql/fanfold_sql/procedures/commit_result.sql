-- commit_result: commit_results for one result and no Kafka: for a script, an HTTP handler, a Temporal activity.
--
-- Args     p_payload: the result as msgpack (any bytes will do if you read it back yourself). p_topic: where to publish
--          the fold task; none: nobody folds but you. The rest as in commit_results.
-- Returns  outcome 'applied' | 'duplicate' | 'stale' | 'closed'; completed: this call completed the fan-out.
-- Raises   ZF003 conflict, ZF004 isolation. Retry safe.
create or replace function fanfold.commit_result(
    p_thread_id text, p_fan_out_id text, p_size integer, p_task_id text, p_index integer, p_payload bytea,
    p_base jsonb default '{}', p_fold text default null, p_quorum integer default null,
    p_deadline_ms bigint default null, p_topic text default null,
    p_run integer default 1, p_failed boolean default false, p_arg_hash bigint default 0,
    p_max_failures integer default null, p_on_deadline text default null,
    out outcome text, out completed boolean)
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(c.outcomes[1], 'applied'), cardinality(c.completed_fan_out_ids) > 0
    from fanfold.commit_results(
        null, '{}', '{}', '{}', '{}', '{}',
        array[p_fan_out_id], array[p_thread_id], array[p_size], array[p_base], array[p_fold],
        array[p_quorum], array[p_max_failures], array[p_deadline_ms], array[p_on_deadline], array[p_topic],
        array[1], array[p_task_id], array[p_index], array[p_run], array[p_failed], array[p_arg_hash], array[p_payload],
        '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
        '{}', '{}', '{}', '{}', '{}', '{}', 0) c
$$;
