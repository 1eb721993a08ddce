-- claim_partition: take a partition for p_owner under a new epoch; every earlier owner is fenced from here on.
--
-- Locks    the partition's row: a commit of the old owner that holds it finishes first, and is seen.
-- Returns  what to go on from; next_offset null: nothing was ever finished here.
--          previous_topic_id: a topic of this name had progress under another id (deleted and made anew); else null.
--          stopped_because: do not read. The log lost the next offset, and by now may have another record there, so only
--          reset_partition ends it. A batch that could not be read is tried again by every new owner.
-- Retry    safe: claiming twice raises the epoch twice.
create or replace function fanfold.claim_partition(
    p_group_id text, p_cluster_id text, p_topic text, p_topic_id text, p_partition integer, p_owner uuid,
    out progress_id bigint, out epoch bigint, out next_offset bigint, out islands text, out commit_seq bigint,
    out previous_topic_id text, out stopped_because text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    loop
        update fanfold.partition_progress p
        -- On a new timeline the epochs from here on may have been given out before, in a history that is lost, and a call
        -- from there may still arrive: leap to where none has been.
        set epoch = p.epoch + 1 + case when p.timeline = fanfold.timeline() then 0 else floor(random() * 1e12)::bigint end,
            owner = p_owner, timeline = fanfold.timeline(), claimed_at = now(), seen_at = now(), topic = p_topic,
            stopped = case when p.stopped = 'gone' then p.stopped end,
            stopped_because = case when p.stopped = 'gone' then p.stopped_because end
        where p.group_id = p_group_id and p.cluster_id = p_cluster_id and p.topic_id = p_topic_id
            and p.partition = p_partition
        returning p.progress_id, p.epoch, p.next_offset, p.islands::text, p.commit_seq, (
            select o.topic_id from fanfold.partition_progress o
            where o.group_id = p_group_id and o.topic = p_topic and o.partition = p_partition
                and (o.cluster_id, o.topic_id) <> (p_cluster_id, p_topic_id)
            order by o.claimed_at desc nulls last limit 1), p.stopped_because
        into progress_id, epoch, next_offset, islands, commit_seq, previous_topic_id, stopped_because;
        exit when found;
        -- Not an upsert: that names one of the table's two unique keys, and fails on the other when two first claims cross.
        insert into fanfold.partition_progress (progress_id, group_id, cluster_id, topic, topic_id, partition, timeline)
        values (fanfold.progress_key(p_group_id, p_cluster_id, p_topic_id, p_partition), p_group_id, p_cluster_id, p_topic,
            p_topic_id, p_partition, fanfold.timeline())
        on conflict do nothing;
    end loop;
end $$;
