-- enqueue: write records to the outbox inside the caller's transaction: published if, and only after, it commits.
-- Args parallel arrays; p_delay_ms: not before so long from now. Returns nothing. Retry: publishes twice, harmlessly.
create or replace function fanfold.enqueue(
    p_topic text[], p_key bytea[], p_value bytea[], p_headers bytea[], p_delay_ms integer[])
returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into fanfold.outbox (outbox_id, topic, key, value, headers, due_at) overriding system value
    select fanfold.next_outbox_id(), o.topic, o.key, o.value, o.headers, now() + make_interval(secs => o.delay_ms / 1000.0)
    from unnest(p_topic, p_key, p_value, p_headers, p_delay_ms) as o (topic, key, value, headers, delay_ms)
$$;
