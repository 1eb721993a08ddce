"""What the database may answer instead of a result. The class says what the caller does next."""

from __future__ import annotations

import json

import psycopg


class StoreError(Exception):
    """Base of all errors of the store."""


class StoreUnavailable(StoreError):
    """Postgres did not answer, or broke off: whether the statement took effect is unknown.

    Do: pause and make the same call again. Every procedure is safe to repeat.
    """


class StoreRejected(StoreError):
    """Postgres refused the statement itself (a value it cannot take, a missing migration or privilege).

    Do: not repeat it. Nothing was stored. `sqlstate` and the message say why.
    """

    def __init__(self, message: str, sqlstate: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class _PartitionsLost(StoreError):
    def __init__(self, message: str, progress_ids: frozenset[int]) -> None:
        super().__init__(message)
        self.progress_ids = progress_ids


class Fenced(_PartitionsLost):
    """A newer (epoch, owner) holds some partitions. Do: drop their work; it is done again where they are now."""


class Rewound(_PartitionsLost):
    """The database is behind what it once acknowledged for some partitions (failover). Do: claim again and seek."""


class Conflict(StoreError):
    """Some results contradict what is stored. Do: park those (`positions`, 0-based), commit the others."""

    def __init__(self, message: str, positions: frozenset[int]) -> None:
        super().__init__(message)
        self.positions = positions


class LockTimedOut(StoreUnavailable):
    """A lock was not granted within the server's or the caller's limit. Nothing was stored."""


class Busy(StoreError):
    """Others commit to some threads. Do: commit the rest, and come again for these.

    `thread_ids`: which; empty where a limited wait was not enough: ask again without one.
    """

    def __init__(self, message: str, thread_ids: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.thread_ids = thread_ids


class MigrationNeeded(StoreError):
    """The database lacks the schema, or has one of another release. Do: run `fanfold migrate`."""


class PreparedLost(StoreError):
    """A pooler that passes for Postgres itself mixes up prepared statements. Do: stop, and start without them."""


def translate(error: psycopg.Error) -> StoreError:
    """The store's error for psycopg's."""
    state = error.sqlstate
    message = error.diag.message_primary or str(error) or type(error).__name__
    detail = error.diag.message_detail
    match state:
        case "ZF001":
            return Fenced(message, frozenset(json.loads(detail or "[]")))
        case "ZF002":
            return Rewound(message, frozenset(json.loads(detail or "[]")))
        case "ZF003":
            return Conflict(message, frozenset(position - 1 for position in json.loads(detail or "[]")))
        case "ZF006":
            return Busy(message, frozenset(json.loads(detail or "[]")))
        case "3F000" | "42883" | "42P01":
            return MigrationNeeded(f"{message}; run `fanfold migrate` against this database")
        case "26000" | "42P05":
            return PreparedLost(
                f"{message}: a pooler lends this connection's server to others, and keeps no prepared statements "
                "apart; pass `--no-prepare` (`prepare=False` to a Publisher or a Store)"
            )
        case "55P03":
            return LockTimedOut(message)
        case "25006" | "25P03" | "25P04":
            # psycopg calls them internal errors. A server that takes no writes is a standby in mid-failover, and no
            # result is to blame for it; the others are timeouts of the server's.
            return StoreUnavailable(message)
        case str() if state.startswith("XX"):
            # Damaged tables, faults of the server: parked as dead letters, good results would be lost by the thousand.
            return StoreUnavailable(f"{message} ({state})")
        case str() if state.startswith("54"):
            # psycopg calls them operational. A value that is too large for Postgres stays so.
            return StoreRejected(f"{message} ({state})", state)
        case _ if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            # Includes deadlock, serialization failure, shutdown, too many connections, lock table full: all pass.
            return StoreUnavailable(message)
        case _:
            return StoreRejected(f"{message} ({state})", state)
