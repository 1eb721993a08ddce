-- cancel_fan_out: end a fan-out. From the commit of this call on, none of its results and no fold of it is taken ('closed'),
-- and members finish its queued tasks without running them. Results it has already stay readable. There is no way back.
--
-- Locks    the thread's advisory lock, so that every commit is either counted before the cancel or refused after it.
-- Args     p_thread_id: needed only for a fan-out of which no result is in yet; then it is cancelled before it begins.
-- Returns  'cancelled'  it is, now or since an earlier call
--          'done'       too late: it has its fold, or it is complete and has none. Nothing changed.
--          'unknown'    nobody has seen it and no thread was given. Nothing changed.
-- Raises   22023  p_thread_id is not the fan-out's thread.  ZF004  not READ COMMITTED, as in commit_results.
-- Retry    safe.
create or replace function fanfold.cancel_fan_out(p_fan_out_id text, p_thread_id text default null)
returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_thread_id text;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'cancel_fan_out needs READ COMMITTED, not %', current_setting('transaction_isolation')
            using errcode = 'ZF004';
    end if;
    v_thread_id := coalesce(p_thread_id, (select f.thread_id from fanfold.fan_out f where f.fan_out_id = p_fan_out_id));
    if v_thread_id is null then
        return 'unknown';
    end if;
    perform pg_advisory_xact_lock(hashtextextended(v_thread_id, 4207));
    -- The row stands in for a fan-out that is not open yet: its first result finds it cancelled.
    insert into fanfold.fan_out (fan_out_id, thread_id, size, remaining, base, cancelled_at, cancelled_by)
    values (p_fan_out_id, v_thread_id, 0, 0, '{}', clock_timestamp(), 'caller')
    on conflict do nothing;
    if found then
        insert into fanfold.thread (thread_id) values (v_thread_id) on conflict do nothing;
        return 'cancelled';
    end if;
    update fanfold.fan_out f set cancelled_at = coalesce(f.cancelled_at, clock_timestamp()), cancelled_by = 'caller'
    where f.fan_out_id = p_fan_out_id and f.thread_id = v_thread_id
        and (f.completed_at is null or f.fold is not null and f.folded_at is null);
    if found then
        return 'cancelled';
    end if;
    select f.thread_id into v_thread_id from fanfold.fan_out f where f.fan_out_id = p_fan_out_id;
    if v_thread_id <> p_thread_id then
        raise exception 'fan-out % is of thread %, not %', p_fan_out_id, v_thread_id, p_thread_id
            using errcode = '22023', hint = 'Leave the thread out, or name the right one.';
    end if;
    return 'done';
end $$;
