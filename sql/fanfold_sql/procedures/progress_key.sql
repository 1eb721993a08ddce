-- progress_key: the id of a partition's progress, the same on every timeline: 63 bits of a hash of what it belongs to.
-- Not callable by the worker: a part of the procedures that open a partition.
create or replace function fanfold.progress_key(
    p_group_id text, p_cluster_id text, p_topic_id text, p_partition integer)
returns bigint
language sql immutable
as $$
    select pg_catalog.hashtextextended(pg_catalog.concat_ws('/', p_group_id, p_cluster_id, p_topic_id, p_partition), 0)
        & 9223372036854775807
$$;
