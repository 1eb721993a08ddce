"""All mutants. The first twelve are the classical mistakes of such a commit, the others what is easily forgotten."""

from __future__ import annotations

from tests.property.mutation.mutant import Mutant

_CLAIM = "a commit against a claim of its partition, and the new holder's own commit"
_LAST_TWO = "the last two results of a fan-out, from two partitions"
_TWICE = "one task delivered twice, from two partitions"
_BASES = "a new base against an old one of the same thread"
_QUORUM = "the last place of a quorum"
_CANCEL = "the last result against a cancel"
_COMMIT = "commit_results"

MUTANTS = (
    Mutant(
        "no fence",
        _COMMIT,
        (("if cardinality(p_progress_id) > 0 then\n        with held", "if false then\n        with held"),),
        _CLAIM,
        machine=True,
    ),
    Mutant(
        "a plain SELECT for the fence",
        _COMMIT,
        (("\n            order by p.progress_id\n            for update)", ")"),),
        _CLAIM,
    ),
    Mutant(
        ">= for the fence: a commit from before the database went back is taken",
        _COMMIT,
        (("h.progress_id is null or h.epoch < i.epoch or", "h.progress_id is null or"),),
        "a commit from before the database went back, against the claim that follows",
    ),
    Mutant(
        "duplicates count down",
        _COMMIT,
        (
            (
                "from unnest(v_count_fan_out_id, v_count_new, v_count_failed) as d (fan_out_id, new, failed)",
                "from (select p_fan_out_id[r.fan], 1, 0 from unnest(p_fan) as r (fan)) as d (fan_out_id, new, failed)",
            ),
        ),
        "a commit whose reply was lost, sent again on another connection while it still runs",
        machine=True,
    ),
    Mutant(
        "offset + 1",
        _COMMIT,
        (("set next_offset = i.next_offset,", "set next_offset = i.next_offset + 1,"),),
        _CLAIM,
        machine=True,
    ),
    Mutant(
        "no clock check",
        _COMMIT,
        (("and fanfold.clock_makes_stale(t.clock, h.base) then 's'", "and false then 's'"),),
        _BASES,
        machine=True,
    ),
    Mutant(
        "early outbox: every countdown queues the fold",
        _COMMIT,
        (("from counted c where c.completes and c.fold", "from counted c where c.fold"),),
        _LAST_TWO,
        machine=True,
    ),
    Mutant(
        "the same run overwrites",
        "settle_results",
        (("when g.run > e.run then 'replace'", "when g.run >= e.run then 'replace'"),),
        _TWICE,
        machine=True,
    ),
    Mutant(
        "duplicates skip the progress",
        _COMMIT,
        (
            (
                "if cardinality(p_progress_id) > 0 then\n        with moved",
                "if cardinality(p_progress_id) > 0 and outcomes is null then\n        with moved",
            ),
        ),
        _TWICE,
        machine=True,
    ),
    Mutant(
        "no thread lock",
        _COMMIT,
        (("perform pg_advisory_xact_lock(k.key)", "perform k.key"),),
        _QUORUM,
    ),
    Mutant(
        "unsorted thread locks",
        _COMMIT,
        (
            (
                "(select distinct hashtextextended(t, 4207) as key from unnest(p_fan_thread_id) t order by 1)",
                "(select hashtextextended(t, 4207) as key from unnest(p_fan_thread_id) t)",
            ),
        ),
        "batches over two threads in opposite order, behind one that holds a thread",
    ),
    Mutant(
        "REPEATABLE READ allowed",
        _COMMIT,
        (
            (
                "if current_setting('transaction_isolation') <> 'read committed' then",
                "if current_setting('transaction_isolation') = 'serializable' then",
            ),
        ),
        "a caller under REPEATABLE READ is refused",
    ),
    Mutant(
        "the thread is locked after its clock was read",
        _COMMIT,
        (
            ("perform pg_advisory_xact_lock(k.key)", "perform k.key"),
            (
                "    -- 4. Upsert keyed by task_id.",
                "    perform pg_advisory_xact_lock(hashtextextended(t, 4207)) from unnest(p_fan_thread_id) t;\n    --",
            ),
        ),
        _BASES,
    ),
    Mutant(
        "the fence compares epochs, not owners",
        _COMMIT,
        (("(h.owner = p_owner) is not true", "false"),),
        "a commit under a number that a database which went back gave out again",
    ),
    Mutant(
        "the commit_seq that was acknowledged is not compared",
        _COMMIT,
        (("(h.commit_seq < i.commit_seq or h.timeline", "(false or h.timeline"),),
        "a commit that knows of later commits than the database, against a claim",
    ),
    Mutant(
        "a claim of an earlier timeline counts",
        _COMMIT,
        ((" or h.timeline <> (select fanfold.timeline())", ""),),
        "a commit and a renewal of what was claimed on an earlier timeline",
    ),
    Mutant(
        "commit_seq stands still",
        _COMMIT,
        (("commit_seq = p.commit_seq + 1", "commit_seq = p.commit_seq"),),
        _LAST_TWO,
        machine=True,
    ),
    Mutant(
        "progress may go back",
        _COMMIT,
        ((" and (p.next_offset is null or i.next_offset >= p.next_offset)", ""),),
        "two commits of one partition never move it back",
    ),
    Mutant(
        "a fan-out that is complete completes again",
        _COMMIT,
        (("not e.completed and f.completed_at is not null", "f.completed_at is not null"),),
        "two runs of one task: the higher stands, whichever comes first",
        machine=True,
    ),
    Mutant(
        "failures are not counted as failed",
        _COMMIT,
        (("            failed = f.failed + e.failed,\n", ""),),
        "a failure and a success complete a fan-out",
        machine=True,
    ),
    Mutant(
        "a result counts into another thread's barrier",
        _COMMIT,
        (("if v_opened < cardinality(array_positions(v_state, 'n')) then", "if false then"),),
        "a fan-out opened twice at once, under two threads",
    ),
    Mutant(
        "a Send goes out again with a duplicate",
        _COMMIT,
        (("outcomes is null or o.result = 0 or outcomes[o.result] = 'applied' as wanted", "true as wanted"),),
        "a task that returns a Send, delivered twice: the Send goes out once",
        machine=True,
    ),
    Mutant(
        "a cancelled fan-out takes results",
        _COMMIT,
        (("            when f.cancelled_at is not null then 'c'\n", ""),),
        _CANCEL,
    ),
    Mutant(
        "a cancel that crosses under a wrong thread goes unnoticed",
        _COMMIT,
        (("where h.state = 'n' and f.cancelled_at is not null) then", "where false) then"),),
        "the first result, with a base, against a cancel of its fan-out under another thread",
    ),
    Mutant(
        "a quorum does not count the places that are taken",
        "admit_results",
        (("<= a.quorum - a.succeeded + a.taken_back", "<= a.quorum + a.taken_back"),),
        "the last place of a quorum, and two batches of two",
        machine=True,
    ),
    Mutant(
        "a re-run takes no lock",
        "reopen_fan_out",
        (("perform pg_advisory_xact_lock(hashtextextended(v_thread_id, 4207));", ""),),
        "two re-runs of one task and a late result of the second",
    ),
    Mutant(
        "a cancel takes no lock",
        "cancel_fan_out",
        (("perform pg_advisory_xact_lock(hashtextextended(v_thread_id, 4207));", ""),),
        _CANCEL,
    ),
    Mutant(
        "the end of a thread takes no lock",
        "cancel_thread",
        (("perform pg_advisory_xact_lock(hashtextextended(p_thread_id, 4207));", ""),),
        "a result against the end of its thread",
    ),
    Mutant(
        "an advance takes no lock",
        "advance_thread",
        (("perform pg_advisory_xact_lock(hashtextextended(p_thread_id, 4207));", ""),),
        "a result against an advance of its thread",
    ),
    Mutant(
        "a deadline takes no lock",
        "expire_fan_outs",
        (("    perform pg_advisory_xact_lock(k.key)\n    from (", "    perform k.key\n    from ("),),
        "the last result against a deadline that fails",
    ),
    Mutant(
        "what a deadline completed takes more results",
        "admit_results",
        (("then a.quorum is null and a.remaining = 0", "then a.quorum is null"),),
        "the last result against a deadline that folds",
        machine=True,
    ),
    Mutant(
        "a deadline ends what was reopened",
        "expire_fan_outs",
        ((" and f.run = 1", ""),),
        "a deadline against a re-run",
        machine=True,
    ),
    Mutant(
        "failures are not limited",
        _COMMIT,
        (("and f.failed + d.failed > f.max_failures as ends", "and false as ends"),),
        "one failure too many against the last result",
        machine=True,
    ),
    Mutant(
        "prune does not look again under the lock",
        "prune",
        (("where f.fan_out_id = any (v_ids) and (", "where f.fan_out_id = any (v_ids) and (true or"),),
        "prune against a re-run",
    ),
    Mutant(
        "a claim keeps the epoch",
        "claim_partition",
        (("set epoch = p.epoch + 1 + case", "set epoch = p.epoch + case"),),
        _CLAIM,
        machine=True,
    ),
    Mutant(
        "a reset does not look at the epoch",
        "reset_partition",
        ((" and p.epoch = p_epoch", ""),),
        "a commit against a reset of its partition and a claim",
    ),
    Mutant(
        "unsorted partitions in a renewal",
        "renew_partitions",
        (("        order by p.progress_id\n", ""),),
        "a commit of two partitions and a renewal of both in the opposite order, behind one that holds a partition",
    ),
    Mutant(
        "a relay does not skip what another takes",
        "claim_outbox",
        (("            for update skip locked),", "            ),"),),
        "two relays",
    ),
)
