-- begin_group: where a group that never finished anything in a topic begins, decided once for all partitions there are.
--          One that is added later is then read from its beginning: decided for each when it is claimed, what came into
--          a new partition before anybody noticed it would be skipped.
--
-- Locks    the topic's rows by progress_id, as commits do; they are made first, so that two who begin meet here.
-- Args     p_next_offset: of partition 0, 1 and so on.
-- Effect   none if the group has progress in a topic of this name, be it an earlier one that was deleted. Else every owner
--          is fenced and claims again.
-- Retry    safe.
create or replace function fanfold.begin_group(
    p_group_id text, p_cluster_id text, p_topic text, p_topic_id text, p_next_offset bigint[])
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into fanfold.partition_progress (progress_id, group_id, cluster_id, topic, topic_id, partition, timeline)
    select k.progress_id, p_group_id, p_cluster_id, p_topic, p_topic_id, k.partition, fanfold.timeline()
    from (
        select fanfold.progress_key(p_group_id, p_cluster_id, p_topic_id, i.partition) as progress_id, i.partition
        from generate_series(0, cardinality(p_next_offset) - 1) as i (partition)) k
    order by k.progress_id
    on conflict do nothing;
    perform from fanfold.partition_progress p
    where p.group_id = p_group_id and p.cluster_id = p_cluster_id and p.topic_id = p_topic_id
    order by p.progress_id
    for update;
    -- In a statement of its own: its snapshot is taken after the last lock, so it sees who was first.
    update fanfold.partition_progress p
    set next_offset = p_next_offset[p.partition + 1], epoch = p.epoch + 1, owner = null
    where p.group_id = p_group_id and p.cluster_id = p_cluster_id and p.topic_id = p_topic_id
        and p.partition < cardinality(p_next_offset)
        and not exists (
            select from fanfold.partition_progress o
            where o.group_id = p_group_id and o.topic = p_topic and o.next_offset is not null);
end $$;
