"""Take one step at a time, and learn from the server when everybody has come to rest."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Sequence

from tests.property.interleave.instrument import Footprint, Instrumented
from tests.property.interleave.scenario import RETRIED, Answer, Program
from tests.property.interleave.session import At, Connection, Session

# Only how often the server is asked; nothing is believed because of the time that passed.
_LOOK_S = 0.001
_STUCK_S = 60.0

_BLOCKERS = "select jsonb_object_agg(p, to_jsonb(pg_blocking_pids(p))) from unnest(array[{pids}]) p"


class Stuck(Exception):
    """The sessions neither move nor wait for one another: a fault of this driver, or of the server."""


class Actor:
    """One session on its way through its part of a scenario.

    `statement` is its next transaction's (None: nothing is left to do). `doing`: what the step does that was begun
    last, even if it still waits for a lock. `held`: what the transaction did so far, unseen by others until it ends.
    `blockers`: the process ids that it waits for, once that is known.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.program: Program = ()
        self.answers: list[Answer] = []
        self.statement: str | None = None
        self.doing = Footprint()
        self.held = Footprint()
        self.blockers: frozenset[int] = frozenset()

    def play(self, program: Program) -> None:
        self.program, self.answers, self.blockers = program, [], frozenset()
        self.prepare()

    def prepare(self) -> None:
        """Get ready for the next transaction."""
        self.doing = self.held = Footprint()
        rest = self.program[len(self.answers) :]
        self.statement = rest[0].sql(self.answers) if rest else None

    @property
    def enabled(self) -> bool:
        at = self.session.at
        return at in (At.GATE, At.END) or (at is At.REST and self.statement is not None)

    @property
    def moving(self) -> bool:
        return self.session.at is At.MOVING

    @property
    def next_step(self) -> str:
        """What it would do next, in a word."""
        transaction = self.program[len(self.answers)]
        return {At.REST: transaction.name, At.END: transaction.ends}.get(self.session.at, self.session.label)

    def rest(self) -> bool:
        """Take note of having come to rest. True: by a failure, which has let go of every lock."""
        self.blockers = frozenset()
        session, failure = self.session, self.session.failure
        if failure is not None:
            session.give_up()
        if session.at is At.REST:
            # As every caller does, the same call is made again after a serialization failure.
            if failure is None or failure.sqlstate != RETRIED:
                transaction = self.program[len(self.answers)]
                self.answers.append(transaction.answer(session.reply, failure.sqlstate if failure else None))
            self.prepare()
        return failure is not None


class Driver:
    """Sessions of one database, stepped one at a time."""

    def __init__(self, dsn: str, sessions: int, steps: Instrumented) -> None:
        self.control = Connection(dsn)
        self._steps = steps
        self._all = [Actor(Session(dsn, number + 1, self.control)) for number in range(sessions)]
        self.actors: list[Actor] = []

    def play(self, programs: Sequence[Program]) -> None:
        self.actors = self._all[: len(programs)]
        for actor, program in zip(self.actors, programs, strict=True):
            actor.play(program)

    def enabled(self) -> list[int]:
        return [number for number, actor in enumerate(self.actors) if actor.enabled]

    def step(self, number: int) -> Footprint:
        """Let one session go on by a statement. Returns what happened, to it and to those that waited for it."""
        chosen = self.actors[number]
        going = [chosen, *(actor for actor in self.actors if actor.moving)]
        locks_freed = self._begin(chosen)
        footprint = chosen.doing
        while True:
            if locks_freed:
                for actor in self.actors:
                    actor.blockers = frozenset()
            self._settle()
            locks_freed = False
            for actor in [actor for actor in going if not actor.moving]:
                going.remove(actor)
                footprint |= actor.doing
                held = actor.held.writes
                if actor.rest():
                    footprint |= Footprint(ends=held)
                    locks_freed = True
            if not locks_freed:
                return footprint

    def abort(self) -> None:
        """Break off: every transaction is rolled back."""
        busy = [actor.session for actor in self.actors if actor.session.at in (At.GATE, At.MOVING)]
        if busy:
            self.control.run("select " + ", ".join(f"pg_cancel_backend({session.pid})" for session in busy))
        for actor in self.actors:
            actor.session.give_up()

    def close(self) -> None:
        for actor in self._all:
            actor.session.close()
        self.control.close()

    def _begin(self, actor: Actor) -> bool:
        """Set an actor in motion. True: its transaction ends."""
        session, transaction = actor.session, actor.program[len(actor.answers)]
        if session.at is At.END:
            actor.doing = Footprint(ends=actor.held.writes)
            session.end(transaction.ends)
            return True
        if session.at is At.REST:
            assert actor.statement is not None
            actor.doing = self._steps.whole_call(actor.statement)
            session.start(transaction.isolation, actor.statement)
            # Nothing is touched on the way to the first breakpoint, so it is no step.
            self._settle()
        if session.at is At.GATE:
            actor.doing = self._steps.steps[session.label]
            session.go_on()
        actor.held |= actor.doing
        return False

    def _settle(self) -> None:
        """Until every session has stopped, or waits for a lock that only another step can free."""
        deadline = time.monotonic() + _STUCK_S
        while moving := [actor for actor in self.actors if actor.moving and not actor.blockers]:
            waiting = {actor.session.pg.socket: actor for actor in self.actors if actor.moving}
            readable, _, _ = select.select(list(waiting), [], [], _LOOK_S)
            for socket in readable:
                waiting[socket].session.receive()
            if not readable:
                self._ask_who_waits(moving)
            if time.monotonic() > deadline:
                raise Stuck(f"for {_STUCK_S:g} s: {[(actor.session.at, actor.session.label) for actor in self.actors]}")

    def _ask_who_waits(self, moving: list[Actor]) -> None:
        pids = ", ".join(str(actor.session.pid) for actor in moving)
        reply = self.control.run(_BLOCKERS.format(pids=pids)) or "{}"
        found = {int(pid): frozenset(blockers) for pid, blockers in json.loads(reply).items()}
        at_rest = {actor.session.pid for actor in self.actors if actor not in moving}
        for actor in moving:
            blockers = found[actor.session.pid]
            # Whom a moving session blocks may be free in a moment; who is in a circle hears from the server soon.
            if blockers & at_rest and not self._in_circle(actor.session.pid, blockers):
                actor.blockers = blockers

    def _in_circle(self, pid: int, blockers: frozenset[int]) -> bool:
        """Whether a session that waits for these waits for itself: a deadlock, of which the server ends one."""
        known = {actor.session.pid: actor.blockers for actor in self.actors}
        seen: set[int] = set()
        todo = set(blockers)
        while todo:
            one = todo.pop()
            if one == pid:
                return True
            if one not in seen:
                seen.add(one)
                todo |= known.get(one, frozenset())
        return False
