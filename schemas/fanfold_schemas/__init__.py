"""What is on the wire: tasks, fan-outs, clocks, ids, headers, and the strict codec with its limits."""

from __future__ import annotations

from fanfold_schemas.claim_check import ClaimCheck, claim_check_for, encode_check, object_key, payload_check
from fanfold_schemas.clock import VectorClock
from fanfold_schemas.codec import (
    arg_hash,
    decode_payload,
    decode_task,
    decode_value,
    encode_payload,
    encode_task,
    pack_value,
    read_payload,
    with_attempt,
    with_run,
)
from fanfold_schemas.errors import SchemaError
from fanfold_schemas.headers import Headers, header_text, pack_headers, task_headers, unpack_headers
from fanfold_schemas.ids import (
    check_id,
    derive_child_fan_out_id,
    derive_fold_task_id,
    derive_task_id,
    new_fan_out_id,
)
from fanfold_schemas.outcome import Outcome
from fanfold_schemas.task import FOLD_INDEX, FanOut, Send, Task, to_send
from fanfold_schemas.topics import DEFAULT_TOPIC, check_topic, dead_letter_topic

__all__ = [
    "DEFAULT_TOPIC",
    "FOLD_INDEX",
    "ClaimCheck",
    "FanOut",
    "Headers",
    "Outcome",
    "SchemaError",
    "Send",
    "Task",
    "VectorClock",
    "arg_hash",
    "check_id",
    "check_topic",
    "claim_check_for",
    "dead_letter_topic",
    "decode_payload",
    "decode_task",
    "decode_value",
    "derive_child_fan_out_id",
    "derive_fold_task_id",
    "derive_task_id",
    "encode_check",
    "encode_payload",
    "encode_task",
    "header_text",
    "new_fan_out_id",
    "object_key",
    "pack_headers",
    "pack_value",
    "payload_check",
    "read_payload",
    "task_headers",
    "to_send",
    "unpack_headers",
    "with_attempt",
    "with_run",
]
