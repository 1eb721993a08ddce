-- renew_partitions: say that an owner is alive, and tell it which of its partitions it no longer holds.
--
-- Locks    the rows by progress_id, as commits do, so that the two cannot deadlock.
-- Returns  one row per lost partition; vacant: nobody holds it (an operator reset it), so it may be claimed again at once.
--          Rows that the database does not know, or that are behind p_commit_seq or of an earlier timeline (it went back in
--          time), are returned as vacant: an owner with nothing to commit would not hear of it otherwise, and never read again what was lost.
-- Args     p_commit_seq: the last one this owner saw acknowledged, per partition; none: not compared.
create or replace function fanfold.renew_partitions(
    p_owner uuid, p_progress_id bigint[], p_epoch bigint[], p_commit_seq bigint[] default null)
returns table (progress_id bigint, vacant boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    with held as materialized (
        select p.progress_id from fanfold.partition_progress p
        join unnest(p_progress_id, p_epoch) as i (progress_id, epoch)
            on p.progress_id = i.progress_id and p.epoch = i.epoch and p.owner = p_owner
        order by p.progress_id
        for update of p)
    update fanfold.partition_progress p set seen_at = now()
    from held h where p.progress_id = h.progress_id;
    return query
        select i.progress_id, p.owner is null or p.owner = p_owner
        from unnest(p_progress_id, p_epoch, p_commit_seq) as i (progress_id, epoch, commit_seq)
        left join fanfold.partition_progress p on p.progress_id = i.progress_id
        where p.progress_id is null or p.epoch <> i.epoch or p.owner is distinct from p_owner
            or p.commit_seq < i.commit_seq or p.timeline <> fanfold.timeline();
end $$;
