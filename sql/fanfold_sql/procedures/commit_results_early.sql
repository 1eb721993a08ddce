-- commit_results_early: commit_results with early lock release, for hot threads on slow disks. Its locks are free as soon as
-- its effects are visible, and it is answered when they are on disk, and where synchronous standbys are to have them.
--
-- Args, Returns, Raises, Retry   as commit_results; it must not be called in a transaction.
--
-- One call and not two, one that commits and one that waits: between those a pooler may go on to another server, or to
-- the same after a crash, where waiting proves nothing about what was committed before.
-- No rights of its own (no security definer), because such a procedure could not commit.
create or replace procedure fanfold.commit_results_early(
    uuid,
    bigint[], bigint[], bigint[], bigint[], text[],
    text[], text[], integer[], jsonb[], text[], integer[], integer[], bigint[], text[], text[],
    integer[], text[], integer[], integer[], boolean[], bigint[], bytea[],
    bigint[], bigint[], text[], text[], text[], text[], text[], bytea[], bytea[], bytea[],
    integer[], text[], bytea[], bytea[], bytea[], integer[], integer, integer, bigint[],
    out outcomes text[], out completed_fan_out_ids text[], out completed_runs integer[],
    out completed_outbox_ids bigint[], out outbox_ids bigint[], out commit_seqs bigint[])
language plpgsql
as $$
begin
    if fanfold.begin_life() then
        -- Seen by all others before anything is that a crash may take back.
        commit;
    end if;
    select c.outcomes, c.completed_fan_out_ids, c.completed_runs, c.completed_outbox_ids, c.outbox_ids, c.commit_seqs
    into outcomes, completed_fan_out_ids, completed_runs, completed_outbox_ids, outbox_ids, commit_seqs
    from fanfold.commit_results($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42) c;
    perform pg_catalog.set_config('synchronous_commit', 'off', true);
    commit;
    -- Its commit is waited for, and so everything that was committed before, by whomever. A transaction that has only
    -- an id would not be, nor a message outside of one.
    perform pg_catalog.pg_logical_emit_message(true, 'fanfold', '');
end $$;
