"""The main job, with a crash and a replay in it, on servers that this program starts itself.

Every .py file of the running Python's standard library becomes a Send task of one fan-out. Three `fanfold consume`
processes index them; one is killed with -9 in the middle; when the fold is in, the whole topic is replayed from its
first offset while the others live. Then everything is counted, and the answer is compared with that of a single
process. DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS are adopted when they are set.

The members are there before the tasks, and each runs only a few handlers at once (`limits`): files are indexed in
milliseconds, and nobody could see, let alone hit, the middle of it otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click
import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # started by its path, Python knows this folder only

from examples.stdlib_index import audit  # noqa: E402
from examples.stdlib_index.members import Member, MemberDied, fanfold_program, running_members  # noqa: E402
from examples.stdlib_index.screen import MemberRow, Picture, Screen  # noqa: E402
from examples.stdlib_index.tasks import RUNS_FILE, stdlib_files  # noqa: E402
from examples.stdlib_index.verdict import Evidence, Verdict, judge, summary  # noqa: E402
from fanfold_consumer.devstack import DevStackError, Stack, temporary_folder  # noqa: E402
from fanfold_consumer.devstack.guard import guard  # noqa: E402
from fanfold_producer import KafkaConfig, ProducerError, Publisher, Send, create_topics  # noqa: E402
from fanfold_schemas import dead_letter_topic  # noqa: E402
from fanfold_sql import StoreError, connect, migrate  # noqa: E402

HANDLERS = "examples.stdlib_index.tasks"
MEMBERS = 3
PARTITIONS = 12
LOOK_FROM, KILL_FROM = 0.25, 0.35
FILES_PER_HANDLER = 150
HANDLERS_MAX = 12
LOOK_S = 0.01
SHOW_S = 0.1
PATIENCE_S = 120.0
"""How long any one step may take before the demo gives up."""


class DemoFailed(Exception):
    """A step did not come to its end. The message says which."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The crash: whom, when, how far the fan-out was, and what the victim's metrics said last."""

    member: Member
    at: float
    done: int
    metrics: dict[str, float]


class Demo:
    """One run. Each method is a step; `run` is their order."""

    def __init__(self, stack: Stack, screen: Screen, files: int | None, started: float) -> None:
        name = f"demo-{uuid.uuid4().hex[:8]}"
        os.environ.update(stack.env())
        # Not `stack.kafka`: a broker that was adopted may need what FANFOLD_KAFKA_PROPERTIES says.
        self.kafka = KafkaConfig.from_env()
        self.stack = stack
        self.screen = screen
        self.started = started
        self.paths = stdlib_files(files)
        self.files = files
        self.group = name
        self.topic = f"{name}.files.v1"
        self.thread_id = name
        self.fan_out_id = ""
        self.task_ids: tuple[str, ...] = ()
        self.members: list[Member] = []
        self.folder = temporary_folder("demo")
        self.runs_file = self.folder / "runs"
        self.database: psycopg.Connection[Any]
        self._shown_at = 0.0

    def run(self) -> Verdict:
        with ExitStack() as stack:
            single = stack.enter_context(self.single_process())
            applied = migrate(self.stack.database_url)
            self.database = stack.enter_context(connect(self.stack.database_url))
            stack.enter_context(self.topics())
            self.runs_file.touch()
            self.say(f"{len(applied.scripts)} scripts migrated, {self.topic} created with {PARTITIONS} partitions")
            options = ("--handlers", HANDLERS, "--group", self.group, "--topic", self.topic, *self.limits())
            members = running_members(MEMBERS, options, {RUNS_FILE: str(self.runs_file)}, ROOT, self.folder)
            self.members = stack.enter_context(members)
            self.say(f"started {MEMBERS} x `fanfold consume`, pids {', '.join(str(m.pid) for m in self.members)}")
            self.wait_for("all members to hold partitions", self.all_at_work)
            self.publish()
            kill = self.kill_one()
            self.wait_for("the fan-out and its fold", lambda: self.progress().state in ("done", "failed"))
            self.say("the last result is in, and the fold has run")
            self.wait_for("the others to hold all partitions", self.all_at_work)
            before, calls_before = self.metrics(), audit.read_calls(self.runs_file)
            self.replay()
            after, calls = self.metrics(), audit.read_calls(self.runs_file)
            stored = audit.read_stored(self.database, self.fan_out_id, self.task_ids)
            self.say("waiting for the single process that does the same")
            expected = single()
        evidence = Evidence(
            published=len(self.task_ids),
            done_at_kill=kill.done,
            victim=kill.metrics,
            before=before,
            after=after,
            calls_before=calls_before,
            calls=calls,
            stored=stored,
            exit_statuses=[member.exit_status for member in self.members],
            expected=expected,
            seconds=time.monotonic() - self.started,
        )
        self.screen.draw_strip(calls, [member.pid for member in self.members], kill.member.pid, kill.at)
        self.screen.tell(summary(evidence))
        self.screen.draw_answer(stored.answer or {})
        return judge(evidence)

    # Steps.

    def limits(self) -> tuple[str, ...]:
        """Options of the members: how slow and how attentive they are."""
        # Slow enough to be hit in the middle, whatever the machine and `--files`.
        handlers = str(min(HANDLERS_MAX, max(1, len(self.paths) // FILES_PER_HANDLER)))
        limits = ["--concurrency", handlers, "--sync-workers", handlers]
        limits += ["--in-flight-max", "400"]
        settings = self.kafka.consumer()
        if "session.timeout.ms" not in settings and settings.get("group.protocol") != "consumer":
            # 45 s is the default: so long a real broker would wait for the dead member. It refuses less than 6 s.
            limits += ["-X", "consumer.session.timeout.ms=6000", "-X", "consumer.heartbeat.interval.ms=500"]
        return tuple(limits)

    @contextmanager
    def single_process(self) -> Iterator[Callable[[], Any]]:
        """The same functions in one process, in the background. Yields how to wait for its answer."""
        command = [sys.executable, str(ROOT / "examples/stdlib_index/tasks.py")]
        if self.files is not None:
            command.append(str(self.files))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        guard.watch(process.pid, signal.SIGTERM)

        def answer() -> Any:
            output, _ = process.communicate(timeout=PATIENCE_S)
            if process.returncode != 0:
                raise DemoFailed(f"the single process ended with status {process.returncode}")
            return json.loads(output)

        try:
            yield answer
        finally:
            process.kill()
            process.wait()
            guard.forget(process.pid)

    @contextmanager
    def topics(self) -> Iterator[None]:
        """The demo's topic. On a broker that was adopted it is deleted at the end, with what members made beside it."""
        create_topics(self.kafka, {self.topic: PARTITIONS}, replication=-1)
        try:
            yield
        finally:
            if self.stack.broker is None:
                # Named: without a reference the client is gone before its futures resolve.
                admin = AdminClient(self.kafka.admin())
                for future in admin.delete_topics([self.topic, dead_letter_topic(self.topic)]).values():
                    try:
                        future.result(10)
                    except KafkaException as error:
                        self.say(f"could not delete a topic: {error.args[0].str()}")

    def publish(self) -> None:
        with Publisher(self.kafka, topic=self.topic, source="stdlib-index-demo") as publisher:
            handle = publisher.fan_out(
                self.thread_id, [Send("index_file", path) for path in self.paths], fold="merge_indexes"
            )
        self.fan_out_id, self.task_ids = handle.fan_out_id, handle.task_ids
        self.say(f"published {handle.size} Sends as fan-out {handle.fan_out_id}")

    def kill_one(self) -> Kill:
        """Kill the member that began a file last, when a good third of the results is stored."""
        self.wait_for("the first results", lambda: self.progress().done >= LOOK_FROM * len(self.paths))
        # A little before, because asking busy members takes a moment in which the middle could pass.
        metrics = {member.pid: member.metrics() for member in self.members}
        self.wait_for("the middle", lambda: self.progress().done >= KILL_FROM * len(self.paths))
        pid = audit.read_calls(self.runs_file)[-1].pid
        victim = next(member for member in self.members if member.pid == pid)
        victim.kill()
        kill = Kill(victim, time.time(), self.progress().done, metrics[pid])
        percent = 100 * kill.done // len(self.paths)
        self.say(f"kill -9 {pid}, which is member {victim.number}, at {kill.done}/{len(self.paths)}, {percent} %")
        return kill

    def replay(self) -> None:
        """Read the whole topic again, with the members alive, and wait until that is done."""
        ends = {held.partition: held.next_offset for held in self.held() if held.next_offset is not None}
        command = ["replay", "--group", self.group, "--topic", self.topic, "--to-earliest", "--fence", "--execute"]
        self.say(f"fanfold {' '.join(command)}")
        done = subprocess.run(
            [fanfold_program(), *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        if done.returncode != 0:
            raise DemoFailed(f"fanfold replay ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        # It has set every partition back, so that being here again means that everything was read again.
        self.wait_for("the replay", lambda: all((h.next_offset or 0) >= ends.get(h.partition, 0) for h in self.held()))
        self.say("the replay is through")

    # Looking.

    def say(self, text: str) -> None:
        self.screen.say(time.monotonic() - self.started, text)

    def progress(self) -> audit.Progress:
        return audit.read_progress(self.database, self.fan_out_id)

    def held(self) -> list[audit.Held]:
        return audit.read_held(self.database, self.group, self.topic)

    def metrics(self) -> list[dict[str, float]]:
        return [member.metrics() for member in self.members if not member.killed]

    def all_at_work(self) -> bool:
        owners = [held.owner for held in self.held() if held.owner is not None]
        return len(owners) == PARTITIONS and set(owners) == {m.owner for m in self.members if not m.killed}

    def wait_for(self, what: str, reached: Callable[[], bool]) -> None:
        """Look until it is so; shows how things stand meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            for member in self.members:
                member.look()
            now = time.monotonic()
            if now > deadline:
                raise DemoFailed(f"waited {PATIENCE_S:g} s for {what} in vain\n{self.how_it_stands()}")
            if now - self._shown_at >= SHOW_S:
                self._shown_at = now
                self.screen.show(now - self.started, self.picture())
            time.sleep(LOOK_S)

    def how_it_stands(self) -> str:
        """For an error message: where every partition is, and what the members said last."""
        held = [f"  partition {h.partition}: next offset {h.next_offset}, owner {h.owner}" for h in self.held()]
        logs = [f"--- member {member.number}, pid {member.pid}\n{member.log_tail()}" for member in self.members]
        return "\n".join([str(self.progress()), *held, *logs])

    def picture(self) -> Picture:
        progress = self.progress()
        by_owner: dict[str | None, list[int]] = {}
        for held in self.held():
            by_owner.setdefault(held.owner, []).append(held.partition)
        rows = []
        for member in self.members:
            partitions = tuple(by_owner.get(member.owner, [])) if member.owner else ()
            state = "running" if partitions else "waiting" if member.owner else "starting"
            rows.append(MemberRow(member.number, member.pid, "killed" if member.killed else state, partitions))
        return Picture(tuple(rows), progress.done, len(self.paths), progress.state)


@click.command()
@click.option("--files", type=click.IntRange(10), help="Only so many files of the library, evenly spaced.")
def main(files: int | None) -> None:
    """Index the standard library with a fleet, kill a member, replay the topic, and count what happened."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        with Screen() as screen, Stack.start() as stack:
            screen.say(time.monotonic() - started, f"PostgreSQL and broker ({stack.broker_kind}) are up")
            demo = Demo(stack, screen, files, started)
            verdict = demo.run()
    except (DemoFailed, MemberDied, DevStackError, ProducerError, StoreError) as error:
        click.echo(f"demo: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("demo: interrupted; members and servers are stopped", err=True)
        sys.exit(130)
    print(f"\n{verdict}")
    sys.exit(not verdict.is_right(len(demo.paths)))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: what follows is the clean-up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
