-- renew_outbox: lease records for longer, to whoever has them: what they ask for is being done without publishing them.
-- Locks    their rows. What was acknowledged meanwhile stays gone. Retry safe.
create or replace function fanfold.renew_outbox(p_outbox_id bigint[], p_lease_ms integer)
returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    update fanfold.outbox o set due_at = now() + make_interval(secs => p_lease_ms / 1000.0)
    where o.outbox_id = any (p_outbox_id)
$$;
