-- count_dead_letters: how many parked records pass the filters of match_dead_letters, by code, and the newest of each.
-- Planned for these very filters, like list_dead_letters.
create or replace function fanfold.count_dead_letters(
    p_ids bigint[], p_topic text, p_group_id text, p_thread_id text, p_fan_out_id text, p_task_id text, p_codes text[],
    p_since timestamptz, p_until timestamptz, p_unresolved boolean)
returns table (code text, letters bigint, newest_id bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    return query
        select d.code, count(*), max(d.dead_letter_id)
        from fanfold.match_dead_letters(p_ids, p_topic, p_group_id, p_thread_id, p_fan_out_id, p_task_id, p_codes,
            p_since, p_until, p_unresolved) d
        group by d.code
        order by count(*) desc, d.code;
end $$;
