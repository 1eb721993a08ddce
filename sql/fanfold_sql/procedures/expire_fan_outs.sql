-- expire_fan_outs: act on deadlines that have passed. A fan-out that is still open is completed with the results it has, or
-- fails, as its publisher chose; from then on what is missing is refused ('closed') and finished unrun. Any member may call
-- this at any time; the clock is that of the database.
--
-- Locks    the rows of the deadlines, skipping those that another call is taking; then the threads' advisory locks by key, so
--          that every commit is either counted before the deadline or refused after it.
-- Returns  the fan-outs that this call ended; folds: completed with what they have (their fold is in the outbox), not failed.
-- Effect   none on what is complete, cancelled, stale or was reopened: whoever reopens a fan-out waits for it.
-- Raises   ZF004  not READ COMMITTED, as in commit_results.
-- Retry    safe. Repeat it until it returns no row.
create or replace function fanfold.expire_fan_outs(p_limit integer)
returns table (fan_out_id text, folds boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids text[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'expire_fan_outs needs READ COMMITTED, not %', current_setting('transaction_isolation')
            using errcode = 'ZF004';
    end if;
    with due as (
        select d.fan_out_id from fanfold.deadline d
        where d.due_at <= now()
        order by d.due_at
        limit p_limit
        for update skip locked)
    select array_agg(due.fan_out_id) into v_ids from due;
    if v_ids is null then
        return;
    end if;
    perform pg_advisory_xact_lock(k.key)
    from (
        select distinct hashtextextended(f.thread_id, 4207) as key
        from fanfold.fan_out f where f.fan_out_id = any (v_ids) order by 1) k;
    return query
        with ended as (
            update fanfold.fan_out f
            set completed_at = case when f.on_deadline = 'fold' then clock_timestamp() end,
                cancelled_at = case when f.on_deadline is null then clock_timestamp() end,
                cancelled_by = case when f.on_deadline is null then 'deadline' end
            from fanfold.thread t
            where f.fan_out_id = any (v_ids) and t.thread_id = f.thread_id
                and f.completed_at is null and f.cancelled_at is null and f.run = 1
                and not fanfold.clock_makes_stale(t.clock, f.base)
            returning f.fan_out_id, f.run, f.fold, f.topic, f.completed_at is not null as folds),
        queued as (
            insert into fanfold.outbox (outbox_id, topic, fan_out_id, run) overriding system value
            select fanfold.next_outbox_id(), e.topic, e.fan_out_id, e.run
            from ended e where e.folds and e.fold is not null and e.topic is not null),
        dealt_with as (
            delete from fanfold.deadline d where d.fan_out_id = any (v_ids))
        select e.fan_out_id, e.folds from ended e order by e.fan_out_id;
end $$;
