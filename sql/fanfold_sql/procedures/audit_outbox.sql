-- audit_outbox: which of these things wait in the outbox to be published on a topic: a retry, a rerun, a fold, the tasks that
-- a handler asked for.
--
-- Locks    none. Reads the outbox once: ask for many at a time.
-- Args     per thing a text that its record contains (the id of a task, or of a fan-out), and the record's key; null: whatever
--          the key, which compares the text with every record there.
-- Returns  per thing in input order whether there is one.
create or replace function fanfold.audit_outbox(p_topic text, p_key bytea[], p_text text[])
returns boolean[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    with asked as (
        select r.* from unnest(p_key, p_text) with ordinality as r (key, text, no)),
    found as (
        select a.no
        from asked a join fanfold.outbox o on o.key = a.key
        where o.topic = p_topic and position(convert_to(a.text, 'UTF8') in o.value) > 0
        union
        select a.no
        from asked a join fanfold.outbox o on position(convert_to(a.text, 'UTF8') in o.value) > 0
        where a.key is null and o.topic = p_topic)
    select coalesce(array_agg(a.no in (select f.no from found f) order by a.no), '{}') from asked a
$$;
