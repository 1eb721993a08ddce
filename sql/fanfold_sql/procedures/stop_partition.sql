-- stop_partition: note why an owner does not read on in a partition, for everybody to see.
--
-- Locks    the partition's row.
-- Args     p_stopped: gone or unreadable; see claim_partition for how long it lasts.
-- Returns  false if it is not this owner's any more: then nothing is noted.
-- Retry    safe.
create or replace function fanfold.stop_partition(
    p_owner uuid, p_progress_id bigint, p_epoch bigint, p_stopped text, p_because text)
returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update fanfold.partition_progress p
    set stopped = p_stopped, stopped_because = p_because
    where p.progress_id = p_progress_id and p.epoch = p_epoch and p.owner = p_owner;
    return found;
end $$;
