"""What redriving a dead letter would do, or why it is left alone. Pure: from the letter and where its task stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fanfold_producer.fan_out import WRITTEN_BYTES_MAX
from fanfold_schemas import SchemaError, Task, arg_hash, decode_task
from fanfold_sql import Standing, StoredDeadLetter


class Action(StrEnum):
    """What becomes of a letter. Redriving is one of the first three, whichever its task needs."""

    RERUN = "rerun"
    """The task runs again under a new run; its fan-out waits for it and folds anew."""
    REFOLD = "refold"
    """The fold runs again under a new run, over the results as they are."""
    RESEND = "resend"
    """The record is published again, byte for byte."""
    DROP = "drop"
    """Nothing; the letter is marked as done with."""


class Why(StrEnum):
    """Why a letter is left alone. The first four: there is nothing left to do for it."""

    REDRIVEN = "redriven"
    DONE = "done"
    RUNNING = "running"
    SUPERSEDED = "superseded"
    DROPPED = "dropped"
    STALE = "stale"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    PRUNED = "pruned"
    CLOSED = "closed"
    CONFLICT = "conflict"
    NO_VALUE = "no_value"
    TOO_LARGE = "too_large"
    TOPIC_MISSING = "topic_missing"
    UNKNOWN = "unknown"


_MOOT = frozenset({Why.REDRIVEN, Why.DONE, Why.RUNNING, Why.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Outlook:
    """What redriving would do (`action`), or why nothing (`why`), and both in words (`text`)."""

    action: Action | None
    why: Why | None
    text: str

    @property
    def fails(self) -> bool:
        """Whether the record is lost to its fan-out as long as nobody does something else about it."""
        return self.why is not None and self.why not in _MOOT


@dataclass(frozen=True, slots=True)
class Decision:
    """A letter and what is, or was, done with it.

    Attributes:
        task: what it decodes to, if it does.
        run: the new run of its task, once it has one.
    """

    letter: StoredDeadLetter
    outlook: Outlook
    task: Task | None = None
    run: int | None = None


def decide(
    letters: Sequence[StoredDeadLetter], standings: Mapping[int, Standing], missing_topics: Collection[str] = ()
) -> list[Decision]:
    """One decision per letter, in order. `missing_topics`: those that do not exist any more."""
    decisions = [_decide(letter, standings[letter.dead_letter_id], missing_topics) for letter in letters]
    reopened = {d.task.fan_out.id for d in decisions if d.task is not None and d.outlook.action is Action.RERUN}
    # A fold whose tasks run again follows by itself.
    return [
        replace(d, outlook=_left(Why.RUNNING, _FOLDS_BY_ITSELF))
        if d.outlook.action is Action.REFOLD and d.letter.fan_out_id in reopened
        else d
        for d in decisions
    ]


def _decide(letter: StoredDeadLetter, standing: Standing, missing_topics: Collection[str]) -> Decision:
    task: Task | None = None
    try:
        task = decode_task(letter.value)
    except SchemaError as error:
        outlook = _resent(
            letter, f"; it does not decode here ({error.code}), and is parked again unless members can take it"
        )
    else:
        outlook = _outlook(letter, standing, task)
    outlook = resolved(standing.resolution) or outlook
    if outlook.action is not None:
        outlook = _unpublishable(letter, outlook.action, missing_topics) or outlook
    return Decision(letter, outlook, task)


def resolved(resolution: str | None) -> Outlook | None:
    """Why a letter that was redriven or dropped before is left alone; None: it was neither."""
    match resolution:
        case "redriven":
            return _left(Why.REDRIVEN, "it was redriven already")
        case "dropped":
            return _left(Why.DROPPED, "it was dropped")
    return None


def _outlook(letter: StoredDeadLetter, standing: Standing, task: Task) -> Outlook:
    if letter.task_id is None:
        return _resent(letter, ", and decodes by now")
    match standing.ended_by:
        case "stale":
            return _left(Why.STALE, "its thread has moved past the base of its fan-out")
        case "caller":
            return _left(Why.CANCELLED, "its fan-out was cancelled")
        case "deadline":
            return _left(Why.EXPIRED, "its fan-out ended at its deadline")
    if letter.code == "E_CONFLICT":
        return _resent(letter, "; it is parked again if what it contradicts is still there")
    if standing.newer_id is not None:
        return _left(Why.SUPERSEDED, f"its task died again: see dead letter {standing.newer_id}")
    if standing.status is None:
        return _uncounted(letter, standing)
    if standing.index != task.index or standing.arg_hash != arg_hash(task):
        return _left(Why.CONFLICT, "it contradicts the result that is stored for its task")
    return _counted(standing, task, letter.topic)


def _uncounted(letter: StoredDeadLetter, standing: Standing) -> Outlook:
    """Its task has no result, not even a failed one."""
    if letter.code == "E_COMMIT" and not standing.complete:
        return _resent(letter)
    if standing.fan_out_run is None:
        return _left(Why.PRUNED, "its fan-out is not known any more: publish it again")
    return _left(Why.CLOSED, "its fan-out completed without it")


def _counted(standing: Standing, task: Task, topic: str) -> Outlook:
    if standing.status == "done":
        return _left(Why.DONE, "its task has a result by now")
    if standing.status == "pending":
        return _left(Why.RUNNING, "its task is on its way again already")
    if not task.is_fold:
        text = "its task runs again, and its fan-out waits for it and folds anew"
        if standing.refused:
            text += (
                f". {standing.refused} more of its tasks were refused after too many failures, and it waits for them, "
                f"too: publish them again with `fanfold replay --topic {topic} --thread {task.thread_id} --execute`"
            )
        return Outlook(Action.RERUN, None, text)
    if not standing.complete or standing.fan_out_run != standing.run:
        return _left(Why.RUNNING, _FOLDS_BY_ITSELF)
    return Outlook(Action.REFOLD, None, "its fan-out folds again, from the results as they are")


def _unpublishable(letter: StoredDeadLetter, action: Action, missing_topics: Collection[str]) -> Outlook | None:
    if letter.topic in missing_topics:
        return _left(Why.TOPIC_MISSING, f"there is no topic {letter.topic} any more: create it, then repeat")
    if letter.value is None:
        return _left(Why.NO_VALUE, "a record without a value is no task")
    size = len(letter.key or b"") + len(letter.value) + len(letter.headers or b"")
    if action is not Action.REFOLD and size > WRITTEN_BYTES_MAX:
        return _left(
            Why.TOO_LARGE, f"{size:,} bytes are more than a broker takes by default: publish something smaller"
        )
    return None


def _resent(letter: StoredDeadLetter, note: str = "") -> Outlook:
    # Headers that are null could not be read, so they could not be kept either.
    lost = "" if letter.headers is not None else ", but without its headers, which could not be kept"
    return Outlook(Action.RESEND, None, f"its record is published again, byte for byte{lost}{note}")


def _left(why: Why, text: str) -> Outlook:
    return Outlook(None, why, text)


_FOLDS_BY_ITSELF = "its fan-out was reopened, and a new fold follows by itself"
