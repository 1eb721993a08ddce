-- The worker may execute the procedures and nothing else. Functions are executable by everyone unless this is revoked.
revoke all on schema fanfold from public;
revoke all on all tables in schema fanfold from public, fanfold_worker;
revoke all on all functions in schema fanfold from public, fanfold_worker;
grant usage on schema fanfold to fanfold_worker;
grant execute on all functions in schema fanfold to fanfold_worker;
-- Parts of the commit: they rely on locks that their caller holds.
revoke execute on function fanfold.advance_clocks, fanfold.admit_results, fanfold.settle_results,
    fanfold.clock_makes_stale, fanfold.progress_key from fanfold_worker;
