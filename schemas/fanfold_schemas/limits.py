"""Every limit of the wire, in one place: a record beyond one of them is refused before anything is run or stored."""

from __future__ import annotations

RECORD_BYTES_MAX = 1024 * 1024
"""Kafka's own default for `message.max.bytes`, so that an accepted record is also a publishable one."""

RESULT_BYTES_MAX = 16 * 1024 * 1024
"""Results live in Postgres, not on the topic; a fold that collects a wide fan-out needs more room than a record."""

DEPTH_MAX = 32
NODES_MAX = 100_000
STRING_BYTES_MAX = 256 * 1024
ID_CHARS_MAX = 200
BRANCH_CHARS_MAX = 512
BRANCHES_MAX = 64
FAN_OUT_SIZE_MAX = 100_000
RUN_MAX = 2**31 - 1
INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

CLAIM_CHECK_BYTES_MAX = 64 * 1024 * 1024
"""One object behind a claim check. Handlers hold it whole, encoded and decoded, so it is a limit on memory."""

CLAIM_CHECK_NODES_MAX = 1_000_000
"""Ten times a record's: some 100 MB and a second of checking for the worst of them. Longer arrays go as bytes."""
