"""Members that die, stand still, hang, come and go, or have a wrong clock."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from functools import partial

from tests.fault.chaos.fleet import SESSION_S
from tests.fault.chaos.member import HANG_FLAG, Event, MemberProcess
from tests.fault.chaos.nemeses.act import Since, act, await_true, hold
from tests.fault.chaos.nemeses.own_work import OwnWork
from tests.fault.chaos.nemesis_handlers import HANG, HANG_SYNC, SLOW
from tests.fault.chaos.world import World

_HOUR_S = 3600.0
_PRESENT_MAX = 2
_BUSY_S = 3.0
_SLOW_TASKS = 60


class KillConsumer:
    """kill -9 with work in its hands; the supervisor starts another one, and others take its partitions."""

    name = "kill_consumer"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        _, victim = world.fleet.pick(rng)
        with act(world, self.name, victim.name) as this:
            held = await_true(lambda: _held(victim), _BUSY_S)
            topics = sorted({topic for topic, _ in held}.intersection(world.topics)) or world.topics
            work = OwnWork(world, self.name)
            in_hand = work.publish(rng.choice(topics), [(SLOW, n) for n in range(_SLOW_TASKS)])
            running = int(await_true(lambda: victim.metric("fanfold_handlers_running"), _BUSY_S))
            before = _held_by_others(world, victim)
            victim.kill()
            hold(seconds)
            moved = await_true(lambda: (_held_by_others(world, victim) - before) & held)
            folded = work.await_folded(in_hand)
            this.effect(moved and folded, handlers_running=running, held=len(held), moved=len(moved))


class StopConsumer:
    """SIGSTOP for longer than the session, then SIGCONT: what it does then is what a zombie does."""

    name = "stop_consumer"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        _, victim = world.fleet.pick(rng)
        with act(world, self.name, victim.name) as this:
            held = len(await_true(lambda: _held(victim), _BUSY_S))
            before = victim.counts()
            victim.pause()
            try:
                hold(max(seconds, SESSION_S + 2.0))
            finally:
                victim.resume()

            def noticed() -> dict[str, int]:
                now = victim.counts()
                names = ("partition.fenced", "partition.lost", "partition.rewound")
                return {name: now[name] - before[name] for name in names if now[name] > before[name]}

            found = await_true(noticed)
            this.effect(found, held=held, **found)


class HangHandlers:
    """Handlers do not return while a flag is there; ours have a time limit and fail, others go on."""

    name = "hang_handlers"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        flag = world.folder / HANG_FLAG
        with act(world, self.name, "all handlers", seconds=seconds) as this:
            since = Since(world)
            work = OwnWork(world, self.name)
            flag.touch()
            try:
                hung = work.publish(rng.choice(world.topics), [(HANG, 1), (HANG_SYNC, 2)], label="failed")
                hold(seconds)
            finally:
                flag.unlink(missing_ok=True)
            folded = work.await_folded(hung)
            failed = since.counts()["task.failed"]
            this.effect(folded and failed, failed=failed, fan_out=hung)


class JoinLeaveStorm:
    """Members come and go, each as soon as the group has taken it in, so that the group never rests."""

    name = "join_leave_storm"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        fleet = world.fleet
        with act(world, self.name, "the group", seconds=seconds) as this:
            since = Since(world)
            over_at = time.monotonic() + seconds
            present: list[int] = []
            joined = 0
            try:
                while not joined or time.monotonic() < over_at:
                    present.append(fleet.start_one())
                    newcomer = fleet.member(present[-1])
                    if await_true(partial(newcomer.events, "partition.claimed")):
                        joined += 1
                    if len(present) >= _PRESENT_MAX:
                        fleet.stop_one(present.pop(rng.randrange(len(present))))
            finally:
                for slot in present:
                    fleet.stop_one(slot)
            counts = since.counts()
            moves = {name: counts[name] for name in ("partition.claimed", "partition.released", "partition.lost")}
            # Newcomers give theirs back when they leave; the others had to give them up before.
            given_up = moves["partition.released"] + moves["partition.lost"]
            this.effect(joined and given_up > joined, joined=joined, **moves)


class ClockSkew:
    """A member whose wall clock is an hour wrong, one way or the other."""

    name = "clock_skew"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        slot, _ = world.fleet.pick(rng)
        skew_s = rng.choice((-_HOUR_S, _HOUR_S))
        with act(world, self.name, f"slot {slot}", skew_s=skew_s) as this, world.fleet.clock(slot, skew_s):

            def claims() -> list[Event]:
                # It may have been killed and started again; its clock is as wrong then.
                member = world.fleet.members[slot]
                return [] if member is None or member.clock_s != skew_s else member.events("partition.claimed")

            claimed = await_true(claims)
            off_s = _seconds_from_now(claimed[-1]["timestamp"]) if claimed else 0.0
            hold(seconds)
            member = world.fleet.members[slot]
            commits = int(member.metric("fanfold_commit_seconds_count")) if member is not None else 0
            this.effect(claimed and abs(off_s - skew_s) < _HOUR_S / 2, clock_off_s=round(off_s), commits=commits)


def _seconds_from_now(timestamp: str) -> float:
    return (datetime.fromisoformat(timestamp) - datetime.now(UTC)).total_seconds()


def _held(member: MemberProcess) -> set[tuple[str, int]]:
    """What it holds, as far as its log says."""
    last: dict[tuple[str, int], tuple[str, str]] = {}
    for name in ("partition.claimed", "partition.released", "partition.fenced", "partition.lost", "partition.rewound"):
        for event in member.events(name):
            key = event["topic"], event["partition"]
            last[key] = max(last.get(key, ("", "")), (event["timestamp"], name))
    return {key for key, (_, name) in last.items() if name == "partition.claimed"}


def _held_by_others(world: World, victim: MemberProcess) -> set[tuple[str, int]]:
    return {key for member in world.fleet.history if member is not victim and member.alive for key in _held(member)}


MEMBER_NEMESES = (KillConsumer(), StopConsumer(), HangHandlers(), JoinLeaveStorm(), ClockSkew())
