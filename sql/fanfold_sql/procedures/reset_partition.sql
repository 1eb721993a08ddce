-- reset_partition: let a group read a partition again from p_next_offset (replay), or skip ahead to it. It is not
--          stopped any more.
--
-- Locks    the partition's row.
-- Args     p_epoch: the epoch the caller saw, so that a decision made on an old picture is refused; -1: there was no row.
-- Returns  true if it was done. Its owner, if it lives, is fenced and claims again.
-- Effect   none on results: work that is committed is recognised and not run again.
create or replace function fanfold.reset_partition(
    p_group_id text, p_cluster_id text, p_topic text, p_topic_id text, p_partition integer, p_epoch bigint,
    p_next_offset bigint)
returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_epoch < 0 then
        insert into fanfold.partition_progress (progress_id, group_id, cluster_id, topic, topic_id, partition, epoch, timeline,
            next_offset)
        values (fanfold.progress_key(p_group_id, p_cluster_id, p_topic_id, p_partition), p_group_id, p_cluster_id, p_topic, p_topic_id,
            p_partition, 1, fanfold.timeline(), p_next_offset)
        on conflict do nothing;
    else
        update fanfold.partition_progress p
        set next_offset = p_next_offset, islands = '{}', epoch = p.epoch + 1, owner = null, stopped = null,
            stopped_because = null
        where p.group_id = p_group_id and p.cluster_id = p_cluster_id and p.topic_id = p_topic_id
            and p.partition = p_partition and p.epoch = p_epoch;
    end if;
    return found;
end $$;
