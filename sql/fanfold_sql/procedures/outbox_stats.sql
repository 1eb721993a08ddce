-- outbox_stats: how many records wait in the outbox and for how long the oldest due one has (seconds; 0: none is due).
create or replace function fanfold.outbox_stats(out waiting bigint, out oldest_due_seconds double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select count(*), coalesce(extract(epoch from now() - min(o.due_at) filter (where o.due_at <= now())), 0)
    from fanfold.outbox o
$$;
