"""All mutants of the fleet and its commit, each with the faults under which it cannot hide."""

from __future__ import annotations

from tests.fault.chaos.mutant import Mutant

_COMMITTER = "consumer/fanfold_consumer/committer.py"
_OFFSETS = "consumer/fanfold_consumer/offsets.py"
_RELAY = "consumer/fanfold_consumer/relay.py"
_COMMIT = "sql/fanfold_sql/procedures/commit_results.sql"
_CHECK = "sql/fanfold_sql/procedures/check_tasks.sql"
_RENEW = "sql/fanfold_sql/procedures/renew_partitions.sql"
_SETTLE = "sql/fanfold_sql/procedures/settle_results.sql"

MUTANTS = (
    Mutant(
        "fenced-is-retried",
        (
            (
                _COMMITTER,
                "self._owner.on_fenced([p for p in partitions if p.progress_id in error.progress_ids])",
                "await asyncio.sleep(0.1)",
            ),
            (
                _COMMITTER,
                "live = [c for c in live if not c.dropped and not c.delivery.partition.lost]",
                "live = [c for c in live if not c.dropped]",
            ),
        ),
        ("offset_reset",),
    ),
    Mutant(
        "lost-partitions-are-committed",
        (
            (
                _COMMITTER,
                "live = [c for c in live if not c.dropped and not c.delivery.partition.lost]",
                "live = [c for c in live if not c.dropped]",
            ),
        ),
        ("offset_reset",),
    ),
    Mutant(
        "no-epoch-check",
        ((_COMMIT, "h.epoch > i.epoch or h.epoch = i.epoch and (h.owner = p_owner) is not true)", "false)"),),
        ("offset_reset",),
    ),
    Mutant(
        "next-offset-past-an-island",
        (
            (
                _OFFSETS,
                "next_offset = unfinished[first] if first < len(unfinished) else self._position",
                "next_offset = self._position",
            ),
        ),
        ("hang_handlers", "kill_consumer"),
    ),
    Mutant(
        "fold-published-before-the-commit",
        (
            (
                _COMMITTER,
                "        return lambda: self._store.commit(batch, lease_ms=self._lease_ms, wait_ms=next(waits_ms))",
                """\
        async def send() -> CommitReply:
            from fanfold_consumer.relay import fold_record
            from fanfold_sql.commit import COMMIT_RESULTS, commit_parameters, commit_reply
            async with self._store.transaction() as connection:
                cursor = await connection.execute(COMMIT_RESULTS, commit_parameters(batch, self._lease_ms), binary=True)
                reply = commit_reply(await cursor.fetchone(), len(batch.results))
                results = {result.task.fan_out.id: result for result in batch.results}
                for done in reply.completed:
                    task, topic = results[done.fan_out_id].task, results[done.fan_out_id].topic
                    if task.fan_out.fold is not None and topic is not None:
                        fold = FoldOf(task.fan_out, done.run, task.thread_id, task.base)
                        self._publish([Publication(0, fold_record(topic, fold))])
            return reply

        return send""",
            ),
            (_COMMIT, "where c.completes and c.fold is not null and c.topic is not null", "where false"),
        ),
        ("slow_fsync",),
    ),
    Mutant(
        "a-database-that-went-back-is-not-noticed",
        (
            (
                _COMMIT,
                "and h.owner = p_owner and (h.commit_seq < i.commit_seq or h.timeline <> (select fanfold.timeline())))",
                "and false)",
            ),
            (_RENEW, "or p.commit_seq < i.commit_seq or p.timeline <> fanfold.timeline()", ""),
        ),
        ("failover",),
    ),
    Mutant(
        "a-dead-letter-without-its-row",
        ((_COMMITTER, "batch.dead_letters.append(completion.dead_letter)", "pass"),),
        ("kill_consumer",),
    ),
    Mutant(
        "outbox-acknowledged-first",
        (
            (
                _RELAY,
                "            await self._sender.asend([publication.record for publication in batch], SEND_TIMEOUT_S)",
                """\
            ids = [publication.outbox_id for publication in batch]
            await self._patience.call("ack_outbox", lambda: self._store.ack_outbox(ids))
            await self._sender.asend([publication.record for publication in batch], SEND_TIMEOUT_S)""",
            ),
        ),
        ("kafka_one_way_up", "kill_consumer"),
        seconds=25.0,
    ),
    Mutant(
        "no-stale-check",
        (
            (_COMMIT, "and fanfold.clock_makes_stale(t.clock, h.base) then 's'", "and false then 's'"),
            (_CHECK, "fanfold.clock_makes_stale(t.clock, p_fan_base[r.fan]) then 'stale'", "false then 'stale'"),
        ),
        ("kill_consumer",),
    ),
    Mutant(
        "the-same-run-overwrites",
        ((_SETTLE, "when g.run > e.run then 'replace'", "when g.run >= e.run then 'replace'"),),
        ("postgres_cut_after_request",),
    ),
)
