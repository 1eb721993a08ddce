"""When faults stop, everything completes once (guarantee 14), and reading it all again changes nothing (12)."""

from __future__ import annotations

from fanfold_schemas import FanOut, VectorClock, arg_hash
from fanfold_sql import Finished
from tests.property.model.checked import Violation, same
from tests.property.model.fleet import BATCH_MAX, Fleet
from tests.property.model.members import PARTITIONS

ROUNDS_MAX = 60
ALL = 1_000_000


def heal(fleet: Fleet, *, survivors: bool) -> None:
    """Drain, look, replay from the beginning, look again, and prune.

    Args:
        survivors: the members that are there go on with what they believe; else new ones take their places.
    """
    if not survivors:
        for number in range(len(fleet.members)):
            fleet.crash(number)
    _drain(fleet)
    _check_completed(fleet, but=_wants_replay(fleet))
    before = fleet.store.observer.effects()
    quiet = not _would_apply(fleet)
    for partition in range(PARTITIONS):
        fleet.reset(partition, 0, ALL)
    fleet.verify()
    _drain(fleet)
    _check_completed(fleet, but=set())
    if quiet:
        same(before, fleet.store.observer.effects(), "guarantee broken: 12 effects before and after a replay")
    fleet.store.prune()
    fleet.store.verify()


def _drain(fleet: Fleet) -> None:
    for _ in range(ROUNDS_MAX):
        for member in fleet.members:
            fleet.renew(member)
            fleet.commit(member, BATCH_MAX)
        held = {partition for member in fleet.members for partition in member.holdings}
        for partition in set(range(PARTITIONS)) - held:
            fleet.claim(fleet.members[partition % len(fleet.members)], partition)
        for member in fleet.members:
            for holding in list(member.holdings.values()):
                fleet.poll(member, holding, ALL)
            for work in list(member.running):
                fleet.finish(member, work, fails=False)
            fleet.commit(member, BATCH_MAX)
            while member.finished:
                fleet.commit(member, BATCH_MAX)
            fleet.publish(member)
            fleet.acknowledge(member)
        fleet.store.end_leases()
        fleet.lease(fleet.members[0], ALL)
        fleet.verify()
        if _at_rest(fleet):
            return
    raise Violation(f"guarantee broken: 14 nothing came to rest within {ROUNDS_MAX} rounds without a fault")


def _at_rest(fleet: Fleet) -> bool:
    ledger = fleet.store.ledger
    return (
        not ledger.outbox
        and not any(member.leased or member.running or member.finished or member.sent for member in fleet.members)
        and len(ledger.partitions) == PARTITIONS
        and sorted(held.next_offset or 0 for held in ledger.partitions.values()) == sorted(fleet.log.ends)
    )


def _check_completed(fleet: Fleet, *, but: set[str]) -> None:
    oracle = fleet.store.ledger.oracle
    published = fleet.log.complete_fan_outs() - but
    for task in fleet.log.tasks():
        name = task.fan_out.id
        clock = oracle.clocks.get(task.thread_id, VectorClock())
        if name not in published or clock.makes_stale(VectorClock(task.base)):
            continue
        barrier = oracle.barriers.get(name)
        if barrier is None or not (barrier.done or barrier.cancelled):
            raise Violation(f"guarantee broken: 14 {name} was published in full and is {barrier}")
    late = [(what, name) for what, name in fleet.store.observer.at_rest() if name in published]
    if late:
        raise Violation(f"guarantee broken: {late}")


def _wants_replay(fleet: Fleet) -> set[str]:
    """Fan-outs that were reopened after they refused some of their tasks, for a quorum (and then what was run again
    failed), too many failures or a deadline: those tasks are needed after all. They come with a replay."""
    return {
        name
        for name, barrier in fleet.store.ledger.oracle.barriers.items()
        if barrier.run > 1 and barrier.declared is not None and _refuses_some(barrier.declared[0])
    }


def _refuses_some(fan_out: FanOut) -> bool:
    return not (fan_out.quorum is None and fan_out.max_failures is None and fan_out.deadline_ms is None)


def _would_apply(fleet: Fleet) -> bool:
    """Whether some record, read again, would have an effect now: its refusal, at the time, was right."""
    return any(fleet.store.alone(Finished(task, b"", arg_hash(task))) == "applied" for task in fleet.log.tasks())
