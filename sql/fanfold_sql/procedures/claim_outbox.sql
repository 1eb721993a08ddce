-- claim_outbox: lease due records for publishing. Whoever does not acknowledge in time leaves them to another.
--
-- Locks    the rows taken, skipping those another relay is taking. A flag would do what due_at does here; reading
--          "outbox_id above the last" would miss a row whose transaction committed late.
-- Plan     for this very limit: for any limit the planner reckons with a tenth of the table, and reads all of it and all
--          fan-outs (measured: 300 ms at 100,000 rows waiting, against 1).
-- Returns  value null: make the fold task from fan_out_id, run and the columns after it.
create or replace function fanfold.claim_outbox(p_limit integer, p_lease_ms integer)
returns table (outbox_id bigint, topic text, key bytea, value bytea, headers bytea, fan_out_id text, run integer,
    thread_id text, size integer, base jsonb, fold text, quorum integer, max_failures integer, deadline_ms bigint, on_deadline text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    return query
        with due as (
            select o.outbox_id from fanfold.outbox o
            where o.due_at <= now()
            order by o.due_at, o.outbox_id
            limit p_limit
            for update skip locked),
        leased as (
            update fanfold.outbox o set due_at = now() + make_interval(secs => p_lease_ms / 1000.0)
            from due where o.outbox_id = due.outbox_id
            returning o.outbox_id, o.topic, o.key, o.value, o.headers, o.fan_out_id, o.run)
        select l.*, f.thread_id, f.size, f.base, f.fold, f.quorum, f.max_failures, f.deadline_ms, f.on_deadline
        from leased l left join fanfold.fan_out f on f.fan_out_id = l.fan_out_id
        order by l.outbox_id;
end $$;
