-- timeline: which history of the database this is, as Postgres counts them: another one after every promotion of a standby
-- and every recovery to a point in time. What was claimed on an earlier one may have been taken back since.
-- Not callable by the worker: a part of the procedures that claim and fence. Asked of the WAL, because the control file
-- hears of a promotion only with its first checkpoint.
create or replace function fanfold.timeline()
returns text
language sql stable
as $$
    select pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8)
$$;
