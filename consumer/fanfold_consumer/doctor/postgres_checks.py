"""What the database must be like, judged from its facts."""

from __future__ import annotations

from fanfold_consumer.doctor.findings import Check, Plan, Status, Unknown, Verdict
from fanfold_consumer.doctor.postgres import PostgresFacts, expected_migrations, expected_routines
from fanfold_sql.migrate import SERVER_VERSION_MIN

CLOCK_SKEW_MAX_S = 1.0
IDLE_MAX_MS = 60_000
STANDBY_BEHIND_MAX_S = 10.0
STANDBY_BEHIND_MAX_BYTES = 64 * 1024 * 1024
_NAMES_MAX = 3


def _server(facts: PostgresFacts, plan: Plan) -> Verdict:
    value = f"PostgreSQL {facts.version // 10_000}.{facts.version % 10_000}"
    if facts.in_recovery:
        return Verdict("fail", f"{value}, a standby")
    if facts.settings["default_transaction_read_only"] == "on":
        return Verdict("fail", f"{value}, default_transaction_read_only = on")
    return Verdict("ok" if facts.version >= SERVER_VERSION_MIN else "fail", value)


def _migration(facts: PostgresFacts, plan: Plan) -> Verdict:
    if not facts.routines:
        return Verdict("fail", "no procedures in a schema fanfold")
    expected = expected_routines()
    differ = [
        name for name, body in expected.items() if name not in facts.routines or facts.routines[name].body != body
    ]
    differ += sorted(expected_migrations() - facts.migrations) if facts.migrations is not None else []
    if differ:
        return Verdict("fail", f"not as in this release: {', '.join(differ)}")
    return Verdict("ok", f"{len(expected)} procedures as in this release")


def _privileges(facts: PostgresFacts, plan: Plan) -> Verdict:
    wanted = [name for name, routine in facts.routines.items() if routine.workers]
    if not wanted:
        raise Unknown("see postgres.migration")
    missing = sorted(name for name in wanted if not facts.routines[name].ours)
    if missing:
        names = ", ".join(missing[:_NAMES_MAX]) + (" and others" if len(missing) > _NAMES_MAX else "")
        return Verdict("fail", f"{facts.role} may not execute {len(missing)} of {len(wanted)} procedures: {names}")
    if facts.superuser:
        return Verdict("warn", f"{facts.role} is a superuser")
    if facts.writable_tables:
        return Verdict("warn", f"{facts.role} may write to {facts.writable_tables} tables")
    return Verdict("ok", f"{facts.role} executes {len(wanted)} procedures and no more")


def _isolation(facts: PostgresFacts, plan: Plan) -> Verdict:
    level = facts.settings["default_transaction_isolation"]
    return Verdict("ok" if level == "read committed" else "fail", level)


def _durability(facts: PostgresFacts, plan: Plan) -> Verdict:
    names = ("synchronous_commit", "fsync", "full_page_writes")
    off = [f"{name} = off" for name in names if facts.settings[name] == "off"]
    return Verdict("fail" if off else "ok", ", ".join(off) or f"synchronous_commit = {facts.settings[names[0]]}")


def _standbys(facts: PostgresFacts, plan: Plan) -> Verdict:
    if facts.in_recovery:
        raise Unknown("only a primary knows its standbys")
    waits_for = facts.settings["synchronous_standby_names"]
    if waits_for and not facts.standbys:
        return Verdict("fail", f"synchronous_standby_names = {waits_for}, and none is connected")
    if facts.standbys and not facts.sees_standbys:
        raise Unknown(f"{facts.role} may not see them; grant it pg_monitor")
    if waits_for and not any(standby.sync_state in ("sync", "quorum") for standby in facts.standbys):
        return Verdict("fail", f"synchronous_standby_names = {waits_for}, and none of them is connected")
    worst: Status = "ok"
    values = []
    for standby in facts.standbys:
        behind_s, behind_bytes = standby.behind_s or 0.0, standby.behind_bytes or 0
        if behind_s > STANDBY_BEHIND_MAX_S or behind_bytes > STANDBY_BEHIND_MAX_BYTES:
            worst = "warn"
        values.append(f"{standby.name} ({standby.sync_state}) {behind_s:.1f} s and {_mib(behind_bytes)} behind")
    return Verdict(worst, "; ".join(values) or "none")


def _idle_in_transaction(facts: PostgresFacts, plan: Plan) -> Verdict:
    timeout_ms = int(facts.settings["idle_in_transaction_session_timeout"])
    if timeout_ms == 0:
        return Verdict("warn", "never")
    return Verdict("ok" if timeout_ms <= IDLE_MAX_MS else "warn", f"{timeout_ms / 1000:g} s")


def _lock_table(facts: PostgresFacts, plan: Plan) -> Verdict:
    connections = int(facts.settings["max_connections"]) + int(facts.settings["max_prepared_transactions"])
    per_connection = int(facts.settings["max_locks_per_transaction"])
    guaranteed = connections * per_connection
    threads = min(plan.config.batch_results_max, plan.config.in_flight_max)
    needed = plan.members * threads
    status: Status = "fail" if needed > guaranteed else "warn" if needed > guaranteed / 2 else "ok"
    return Verdict(
        status,
        f"members {plan.members} × threads {threads:,} = {needed:,}",
        f"≤ {guaranteed // 2:,}, half of {per_connection} × {connections:,} locks",
    )


def _connections(facts: PostgresFacts, plan: Plan) -> Verdict:
    if not facts.direct:
        raise Unknown("members connect to a pooler, which has bounds of its own")
    setting = facts.settings
    free = int(setting["max_connections"]) - int(setting["superuser_reserved_connections"])
    # From PostgreSQL 16 on.
    free -= int(setting.get("reserved_connections", 0))
    if facts.connection_limit is not None:
        free = min(free, facts.connection_limit)
    needed = plan.members * plan.config.pool_size
    return Verdict("ok" if needed <= free else "fail", _pools(plan), f"≤ {free}")


def _pool_size(facts: PostgresFacts, plan: Plan) -> Verdict:
    if not facts.direct:
        raise Unknown("members connect to a pooler, which has bounds of its own")
    cores = plan.database_cores
    if cores is None:
        raise Unknown("the server's cores are not known; name them with --database-cores")
    most = 2 * cores + 1
    needed = plan.members * plan.config.pool_size
    return Verdict("ok" if needed <= most else "warn", _pools(plan), f"≤ {most}, 2 × {cores} cores + 1")


def _clock(facts: PostgresFacts, plan: Plan) -> Verdict:
    off_s = max(0.0, abs(facts.clock_ahead_s) - facts.clock_error_s)
    where = "ahead" if facts.clock_ahead_s > 0 else "behind"
    value = f"{abs(facts.clock_ahead_s):.3f} s {where} (± {facts.clock_error_s:.3f})"
    return Verdict("warn" if off_s > CLOCK_SKEW_MAX_S else "ok", value)


def _pools(plan: Plan) -> str:
    size = plan.config.pool_size
    return f"members {plan.members} × connections {size} = {plan.members * size}"


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"


POSTGRES_CHECKS: tuple[Check[PostgresFacts], ...] = (
    Check(
        "postgres.server",
        _server,
        bound="answers, takes writes, PostgreSQL 14 or later",
        why="Members wait until it does; nothing is committed meanwhile.",
        fix="Start it, or point --database-url at the primary (`target_session_attrs=read-write` finds it among "
        "several hosts); `alter database <name> reset default_transaction_read_only`.",
    ),
    Check(
        "postgres.migration",
        _migration,
        bound="tables and procedures of this release",
        why="A member would call procedures that are not there, or that mean something else.",
        fix="Run `fanfold migrate`; if it says that the database is of a later release, upgrade this installation.",
    ),
    Check(
        "postgres.privileges",
        _privileges,
        bound="executes what fanfold_worker may, writes to no table",
        why="Without a procedure members stop; with more, whoever takes over a member can change results and "
        "progress past the procedures.",
        fix="Run members (and this) as a role of their own: `create role <name> login password '...'; grant "
        "fanfold_worker to <name>`.",
    ),
    Check(
        "postgres.isolation",
        _isolation,
        bound="read committed",
        why="A snapshot taken before the thread's lock misses what committed while it waited: barriers would never "
        "fire. So every commit is refused (ZF004).",
        fix="`alter role <role> set default_transaction_isolation = 'read committed'`, and the same or `reset` for "
        "the database.",
    ),
    Check(
        "postgres.durability",
        _durability,
        bound="synchronous_commit, fsync and full_page_writes not off",
        why="A crash of the server takes results back that were acknowledged and that others may have seen; without "
        "the latter two it may leave the database corrupt.",
        fix="`alter database <name> set synchronous_commit = on` (and `reset` it for the role); `alter system reset "
        "fsync`, `alter system reset full_page_writes`, then reload.",
    ),
    Check(
        "postgres.standbys",
        _standbys,
        bound=f"synchronous connected; ≤ {STANDBY_BEHIND_MAX_S:g} s and {STANDBY_BEHIND_MAX_BYTES >> 20} MiB behind",
        why="Commits wait for ever for a synchronous standby that is not there. One that is behind delays a failover "
        "by what it has to replay, and what it never got is done again.",
        fix="Start it, or take its name out of synchronous_standby_names. On one that is behind: "
        "`recovery_min_apply_delay = 0`, and look for queries that hold up replay (max_standby_streaming_delay).",
    ),
    Check(
        "postgres.idle-in-transaction",
        _idle_in_transaction,
        bound=f"≤ {IDLE_MAX_MS // 1000} s, not never",
        why="A client that stops in the middle of a transaction keeps the locks of its threads and partitions until "
        "then.",
        fix="`alter database <name> set idle_in_transaction_session_timeout = '30s'`.",
    ),
    Check(
        "postgres.lock-table",
        _lock_table,
        bound="≤ half of max_locks_per_transaction × (max_connections + max_prepared_transactions)",
        why="A commit holds one lock per thread in its batch. A full lock table refuses statements of everybody on "
        "the server (53200), and a batch that needs more than all of it can never be stored. More than the "
        "product may fit, but only so many are guaranteed, and others need some too.",
        fix="`alter system set max_locks_per_transaction = 256` and restart the server, or lower "
        "`--batch-results-max`.",
    ),
    Check(
        "postgres.connections",
        _connections,
        bound="≤ max_connections without reserved ones, and the limits of role and database",
        why="Members beyond it get no connection, and wait.",
        fix="Lower `--pool-size`, put PgBouncer in transaction mode in between, or raise max_connections (a restart) "
        "or the `connection limit` of the role or the database.",
    ),
    Check(
        "postgres.pool-size",
        _pool_size,
        bound="≤ 2 × cores of the database server + 1",
        why="More statements at once than the server can work on take turns while they hold their locks: all get "
        "slower.",
        fix="Lower `--pool-size`: a member commits in groups through one connection. With many members, put "
        "PgBouncer in transaction mode in between.",
    ),
    Check(
        "postgres.clock",
        _clock,
        bound=f"≤ {CLOCK_SKEW_MAX_S:g} s from this machine's",
        why="Deadlines are set by the clock of a publisher and judged by another's; replay by time reads from "
        "another place than was meant.",
        fix="Run a time service (chrony, systemd-timesyncd) on both machines.",
    ),
)
