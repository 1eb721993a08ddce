-- audit_tasks: what the tables hold about records of a topic, for an audit. What is still to come of them, check_tasks says.
--
-- Locks    none.
-- Args     the topic by cluster and id; the groups whose dead letters count; per record its place, and what it says if it could
--          be decoded, else null.
-- Returns  one row per record, in input order:
--            status, run, committed_at   of the task's result; null: it has none
--            matches        whether that result is of this very task: the same fan-out, index and arg
--            holder         the other task_id that holds its index in the fan-out
--            letter_sha256  of key, value and headers of the dead letter of this very record; null: it has none
--            explained      whether there is a dead letter of this task, of whichever record, that says why it failed
create or replace function fanfold.audit_tasks(
    p_cluster_id text, p_topic_id text, p_groups text[], p_partition integer[], p_offset bigint[],
    p_thread_id text[], p_fan_out_id text[], p_task_id text[], p_index integer[], p_arg_hash bigint[])
returns table (status text, run integer, matches boolean, committed_at timestamptz, holder text, letter_sha256 bytea[],
    explained boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    -- Looked up per record, as in check_tasks: joined, it would be nested loops over arrays that the planner takes for short.
    return query
        select e.status, e.run,
            coalesce((e.fan_out_id, e.index, e.arg_hash) = (r.fan_out_id, r.index, r.arg_hash), false),
            e.committed_at, o.task_id, l.sha256, exists (
            select from fanfold.dead_letter d
            where d.fan_out_id = r.fan_out_id and d.task_id = r.task_id and d.thread_id = r.thread_id
                and d.code <> 'E_CONFLICT')
        from unnest(p_partition, p_offset, p_thread_id, p_fan_out_id, p_task_id, p_index, p_arg_hash)
            with ordinality as r (partition, record_offset, thread_id, fan_out_id, task_id, index, arg_hash, no)
        left join fanfold.result e on e.thread_id = r.thread_id and e.task_id = r.task_id
        left join fanfold.result o on o.fan_out_id = r.fan_out_id and o.index = r.index
            and (o.task_id <> r.task_id or o.thread_id <> r.thread_id)
        left join lateral (
            select array[sha256(d.key), sha256(d.value), sha256(d.headers)] as sha256
            from unnest(p_groups) g
            join fanfold.dead_letter d on d.group_id = g and d.cluster_id = p_cluster_id and d.topic_id = p_topic_id
                and d.partition = r.partition and d.record_offset = r.record_offset
            order by d.dead_letter_id desc
            limit 1) l on true
        order by r.no;
end $$;
