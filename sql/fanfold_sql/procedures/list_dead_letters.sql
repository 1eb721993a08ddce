-- list_dead_letters: parked records, oldest first, after a given one.
--
-- Args     the filters of match_dead_letters. p_with_bytes: with key, value and headers; without, those are null and a page
--          is small, whatever the records were.
-- Plan     for these very filters: a plan for any filters could use no index.
create or replace function fanfold.list_dead_letters(
    p_ids bigint[], p_topic text, p_group_id text, p_thread_id text, p_fan_out_id text, p_task_id text, p_codes text[],
    p_since timestamptz, p_until timestamptz, p_unresolved boolean, p_with_bytes boolean, p_after bigint, p_limit integer)
returns table (dead_letter_id bigint, group_id text, cluster_id text, topic text, topic_id text, partition integer,
    record_offset bigint, thread_id text, fan_out_id text, task_id text, code text, error text, value_bytes integer,
    key bytea, value bytea, headers bytea, created_at timestamptz, resolved_at timestamptz, resolution text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    return query
        select d.dead_letter_id, d.group_id, d.cluster_id, d.topic, d.topic_id, d.partition, d.record_offset, d.thread_id,
            d.fan_out_id, d.task_id, d.code, d.error, octet_length(d.value), case when p_with_bytes then d.key end,
            case when p_with_bytes then d.value end, case when p_with_bytes then d.headers end, d.created_at,
            d.resolved_at, d.resolution
        from fanfold.match_dead_letters(p_ids, p_topic, p_group_id, p_thread_id, p_fan_out_id, p_task_id, p_codes,
            p_since, p_until, p_unresolved) d
        where d.dead_letter_id > p_after
        order by d.dead_letter_id
        limit p_limit;
end $$;
