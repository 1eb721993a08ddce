-- timeline: which history of the database this is. What was claimed on an earlier one may have been taken back since.
-- Not callable by the worker: a part of the procedures that claim and fence.
--
-- As Postgres counts them, there is another one after every promotion of a standby and every recovery to a point in time.
-- Asked of the WAL, because the control file hears of a promotion only with its first checkpoint. A crash keeps that
-- number, and may all the same take back what was visible: commits with early lock release are seen before they are on
-- disk. So the life of the server's memory is a part of it, from the first such commit on (begin_life.sql).
create or replace function fanfold.timeline()
returns text
language sql stable
as $$
    select pg_catalog.concat_ws('-',
        pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8),
        (select l.life_id from fanfold.life l))
$$;
