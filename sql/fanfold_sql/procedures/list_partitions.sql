-- list_partitions: the progress of partitions, by group, topic and partition; each filter may be null.
-- Returns  idle_seconds: since the owner last said that it lives; null without an owner.
create or replace function fanfold.list_partitions(p_group_id text, p_topic text)
returns table (progress_id bigint, group_id text, cluster_id text, topic text, topic_id text, partition integer,
    epoch bigint, owner uuid, next_offset bigint, islands text, commit_seq bigint, claimed_at timestamptz,
    seen_at timestamptz, idle_seconds double precision, stopped text, stopped_because text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.progress_id, p.group_id, p.cluster_id, p.topic, p.topic_id, p.partition, p.epoch, p.owner, p.next_offset,
        p.islands::text, p.commit_seq, p.claimed_at, p.seen_at,
        case when p.owner is not null then extract(epoch from now() - p.seen_at) end, p.stopped, p.stopped_because
    from fanfold.partition_progress p
    where (p_group_id is null or p.group_id = p_group_id) and (p_topic is null or p.topic = p_topic)
    order by p.group_id, p.topic, p.partition, p.claimed_at nulls first
$$;
