-- advance_clocks: move each thread's clock to the least upper bound of itself and the bases of this batch.
--
-- Locks    none of its own: the caller holds the threads' advisory locks.
-- Args     one entry per fan-out; p_state as in commit_results ('k' known, 'n' new; others are left alone).
-- Returns  the states, with 's' where an earlier fan-out of this very batch has made a later one stale.
-- Retry    safe: a clock that already dominates a base does not move.
create or replace function fanfold.advance_clocks(p_thread_id text[], p_base jsonb[], p_state "char"[])
returns "char"[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_state "char"[] := p_state;
    v_clock jsonb;
begin
    if exists (
        select from (
            select distinct h.thread_id, h.base
            from unnest(p_thread_id, p_base, p_state) as h (thread_id, base, state)
            where h.state in ('k', 'n')) d
        group by d.thread_id having count(*) > 1) then
        -- Two bases of one thread in one batch: only taking them one after another, in the order they were given,
        -- equals some order of single commits.
        for v_no in 1 .. cardinality(p_thread_id) loop
            continue when v_state[v_no] not in ('k', 'n');
            select t.clock into v_clock from fanfold.thread t where t.thread_id = p_thread_id[v_no];
            if fanfold.clock_makes_stale(v_clock, p_base[v_no]) then
                v_state[v_no] := 's';
            else
                insert into fanfold.thread as t (thread_id, clock) values (p_thread_id[v_no], p_base[v_no])
                on conflict (thread_id) do update set clock = t.clock || excluded.clock
                where not t.clock @> excluded.clock;
            end if;
        end loop;
    else
        -- None is stale, so every counter of a base is at least the thread's: || is their maximum.
        insert into fanfold.thread as t (thread_id, clock)
        select distinct h.thread_id, h.base
        from unnest(p_thread_id, p_base, p_state) as h (thread_id, base, state)
        where h.state in ('k', 'n')
        on conflict (thread_id) do update set clock = t.clock || excluded.clock
        where not t.clock @> excluded.clock;
    end if;
    return v_state;
end $$;
