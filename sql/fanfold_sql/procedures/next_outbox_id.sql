-- next_outbox_id: the id of a new outbox row: milliseconds since 2025, then 22 bits of the table's sequence.
-- After a failover a sequence alone gives numbers out again, and a relay of before, which goes on, would acknowledge away
-- rows of after that nobody has published. Ascending while the clock is, so that neighbours in time are in the index.
-- Not callable by the worker: a part of the procedures that write to the outbox.
create or replace function fanfold.next_outbox_id()
returns bigint
language sql volatile
as $$
    select (((extract(epoch from pg_catalog.clock_timestamp()) * 1000)::bigint - 1735689600000) << 22)
        | (pg_catalog.nextval('fanfold.outbox_outbox_id_seq') & 4194303)
$$;
