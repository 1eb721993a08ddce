-- list_topic_fan_outs: the fan-outs that were fed from a topic, by id, after a given one; at most p_limit.
-- Args p_thread_id: only this thread's; null: all. Locks none.
create or replace function fanfold.list_topic_fan_outs(p_topic text, p_thread_id text, p_after text, p_limit integer)
returns setof text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select f.fan_out_id from fanfold.fan_out f
    where f.topic = p_topic and (p_thread_id is null or f.thread_id = p_thread_id) and f.fan_out_id > p_after
    order by f.fan_out_id
    limit p_limit
$$;
