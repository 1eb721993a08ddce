-- clock_makes_stale: whether work derived from p_base is stale on a thread that stands at p_clock.
-- Only branches that the base names count; a branch without a counter stands at 0. A thread without a clock: never.
-- Raises nothing. Not callable by the worker: a part of the procedures below, which ask `p_clock @> p_base` first, because
-- a function with a subquery is never inlined. No SET clause, so that a call at least switches no settings.
create or replace function fanfold.clock_makes_stale(p_clock jsonb, p_base jsonb)
returns boolean
language sql immutable
as $$
    select p_clock is not null and not p_clock @> p_base and exists (
        select from pg_catalog.jsonb_each_text(p_base) b
        where coalesce((p_clock ->> b.key)::bigint, 0) > b.value::bigint)
$$;
