-- list_dead_letters: parked records, oldest first, after a given one. The first filters may be null.
-- Planned for these very filters: a plan for any filters could use no index.
create or replace function fanfold.list_dead_letters(
    p_topic text, p_fan_out_id text, p_code text, p_after bigint, p_limit integer)
returns table (dead_letter_id bigint, group_id text, topic text, partition integer, record_offset bigint,
    thread_id text, fan_out_id text, task_id text, code text, error text, key bytea, value bytea, headers bytea,
    created_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    return query
        select d.dead_letter_id, d.group_id, d.topic, d.partition, d.record_offset, d.thread_id, d.fan_out_id, d.task_id,
            d.code, d.error, d.key, d.value, d.headers, d.created_at
        from fanfold.dead_letter d
        where (p_topic is null or d.topic = p_topic) and (p_fan_out_id is null or d.fan_out_id = p_fan_out_id)
            and (p_code is null or d.code = p_code) and d.dead_letter_id > p_after
        order by d.dead_letter_id
        limit p_limit;
end $$;
