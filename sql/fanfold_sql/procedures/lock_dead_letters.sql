-- lock_dead_letters: begin to redrive: nobody else redrives or drops these letters, and nothing changes what
-- judge_dead_letters says of their tasks, until the transaction ends.
--
-- Locks    the rows, in the order of their ids; then one advisory lock per thread, in the order of their keys, as a
--          commit takes them. No one else locks a letter while holding a thread but prune, which waits for no letter.
create or replace function fanfold.lock_dead_letters(p_ids bigint[])
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'lock_dead_letters needs READ COMMITTED, not %', current_setting('transaction_isolation')
            using errcode = 'ZF004';
    end if;
    perform from fanfold.dead_letter d where d.dead_letter_id = any (p_ids) order by d.dead_letter_id for update;
    -- The thread of the fan-out, which is whom reopening it locks: a forged record may name another.
    perform pg_advisory_xact_lock(k.key)
    from (
        select distinct hashtextextended(t.thread_id, 4207) as key
        from fanfold.dead_letter d
        left join fanfold.fan_out f on f.fan_out_id = d.fan_out_id
        cross join lateral (values (d.thread_id), (f.thread_id)) as t (thread_id)
        where d.dead_letter_id = any (p_ids) and t.thread_id is not null
        order by 1) k;
end $$;
