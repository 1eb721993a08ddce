"""Records that break the contract, each in one way, with the code that it is refused with.

`make` builds the value of the Kafka record; it is called when it is needed, because some take a megabyte. `path` says
where the refusal points to, as far as that is known before the record is read.
"""

from __future__ import annotations

import gzip
import json
import pickle
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ormsgpack

from fanfold_schemas import FOLD_INDEX, encode_task
from fanfold_schemas.limits import (
    BRANCH_CHARS_MAX,
    BRANCHES_MAX,
    DEPTH_MAX,
    FAN_OUT_SIZE_MAX,
    ID_CHARS_MAX,
    NODES_MAX,
    RECORD_BYTES_MAX,
    RUN_MAX,
    STRING_BYTES_MAX,
)
from tests.unit.wire import TASK, fields, record_with, record_with_raw_arg

_GOOD = encode_task(TASK)
_4G = b"\xff\xff\xff\xff"
_NAN = b"\xcb\x7f\xf8" + b"\0" * 6


@dataclass(frozen=True, slots=True)
class BadRecord:
    name: str
    make: Callable[[], bytes | None]
    code: str
    path: str = "$"


def _raw(name: str, raw: bytes, code: str, path: str = "$") -> BadRecord:
    """These very bytes as the whole value."""
    return BadRecord(name, lambda: raw, code, path)


def _arg(name: str, raw: bytes | Callable[[], bytes], code: str, path: str = "$.arg") -> BadRecord:
    """These very bytes as the arg of a good record."""
    return BadRecord(name, lambda: record_with_raw_arg(raw if isinstance(raw, bytes) else raw()), code, path)


def _field(name: str, code: str, path: str, **changes: Any) -> BadRecord:
    """A good record but for these fields."""
    return BadRecord(name, lambda: record_with(**changes), code, path)


def _fan_out(name: str, code: str, path: str, **changes: Any) -> BadRecord:
    return _field(name, code, f"$.fan_out{path}", fan_out={"id": "f", "size": 3, **changes})


def _without(field: str) -> BadRecord:
    def make() -> bytes:
        given = fields()
        del given[field]
        return ormsgpack.packb(given)

    return BadRecord(f"without {field}", make, "E_SCHEMA")


def _without_node(name: str, raw_arg: Callable[[], bytes]) -> BadRecord:
    """An arg that costs the most that a good one may, in a record that is refused only after it was built."""

    def make() -> bytes:
        return record_with_raw_arg(raw_arg()).replace(b"\xa4node\xa4work", b"\xa4nope\xa4work")

    return BadRecord(name, make, "E_SCHEMA")


def wide(count: int, item: bytes, tail: bytes = b"") -> bytes:
    """A list of so many times this value, and `tail` as its last."""
    return b"\xdd" + (count + bool(tail)).to_bytes(4, "big") + item * count + tail


def _nested_extensions(levels: int) -> bytes:
    data = b"\xc0"
    for _ in range(levels):
        data = b"\xc9" + len(data).to_bytes(4, "big") + b"\x05" + data
    return data


def _constructor(module: str, name: str, *arguments: Any) -> bytes:
    """An extension as LangGraph's serializer writes one: import this, call it with these."""
    body = ormsgpack.packb((module, name, list(arguments)))
    return b"\xc9" + len(body).to_bytes(4, "big") + b"\x00" + body


FRAMING = [
    BadRecord("no value", lambda: None, "E_FRAME"),
    _raw("an empty value", b"", "E_FRAME"),
    _raw("one byte that is a number", b"\x01", "E_FRAME"),
    _raw("one byte that announces a map", b"\x81", "E_FRAME"),
    _raw("one byte that msgpack never uses", b"\xc1", "E_FRAME"),
    _raw("half a record", _GOOD[: len(_GOOD) // 2], "E_FRAME"),
    _raw("a record without its last byte", _GOOD[:-1], "E_FRAME"),
    _raw("a trailing byte", _GOOD + b"\0", "E_FRAME"),
    _raw("a trailing newline", _GOOD + b"\n", "E_FRAME"),
    _raw("two records", _GOOD + _GOOD, "E_FRAME"),
    _raw("a list of records", b"\x92" + _GOOD * 2, "E_FRAME"),
    _raw("a record within bytes", ormsgpack.packb(_GOOD), "E_FRAME"),
    _raw("a record within text", ormsgpack.packb(json.dumps({"v": 1})), "E_FRAME"),
    _raw("nil", b"\xc0", "E_FRAME"),
    _raw("an empty list", b"\x90", "E_FRAME"),
    _raw("JSON", json.dumps({"v": 1, "task_id": "t"}).encode(), "E_FRAME"),
    _raw("XML", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "E_FRAME"),
    _raw("a pickle", pickle.dumps({"v": 1, "task_id": "t"}), "E_FRAME"),
    _raw("a pickle that runs a program", b"cposix\nsystem\n(S'true'\ntR.", "E_FRAME"),
    _raw("gzip", gzip.compress(_GOOD, mtime=0), "E_FRAME"),
    _raw("a record in a schema registry's envelope", b"\0\0\0\0\x01" + _GOOD, "E_FRAME"),
    _raw("text in UTF-16", '{"v": 1}'.encode("utf-16"), "E_FRAME"),
    _raw("zeros", b"\0" * 1000, "E_FRAME"),
    _raw("ones", b"\xff" * 1000, "E_FRAME"),
    _raw("a kilobyte of noise", random.Random(1).randbytes(1000), "E_FRAME"),
    _raw("a megabyte of noise", random.Random(2).randbytes(RECORD_BYTES_MAX), "E_FRAME"),
    _arg("a truncated list", b"\x93\x01\x02", "E_FRAME", "$"),
    _arg("a truncated map", b"\x82\xa1a\x01", "E_FRAME", "$"),
    _arg("a truncated text", b"\xa5abc", "E_FRAME", "$"),
    _arg("a truncated length", b"\xdb\x00\x00", "E_FRAME", "$"),
    _arg("a truncated float", b"\xcb\x3f", "E_FRAME", "$"),
    _arg("a duplicate key", b"\x82\xa1a\x01\xa1a\x02", "E_FRAME"),
    _arg("a duplicate key in another form", b"\x82\xa1a\x01\xdb\0\0\0\x01a\x02", "E_FRAME"),
    _arg("keys that are 1, true and 1.0", b"\x83\x01\x01\xc3\x01\xcb\x3f\xf0" + b"\0" * 6 + b"\x01", "E_FRAME"),
    _arg("a key that is a number", b"\x81\x01\x01", "E_FRAME"),
    _arg("a key that is nil", b"\x81\xc0\x01", "E_FRAME"),
    _arg("a key that is bytes", b"\x81\xc4\x01a\x01", "E_FRAME"),
    _arg("a key that is a list", b"\x81\x91\x01\x01", "E_FRAME"),
    _arg("a key that is a map", b"\x81\x80\x01", "E_FRAME"),
    BadRecord(
        "a duplicate field",
        lambda: bytes([_GOOD[0] + 1]) + _GOOD[1:] + ormsgpack.packb("task_id") + ormsgpack.packb("other"),
        "E_FRAME",
    ),
]

BOMBS = [
    BadRecord("one byte more than a record may have", lambda: record_of_size(RECORD_BYTES_MAX + 1), "E_LIMIT"),
    BadRecord("two megabytes of zeros", lambda: b"\0" * (2 * RECORD_BYTES_MAX), "E_LIMIT"),
    _arg("lists 33 deep", b"\x91" * DEPTH_MAX + b"\x01", "E_LIMIT"),
    _arg("maps 33 deep", b"\x81\xa1a" * DEPTH_MAX + b"\x01", "E_LIMIT"),
    _arg("lists 256 deep", b"\x91" * 256 + b"\x01", "E_LIMIT"),
    _arg("lists 1,023 deep", b"\x91" * 1023 + b"\x01", "E_LIMIT"),
    _arg("lists 1,024 deep", b"\x91" * 1024 + b"\x01", "E_LIMIT"),
    _arg("maps 1,023 deep", b"\x81\xa1a" * 1023 + b"\x01", "E_LIMIT"),
    _arg("lists 100,000 deep", b"\x91" * 100_000 + b"\x01", "E_LIMIT"),
    _arg("maps 100,000 deep", b"\x81\xa1a" * 100_000 + b"\x01", "E_LIMIT"),
    _raw("lists 100,000 deep and no record", b"\x91" * 100_000 + b"\x01", "E_LIMIT"),
    _arg("a list of 4 G announced", b"\xdd" + _4G, "E_FRAME", "$"),
    _arg("a map of 4 G announced", b"\xdf" + _4G, "E_FRAME", "$"),
    _arg("a text of 4 G announced", b"\xdb" + _4G, "E_LIMIT"),
    _arg("bytes of 4 G announced", b"\xc6" + _4G, "E_LIMIT"),
    _arg("a key of 4 G announced", b"\x81\xdb" + _4G, "E_LIMIT"),
    _arg("an extension of 4 G announced", b"\xc9" + _4G + b"\x01", "E_EXT"),
    _arg("lists of 65,535 within each other, all announced", b"\xdc\xff\xff" * 300, "E_FRAME", "$"),
    _arg("a million empty lists", lambda: wide(1_000_000, b"\x90"), "E_LIMIT", "$"),
    _arg("a million empty maps", lambda: wide(1_000_000, b"\x80"), "E_LIMIT", "$"),
    _arg("a million numbers", lambda: wide(1_000_000, b"\x01"), "E_LIMIT", "$"),
    _arg("a million lists in a hundred lists", lambda: wide(100, wide(9_999, b"\x90")), "E_LIMIT", "$"),
    _arg("100,001 values", lambda: wide(NODES_MAX, b"\xc0"), "E_LIMIT", "$"),
    _arg("ten maps of one key 49,000 times", lambda: _one_key_again_and_again(10), "E_FRAME"),
    _arg("100,000 values and a NaN", lambda: wide(99_900, b"\xa1a", _NAN), "E_VALUE"),
    _arg("100,000 long forms and a NaN", lambda: wide(33_200, b"\x81\xdb\0\0\0\1a\xdb\0\0\0\1b", _NAN), "E_VALUE"),
    _arg("a text beyond 256 KiB", lambda: ormsgpack.packb("x" * (STRING_BYTES_MAX + 1)), "E_LIMIT"),
    _arg("bytes beyond 256 KiB", lambda: ormsgpack.packb(b"x" * (STRING_BYTES_MAX + 1)), "E_LIMIT"),
    _arg("a key beyond 256 KiB", lambda: ormsgpack.packb({"x" * (STRING_BYTES_MAX + 1): 1}), "E_LIMIT"),
    BadRecord("a zstd bomb of a gibibyte", lambda: zstd_bomb(8192), "E_FRAME"),
    BadRecord("a gzip bomb of 64 megabytes", lambda: gzip_bomb(64), "E_FRAME"),
    _without_node("100,000 empty lists without a node", lambda: wide(99_900, b"\x90")),
    _without_node("100,000 lists 30 deep without a node", lambda: wide(3_200, b"\x91" * 29 + b"\x01")),
    _without_node("33,000 maps without a node", lambda: wide(33_200, b"\x81\xa1a\x01")),
]

SCALARS = [
    _arg("NaN", _NAN, "E_VALUE"),
    _arg("NaN in four bytes", b"\xca\x7f\xc0\0\0", "E_VALUE"),
    _arg("NaN with a payload", b"\xcb\xff\xff" + b"\xff" * 6, "E_VALUE"),
    _arg("infinity", b"\xcb\x7f\xf0" + b"\0" * 6, "E_VALUE"),
    _arg("minus infinity in four bytes", b"\xca\xff\x80\0\0", "E_VALUE"),
    _arg("NaN deep in the arg", b"\x81\xa5inner\x91\x81\xa4deep" + _NAN, "E_VALUE", "$.arg.inner.deep"),
    _arg("the largest unsigned integer", b"\xcf" + b"\xff" * 8, "E_VALUE"),
    _arg("2^63", b"\xcf\x80" + b"\0" * 7, "E_VALUE"),
    _arg("NUL in text", b"\xa3a\0b", "E_VALUE"),
    _arg("NUL in a long text", lambda: ormsgpack.packb("a" * 70_000 + "\0"), "E_VALUE"),
    _arg("NUL in a key", b"\x81\xa2a\0\x01", "E_VALUE"),
    _field("NUL in an id", "E_VALUE", "$.task_id", task_id="a\0"),
    _field("NUL in a branch", "E_VALUE", "$.base", base={"a\0": 1}),
    _arg("text that is no UTF-8", b"\xa2\xff\xfe", "E_FRAME", "$"),
    _arg("text that is cut within a character", b"\xa2\xe2\x82", "E_FRAME", "$"),
    _arg("an encoded surrogate", b"\xa3\xed\xa0\x80", "E_FRAME", "$"),
    _arg("a surrogate pair in CESU-8", b"\xa6\xed\xa0\xbd\xed\xb8\x80", "E_FRAME", "$"),
    _arg("an overlong slash", b"\xa2\xc0\xaf", "E_FRAME", "$"),
    _arg("an overlong NUL", b"\xa2\xc0\x80", "E_FRAME", "$"),
    _arg("a character beyond Unicode", b"\xa4\xf5\x80\x80\x80", "E_FRAME", "$"),
    _arg("a key that is no UTF-8", b"\x81\xa1\xff\x01", "E_FRAME", "$"),
]

EXTENSIONS = [
    _arg("a constructor that runs a program", _constructor("os", "system", "true"), "E_EXT"),
    _arg("a constructor that compiles a slow pattern", _constructor("re", "compile", "(a+)+$"), "E_EXT"),
    _arg("a constructor of a huge number", _constructor("decimal", "Decimal", "1e1000000000"), "E_EXT"),
    _arg("a constructor of a path", _constructor("pathlib", "PurePath", "/etc/passwd"), "E_EXT"),
    _arg("an unknown extension", b"\xd4\x2ax", "E_EXT"),
    _arg("an empty extension", b"\xc7\x00\x01", "E_EXT"),
    _arg("an extension of the lowest code", b"\xd4\x80x", "E_EXT"),
    _arg("a truncated extension", b"\xc7\x05\x01ab", "E_EXT"),
    _arg("a timestamp in 4 bytes", b"\xd6\xff\0\0\0\0", "E_EXT"),
    _arg("a timestamp in 8 bytes", b"\xd7\xff" + b"\0" * 8, "E_EXT"),
    _arg("a timestamp in 12 bytes", b"\xc7\x0c\xff" + b"\0" * 12, "E_EXT"),
    _arg("a timestamp of no bytes", b"\xc7\x00\xff", "E_EXT"),
    _arg("extensions nested 900 deep", lambda: _nested_extensions(900), "E_EXT"),
    _arg("an extension as a key", b"\x81\xd4\x01x\x01", "E_FRAME"),
    _arg("an extension deep in the arg", b"\x81\xa1a\x91\xd4\x01x", "E_EXT", "$.arg.a"),
    _raw("an extension in place of the record", b"\xc7\x03\x01abc", "E_EXT"),
    _field("an extension in place of an id", "E_EXT", "$.task_id", task_id=ormsgpack.Ext(5, b"t")),
]

# A text that is no id, whatever field it stands in. As an arg each of them is a value like any other.
HOSTILE_TEXTS = {
    "SQL metacharacters": "'; drop table fanfold.result; --",
    "a format string": "%s%n{0.__class__}",
    "CRLF": "a\r\nfanfold-node: evil",
    "a trailing newline": "task-1\n",
    "an ANSI sequence": "\x1b[2J\x1b[31mowned",
    "homoglyphs": "t\N{CYRILLIC SMALL LETTER A}sk-1",
    "full-width letters": "\N{FULLWIDTH LATIN SMALL LETTER T}ask-1",
    "a right-to-left override": "task\N{RIGHT-TO-LEFT OVERRIDE}1-",
    "a zero-width space": "task\N{ZERO WIDTH SPACE}-1",
    "a combining character": "ta\N{COMBINING ACUTE ACCENT}sk",
    "a path": "../../etc/passwd",
    "a URL": "http://127.0.0.1:1/x",
    "blanks": "task 1",
    "6 KB": "x" * 6000,
    "much backtracking": "a" * (STRING_BYTES_MAX - 1) + "!",
}

SCHEMA = [
    *(_without(name) for name in ("task_id", "thread_id", "fan_out", "index", "node")),
    BadRecord("without v", lambda: ormsgpack.packb({k: x for k, x in fields().items() if k != "v"}), "E_SCHEMA", "$.v"),
    _raw("an empty map", b"\x80", "E_SCHEMA", "$.v"),
    _field("a version that is not there yet", "E_SCHEMA", "$.v", v=2),
    _field("a version that is text", "E_SCHEMA", "$.v", v="1"),
    _field("a version that is true", "E_SCHEMA", "$.v", v=True),
    _field("a version that is 100,000 floats", "E_SCHEMA", "$.v", v=[0.1] * 99_900),
    *(_field(f"an id of {name}", "E_LIMIT", "$.task_id", task_id=text) for name, text in HOSTILE_TEXTS.items()),
    *(_field(f"a thread of {name}", "E_LIMIT", "$.thread_id", thread_id=text) for name, text in HOSTILE_TEXTS.items()),
    *(_field(f"a node of {name}", "E_LIMIT", "$.node", node=text) for name, text in HOSTILE_TEXTS.items()),
    _field("an empty id", "E_LIMIT", "$.task_id", task_id=""),
    _field("an id of 201 characters", "E_LIMIT", "$.task_id", task_id="x" * (ID_CHARS_MAX + 1)),
    _field("an id that is nil", "E_SCHEMA", "$.thread_id", thread_id=None),
    _field("an id that is a number", "E_SCHEMA", "$.task_id", task_id=1),
    _field("an id that is bytes", "E_SCHEMA", "$.node", node=b"work"),
    _fan_out("size 0", "E_LIMIT", ".size", size=0),
    _fan_out("size -1", "E_LIMIT", ".size", size=-1),
    _fan_out("size 2^31", "E_LIMIT", ".size", size=2**31),
    _fan_out("one more than the largest size", "E_LIMIT", ".size", size=FAN_OUT_SIZE_MAX + 1),
    _fan_out("a size that is true", "E_SCHEMA", ".size", size=True),
    _fan_out("a size that is a float", "E_SCHEMA", ".size", size=3.0),
    _fan_out("a size that is text", "E_SCHEMA", ".size", size="3"),
    _fan_out("a fan-out id with a slash", "E_LIMIT", ".id", id="a/b"),
    _fan_out("a fold that is no name", "E_LIMIT", ".fold", fold="a b"),
    _fan_out("quorum 0", "E_LIMIT", ".quorum", quorum=0),
    _fan_out("a quorum above the size", "E_SCHEMA", ".quorum", quorum=4),
    _fan_out("deadline 0", "E_LIMIT", ".deadline_ms", deadline_ms=0),
    _fan_out("a deadline beyond a bigint", "E_VALUE", ".deadline_ms", deadline_ms=2**63),
    _field("a fan-out without a size", "E_SCHEMA", "$.fan_out", fan_out={"id": "f"}),
    _field("a fan-out that is a list", "E_SCHEMA", "$.fan_out", fan_out=["f", 3]),
    _field("a fan-out that is its id", "E_SCHEMA", "$.fan_out", fan_out="f"),
    _field("an index of the size", "E_SCHEMA", "$.index", index=3),
    _field("index -2", "E_LIMIT", "$.index", index=-2),
    _field("index 2^31", "E_LIMIT", "$.index", index=2**31),
    _field("an index beyond a bigint", "E_VALUE", "$.index", index=2**63),
    _field("an index that is false", "E_SCHEMA", "$.index", index=False),
    _field("a fold of a fan-out without one", "E_SCHEMA", "$.node", index=FOLD_INDEX, node="sum"),
    _field("run 0", "E_LIMIT", "$.run", run=0),
    _field("run 2^31", "E_LIMIT", "$.run", run=RUN_MAX + 1),
    _field("attempt 0", "E_LIMIT", "$.attempt", attempt=0),
    _field("a base that is a list", "E_SCHEMA", "$.base", base=["main", 1]),
    _field("a counter below 0", "E_LIMIT", "$.base", base={"main": -1}),
    _field("a counter beyond a bigint", "E_VALUE", "$.base.main", base={"main": 2**63}),
    _field("a counter that is a float", "E_SCHEMA", "$.base", base={"main": 1.0}),
    _field("65 branches", "E_LIMIT", "$.base", base={str(n): 1 for n in range(BRANCHES_MAX + 1)}),
    _field("49,000 branches", "E_LIMIT", "$.base", base={str(n): 1 for n in range(49_000)}),
    _field("a branch of 513 characters", "E_LIMIT", "$.base", base={"x" * (BRANCH_CHARS_MAX + 1): 1}),
]


def zstd_bomb(blocks: int) -> bytes:
    """A zstd frame that unpacks to so many times 128 KiB of zeros: blocks of a repeated byte, four bytes each."""
    size = blocks * 128 * 1024
    block = (128 * 1024 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (128 * 1024 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + block * (blocks - 1) + last


def gzip_bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    return b"".join([packer.compress(b"\0" * 1024 * 1024) for _ in range(megabytes)]) + packer.flush()


def record_of_size(size: int) -> bytes:
    """A good record but for its size, if that is one byte too many."""
    pieces = [b"x" * (STRING_BYTES_MAX - 100)] * 4
    short = size - len(record_with(arg=[*pieces, b""]))
    record = record_with(arg=[*pieces, b"x" * (short - 1)])
    assert len(record) == size
    return record


def _one_key_again_and_again(maps: int) -> bytes:
    """Maps within each other. Each entry takes two bytes here and a hundred in memory, if pairs are collected first."""
    return (b"\xdf" + (49_000).to_bytes(4, "big") + b"\xa0\xc0" * 48_998 + b"\xa0") * maps + b"\xc0"
