-- release_partitions: give partitions up, so that nobody counts their owner among the living. Later commits are fenced.
-- Locks the rows by progress_id, as commits do, so that the two cannot deadlock. Partitions that someone else holds by now
-- are left alone. Retry safe.
create or replace function fanfold.release_partitions(p_owner uuid, p_progress_id bigint[], p_epoch bigint[])
returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    with held as materialized (
        select p.progress_id from fanfold.partition_progress p
        join unnest(p_progress_id, p_epoch) as i (progress_id, epoch)
            on p.progress_id = i.progress_id and p.epoch = i.epoch and p.owner = p_owner
        order by p.progress_id
        for update of p)
    update fanfold.partition_progress p set owner = null
    from held h where p.progress_id = h.progress_id
$$;
