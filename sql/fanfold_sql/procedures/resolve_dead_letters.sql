-- resolve_dead_letters: mark parked records as 'redriven' or 'dropped'. Their rows stay until they are pruned.
--
-- Locks    the rows, in the order of their ids. A redrive marks them in the transaction that queues their records.
-- Returns  those that were unresolved until now. Retry: safe, and returns none.
create or replace function fanfold.resolve_dead_letters(p_ids bigint[], p_resolution text)
returns bigint[]
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    with held as materialized (
        select d.dead_letter_id from fanfold.dead_letter d
        where d.dead_letter_id = any (p_ids) and d.resolved_at is null
        order by d.dead_letter_id
        for update),
    resolved as (
        update fanfold.dead_letter d set resolved_at = now(), resolution = p_resolution
        from held where d.dead_letter_id = held.dead_letter_id
        returning d.dead_letter_id)
    select coalesce(array_agg(r.dead_letter_id order by r.dead_letter_id), '{}') from resolved r
$$;
