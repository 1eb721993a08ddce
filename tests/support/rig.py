"""A topic's worth of everything: members, a publisher, and eyes on the database, put together for one test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fanfold_consumer import FleetConfig, Registry
from fanfold_producer import FanOutHandle, Publisher, Record, Sender
from fanfold_producer.fan_out import BuiltFanOut, build_fan_out
from fanfold_producer.kafka import KafkaConfig
from fanfold_schemas import decode_payload, new_fan_out_id
from fanfold_sql import FanOutState, PartitionState, Store, StoredDeadLetter, StoredResult
from tests.sql.support import assert_invariants
from tests.support.database import Database
from tests.support.handlers import Notes, declare
from tests.support.kafka import Topic, unique_name
from tests.support.members import LocalMember, Member, member_config, options_of
from tests.support.wait import eventually

T = TypeVar("T")


class Rig:
    """What a fleet test needs. Members that still run when the test is over are killed.

    Attributes:
        group: the consumer group of its members. Groups outlive topics, so each rig has its own.
        notes: what the handlers of `tests.support.handlers` did, and their gates.
    """

    def __init__(self, kafka: KafkaConfig, database: Database, folder: Path, *, atomic: bool) -> None:
        self.group = unique_name("group")
        self.kafka = kafka
        self.database = database
        self.notes = Notes(folder)
        self._folder = folder
        self._atomic = atomic
        self._members: list[Member] = []
        self._local: list[LocalMember] = []
        self._publisher = Publisher(kafka, database_url=database.worker_dsn, atomic=atomic)
        self._sender: Sender | None = None

    # Members.

    def start(
        self, *topics: Topic, group: str | None = None, kafka: KafkaConfig | None = None, **settings: Any
    ) -> Member:
        """A member process with the handlers of `tests.support.handlers`; settings are options of `fanfold consume`."""
        options = ["--group", group or self.group, *options_of(settings)]
        for topic in topics:
            options += ["--topic", topic.name]
        kafka = member_config(self.kafka if kafka is None else kafka)
        member = Member(len(self._members) + 1, self._folder, kafka, self.database.worker_dsn, options)
        self._members.append(member)
        return member

    def start_here(
        self, *topics: Topic, group: str | None = None, registry: Registry | None = None, **settings: Any
    ) -> LocalMember:
        """A member in this process; settings are fields of `FleetConfig`."""
        config = FleetConfig(
            group or self.group,
            tuple(t.name for t in topics),
            member_config(self.kafka),
            self.database.worker_dsn,
            **settings,
        )
        member = LocalMember(config, registry or declare(Registry(), self.notes))
        self._local.append(member)
        return member

    # Publishing.

    def publish(self, topic: Topic, sends: Sequence[object], *, thread_id: str = "t1", **options: Any) -> FanOutHandle:
        return self._publisher.fan_out(thread_id, sends, topic=topic.name, **options)

    def build(
        self,
        topic: Topic,
        sends: Sequence[object],
        *,
        thread_id: str = "t1",
        fan_out_id: str | None = None,
        **options: Any,
    ) -> BuiltFanOut:
        """Records to write with `write`, for tests that care where they lie."""
        fan_out_id = fan_out_id or new_fan_out_id()
        return build_fan_out(thread_id, sends, topic=topic.name, fan_out_id=fan_out_id, **options)

    def write(self, records: Sequence[Record], *, partition: int | None = None) -> None:
        """Write records as they are, in order, to one partition if it is named."""
        if self._sender is None:
            self._sender = Sender(self.kafka)
        self._sender.send([replace(record, partition=partition) for record in records], 20.0)

    def handle(self, built: BuiltFanOut) -> FanOutHandle:
        """The handle of a fan-out written with `write`, once its first result is there."""
        fan_out_id = built.fan_out.id
        eventually(lambda: self.fan_out(fan_out_id), what=f"a result of {fan_out_id}")
        return self._publisher.handle(fan_out_id)

    # What the database says.

    def store(self, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """Do something with a store, as a worker."""

        async def do() -> T:
            async with Store.open(self.database.worker_dsn, pool_size=1) as store:
                return await work(store)

        return asyncio.run(do())

    def fan_out(self, fan_out_id: str) -> FanOutState | None:
        return self.store(lambda store: store.read_fan_out(fan_out_id))

    def results(self, fan_out_id: str) -> list[StoredResult]:
        """The tasks' own, in index order."""
        return self.store(lambda store: store.read_results(fan_out_id, limit=100_000))

    def values(self, fan_out_id: str) -> dict[int, Any]:
        """The values that stand, by index."""
        found = self.results(fan_out_id)
        return {result.index: decode_payload(result.payload) for result in found if result.payload is not None}

    def await_value(self, fan_out_id: str, index: int, timeout_s: float = 20.0) -> None:
        eventually(lambda: index in self.values(fan_out_id), timeout_s, what=f"result {index}")

    def fold_value(self, fan_out_id: str) -> Any:
        """What the fold of a fan-out came to; None if it is not there, or failed."""
        found = self.store(lambda store: store.read_results(fan_out_id, after=-2, limit=1))
        return decode_payload(found[0].payload) if found and found[0].index < 0 and found[0].payload else None

    def dead_letters(self) -> list[StoredDeadLetter]:
        return self.store(lambda store: store.list_dead_letters(limit=10_000, with_bytes=True))

    def await_dead_letters(self, count: int) -> list[StoredDeadLetter]:
        """Wait for that many, oldest first; there must be no more."""
        eventually(lambda: len(self.dead_letters()) >= count, what=f"{count} dead letters")
        found = self.dead_letters()
        assert len(found) == count
        return found

    def partitions(self, group: str | None = None) -> dict[int, PartitionState]:
        """By number; of a topic that was made anew, only the newest."""
        states = self.store(lambda store: store.list_partitions(group or self.group))
        return {state.partition: state for state in states}

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """As the owner of the tables."""
        with self.database.connect() as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def count_results(self) -> int:
        """Results of tasks that stand, folds left out."""
        count: int = self.rows("select count(*) from fanfold.result where index >= 0 and status = 'done'")[0][0]
        return count

    def await_results(self, count: int, timeout_s: float = 20.0) -> None:
        eventually(lambda: self.count_results() >= count, timeout_s, what=f"{count} results")
        assert self.count_results() == count

    def assert_sound(self) -> None:
        """The guarantees, as queries, once nothing is on its way any more: every fan-out folded, the outbox empty."""
        eventually(lambda: not self.rows("select from fanfold.outbox"), what="an empty outbox")
        unfolded = (
            "select fan_out_id from fanfold.fan_out"
            " where fold is not null and folded_at is null and cancelled_at is null"
        )
        eventually(lambda: not self.rows(unfolded), what="all fan-outs folded")
        with self.database.connect() as connection:
            assert_invariants(connection)

    def close(self) -> None:
        for member in self._members:
            member.kill()
        for local in self._local:
            local.stop()
        self._publisher.close()
        if self._sender is not None:
            self._sender.close()
        self.notes.close()


@contextmanager
def rig_for(kafka: KafkaConfig, database: Database, folder: Path, *, atomic: bool) -> Iterator[Rig]:
    rig = Rig(kafka, database, folder, atomic=atomic)
    try:
        yield rig
    finally:
        rig.close()


def holds_for(seconds: float, condition: Callable[[], bool], *, what: str) -> None:
    """Fail as soon as `condition` is not true, and return when it was for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), what
        time.sleep(0.05)
