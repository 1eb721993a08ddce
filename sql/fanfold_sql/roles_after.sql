-- The worker may execute the procedures and nothing else, the public nothing at all. Run by fanfold_owner, in the
-- transaction that makes the procedures: whatever is there by then starts from no privilege.
revoke all on schema fanfold from public, fanfold_worker;
revoke all on all tables in schema fanfold from public, fanfold_worker;
revoke all on all sequences in schema fanfold from public, fanfold_worker;
revoke all on all routines in schema fanfold from public, fanfold_worker;
-- Functions are executable by everyone unless this is revoked; so is one that is made by hand between two releases.
alter default privileges revoke execute on functions from public;
grant usage on schema fanfold to fanfold_worker;
grant execute on all routines in schema fanfold to fanfold_worker;
-- Parts of the commit: they rely on locks that their caller holds.
revoke execute on function fanfold.advance_clocks, fanfold.admit_results, fanfold.settle_results,
    fanfold.clock_makes_stale, fanfold.progress_key, fanfold.next_outbox_id,
    fanfold.timeline, fanfold.match_dead_letters from fanfold_worker;
