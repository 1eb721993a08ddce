-- match_dead_letters: the dead letters that pass a filter; what is null lets all pass. p_unresolved: only those that were
-- neither redriven nor dropped.
-- A part of list_dead_letters and count_dead_letters: one select without rights of its own, so that the planner sees
-- through it to the indexes.
create or replace function fanfold.match_dead_letters(
    p_ids bigint[], p_topic text, p_group_id text, p_thread_id text, p_fan_out_id text, p_task_id text, p_codes text[],
    p_since timestamptz, p_until timestamptz, p_unresolved boolean)
returns setof fanfold.dead_letter
language sql stable
as $$
    select d.*
    from fanfold.dead_letter d
    where (p_ids is null or d.dead_letter_id = any (p_ids))
        and (p_topic is null or d.topic = p_topic)
        and (p_group_id is null or d.group_id = p_group_id)
        and (p_thread_id is null or d.thread_id = p_thread_id)
        and (p_fan_out_id is null or d.fan_out_id = p_fan_out_id)
        and (p_task_id is null or d.task_id = p_task_id)
        and (p_codes is null or d.code = any (p_codes))
        and (p_since is null or d.created_at >= p_since)
        and (p_until is null or d.created_at < p_until)
        and (not p_unresolved or d.resolved_at is null)
$$;
