-- ack_outbox: forget records that the broker has acknowledged. Retry safe.
create or replace function fanfold.ack_outbox(p_outbox_id bigint[])
returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    delete from fanfold.outbox o where o.outbox_id = any (p_outbox_id)
$$;
