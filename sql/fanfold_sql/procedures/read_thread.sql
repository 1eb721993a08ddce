-- read_thread: the clock of a thread and when it was first seen; no row if it is unknown.
create or replace function fanfold.read_thread(p_thread_id text)
returns table (thread_id text, clock jsonb, created_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.thread_id, t.clock, t.created_at from fanfold.thread t where t.thread_id = p_thread_id
$$;
