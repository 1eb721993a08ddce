"""The reducer in Postgres: migrations, procedures, and a typed face of every procedure."""

from __future__ import annotations

from fanfold_sql.errors import (
    Conflict,
    Fenced,
    MigrationNeeded,
    Rewound,
    StoreError,
    StoreRejected,
    StoreUnavailable,
)
from fanfold_sql.migrate import MigrationRefused, MigrationReport, migrate
from fanfold_sql.pool import connect, open_pool
from fanfold_sql.records import (
    CancelledThread,
    Claim,
    CommitBatch,
    CommitReply,
    CompletedFanOut,
    DeadLetter,
    FanOutState,
    Finished,
    FoldOf,
    Islands,
    OutboxRecord,
    OutboxRow,
    PartitionCommit,
    PartitionState,
    Pruned,
    StoredDeadLetter,
    StoredResult,
    ThreadState,
)
from fanfold_sql.store import Store, reopen_fan_out

__all__ = [
    "CancelledThread",
    "Claim",
    "CommitBatch",
    "CommitReply",
    "CompletedFanOut",
    "Conflict",
    "DeadLetter",
    "FanOutState",
    "Fenced",
    "Finished",
    "FoldOf",
    "Islands",
    "MigrationNeeded",
    "MigrationRefused",
    "MigrationReport",
    "OutboxRecord",
    "OutboxRow",
    "PartitionCommit",
    "PartitionState",
    "Pruned",
    "Rewound",
    "Store",
    "StoreError",
    "StoreRejected",
    "StoreUnavailable",
    "StoredDeadLetter",
    "StoredResult",
    "ThreadState",
    "connect",
    "migrate",
    "open_pool",
    "reopen_fan_out",
]
