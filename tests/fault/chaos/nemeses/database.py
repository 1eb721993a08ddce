"""PostgreSQL crashes, fails over, lags and is slow; the pooler in front of it dies and is told to begin anew."""

from __future__ import annotations

import random
from statistics import fmean

from tests.fault.chaos.nemeses.act import Since, act, await_true, hold
from tests.fault.chaos.postgres_pair import WORKER
from tests.fault.chaos.world import World

_COMMITS = 9
_SLOW_MS = 60.0
_AWAY_S = 10.0
_EMIT = "select pg_logical_emit_message(true, 'chaos', 'x')"
_BACKENDS = "select pid from pg_stat_activity where usename = %s"


class KillBackend:
    """kill -9 of one backend: the server ends all the others and recovers."""

    name = "kill_backend"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        del rng
        with act(world, self.name, "a backend of a worker") as this:
            since = Since(world)
            pid = await_true(world.stack.postgres.kill_backend, _AWAY_S)
            hold(seconds)
            away = since.any_of("store.unavailable")
            this.effect(pid and away, pid=pid, **away)


class StopImmediate:
    """`stop -m immediate`, and a start that goes through crash recovery."""

    name = "stop_immediate"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        del rng
        with act(world, self.name, "the primary") as this:
            since = Since(world)
            world.stack.postgres.stop_immediate_and_start()
            hold(seconds)
            away = since.any_of("store.unavailable")
            back = since.any_of("store.recovered")
            this.effect(away and back, **away, **back)


class FailOver:
    """The standby is promoted without what the primary acknowledged last; the members are left running."""

    name = "failover"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        with act(world, self.name, "the primary") as this:
            since = Since(world)
            done = world.stack.postgres.fail_over(hold_s=rng.uniform(0.3, max(0.4, seconds / 2)))
            voided = since.any_of("partition.rewound", "partition.fenced")
            changed = done.now != done.was
            this.effect(changed and voided, was=done.was, now=done.now, lost_commits=done.lost_commits, **voided)
            hold(seconds / 2)


class PauseReplay:
    """The standby goes on receiving and shows nothing new."""

    name = "pause_replay"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        del rng
        with act(world, self.name, "the standby", seconds=seconds) as this, world.stack.postgres.replay_paused():
            hold(seconds)
            lag_bytes = await_true(world.stack.postgres.lag_bytes)
            this.effect(lag_bytes, lag_bytes=lag_bytes)


class SlowFsync:
    """Each flush of a commit takes longer, with the thread's lock held."""

    name = "slow_fsync"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        ms = rng.uniform(_SLOW_MS / 2, _SLOW_MS)
        with act(world, self.name, "the primary", slower_ms=round(ms)) as this:
            before_ms = await_true(lambda: _commit_ms(world))
            with world.stack.postgres.slow_fsync(ms):
                hold(seconds)
                during_ms = await_true(lambda: _commit_ms(world))
            this.effect(
                during_ms > before_ms + ms / 4, commit_ms_before=round(before_ms, 1), commit_ms=round(during_ms, 1)
            )


class KillPooler:
    """kill -9 of PgBouncer, and a new one after a while."""

    name = "kill_pooler"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        del rng
        pooler = world.stack.pooler
        assert pooler is not None, "PgBouncer is not installed"
        with act(world, self.name, "the pooler", seconds=seconds) as this:
            since = Since(world)
            pooler.kill()
            try:
                hold(seconds)
            finally:
                pooler.start()
            away = since.any_of("store.unavailable")
            back = since.any_of("store.recovered")
            this.effect(away and back, **away, **back)


class ReloadPooler:
    """Settings read again, and every connection to the server given up after its transaction."""

    name = "reload_pooler"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        del rng
        pooler = world.stack.pooler
        assert pooler is not None, "PgBouncer is not installed"
        with act(world, self.name, "the pooler") as this:
            before = await_true(lambda: _backends(world))
            pooler.reload()
            pooler.reconnect()
            replaced = await_true(lambda: before - _backends(world))
            this.effect(replaced, replaced=len(replaced))
            hold(seconds)


def _commit_ms(world: World) -> float:
    """How long the flush of a commit takes, on average: one may wait for others, or come with the flush of another."""
    return fmean(world.stack.postgres.timed_ms(_EMIT) for _ in range(_COMMITS))


def _backends(world: World) -> set[int]:
    return {pid for (pid,) in world.stack.postgres.rows(_BACKENDS, (WORKER,))}


DATABASE_NEMESES = (KillBackend(), StopImmediate(), FailOver(), PauseReplay(), SlowFsync())
POOLER_NEMESES = (KillPooler(), ReloadPooler())
