-- read_results: a page of a fan-out's results in index order; the fold's own result has index -1.
-- A task that is to run again is 'pending', without a payload.
-- Args p_after: index after which to go on (-1: from the first task; -2: with the fold). p_limit: rows at most.
create or replace function fanfold.read_results(p_fan_out_id text, p_after integer, p_limit integer)
returns table (index integer, task_id text, run integer, status text, payload bytea, committed_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select r.index, r.task_id, r.run, r.status, case when r.status = 'done' then r.payload end, r.committed_at
    from fanfold.result r
    where r.fan_out_id = p_fan_out_id and r.index > p_after
    order by r.index
    limit p_limit
$$;
