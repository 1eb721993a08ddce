-- prune: delete fan-outs that are done, cancelled, or stale and never will be done, with their results, and dead letters,
-- older than p_before; at most p_limit fan-outs and p_limit dead letters a call, so that no call holds its locks for
-- long. Call it again until it returns zeros.
--
-- Effect   a task of a pruned fan-out that is replayed runs again as if it were new: keep results for as long as the
--          topic keeps records.
create or replace function fanfold.prune(
    p_before timestamptz, p_limit integer, out fan_outs bigint, out results bigint, out threads bigint,
    out dead_letters bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids text[];
    v_threads text[];
begin
    fan_outs := 0;
    results := 0;
    threads := 0;
    select array_agg(f.fan_out_id), array_agg(distinct f.thread_id) into v_ids, v_threads
    from (
        select f.fan_out_id, f.thread_id from fanfold.fan_out f join fanfold.thread t on t.thread_id = f.thread_id
        where f.created_at < p_before and (
            f.completed_at < p_before and (f.fold is null or f.folded_at < p_before)
            or f.cancelled_at < p_before
            or fanfold.clock_makes_stale(t.clock, f.base)
                and (f.completed_at is null or f.fold is not null and f.folded_at is null))
        order by f.created_at limit p_limit) f;
    perform pg_advisory_xact_lock(k.key)
    from (select distinct hashtextextended(t, 4207) as key from unnest(v_threads) t order by 1) k;
    -- Reopened meanwhile: not finished any more.
    select array_agg(f.fan_out_id) into v_ids
    from fanfold.fan_out f join fanfold.thread t on t.thread_id = f.thread_id
    where f.fan_out_id = any (v_ids) and (
        f.completed_at < p_before and (f.fold is null or f.folded_at < p_before)
        or f.cancelled_at < p_before
        or fanfold.clock_makes_stale(t.clock, f.base)
            and (f.completed_at is null or f.fold is not null and f.folded_at is null));
    if v_ids is not null then
        -- A fold that a relay published without getting to acknowledge it could not be made again without its fan-out.
        delete from fanfold.outbox o where o.fan_out_id = any (v_ids);
        delete from fanfold.result r where r.fan_out_id = any (v_ids);
        get diagnostics results = row_count;
        delete from fanfold.fan_out f where f.fan_out_id = any (v_ids);
        get diagnostics fan_outs = row_count;
        delete from fanfold.thread t
        where t.thread_id = any (v_threads) and not exists (select from fanfold.fan_out f where f.thread_id = t.thread_id);
        get diagnostics threads = row_count;
    end if;
    delete from fanfold.dead_letter d where d.dead_letter_id in (
        -- Not those that are being redriven right now: whoever does that waits for threads, which we hold.
        select o.dead_letter_id from fanfold.dead_letter o where o.created_at < p_before order by o.created_at limit p_limit
        for update skip locked);
    get diagnostics dead_letters = row_count;
end $$;
