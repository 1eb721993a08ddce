"""Fuzz the wire: make up bytes for so many seconds and look for any that break a property of `wire_properties`.

`python -m tests.property.fuzz_wire --seconds 60` lets libFuzzer (atheris) look for inputs that reach new code. Where
atheris is not installed it says so and changes known inputs at random instead, which finds far less. An input that
breaks something is written to `tests/property/found/` and is part of the corpus from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.property.corpus import FOUND
from tests.property.wire_properties import check, seeds

# What mutations put in: every leading byte of msgpack that announces something, lengths at their edges, words we know.
TOKENS = (
    *(bytes([lead]) for lead in range(0x80, 0x100)),
    *(size.to_bytes(width, "big") for width in (1, 2, 4) for size in (0, 1, 31, 32, 255, 2 ** (8 * width) - 1)),
    *(b"\xa4node", b"\xa3arg", b"\xa4base", b"\xa7fan_out", b"\xa4size", b"\xa5index", b"\xa3run", b"\xa1v\x01"),
    *(b"\xcb\x7f\xf0", b"\xca\x7f\x80", b"\xcf\x80", b"\xd3\x80", b"\0", b"\xa2a\0", b"\xa1a", b"\xed\xa0\x80"),
)


def mutations(known: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Known inputs with a few changes each, for ever; the same for the same seed."""
    chance = random.Random(seed)
    while True:
        data = bytearray(chance.choice(known))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            _mutate(data, known, chance)
        yield bytes(data)


def _mutate(data: bytearray, known: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16)))
    match chance.randrange(8):
        case 0 | 6 | 7:
            data[at:end] = chance.randbytes(end - at)
        case 1:
            del data[at:end]
        case 2:
            data[at:at] = chance.choice(TOKENS)
        case 3:
            data[at:end] = chance.choice(TOKENS)
        case 4:
            data[at:at] = data[at:end] * chance.choice((1, 2, 40))
        case _:
            other = chance.choice(known)
            data[at:] = other[chance.randrange(len(other) + 1) :]


def keep(data: bytes, folder: Path = FOUND) -> Path:
    """Write an input that broke something to where the corpus is."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.write_bytes(data)
    return path


def fuzz_unguided(seconds: float, seed: int) -> tuple[int, list[Path]]:
    """How many inputs were tried, and the files of those that broke something."""
    deadline = time.monotonic() + seconds
    kinds: dict[str, Path] = {}
    execs = 0
    for data in mutations(seeds(), seed):
        if time.monotonic() > deadline:
            break
        execs += 1
        try:
            check(data)
        except Exception as error:
            note(error, data, kinds)
    return execs, list(kinds.values())


def note(error: Exception, data: bytes, kinds: dict[str, Path], folder: Path = FOUND) -> None:
    """Keep an input that broke something in a new way: one of each kind is enough."""
    kind = f"{type(error).__name__}: {re.sub(r'[0-9]+', 'n', str(error)):.80}"
    if kind not in kinds:
        kinds[kind] = keep(data, folder)
        print(f"fuzz_wire: found {kinds[kind]}: {error!r:.300}", file=sys.stderr)


def fuzz_guided(seconds: float, seed: int) -> tuple[int, list[Path]]:
    """The same by libFuzzer, in a process of its own: it ends the one it runs in."""
    before = set(FOUND.glob("*.bin"))
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds()):
            (Path(folder) / f"{number:04}").write_bytes(data)
        (Path(folder) / "tokens.dict").write_text("".join(f'"{_escaped(token)}"\n' for token in TOKENS))
        command = [sys.executable, "-m", "tests.property.fuzz_wire_guided", folder, f"-seed={seed}", "-max_len=4096"]
        command += [f"-dict={folder}/tokens.dict", f"-max_total_time={max(1, round(seconds))}", "-timeout=10"]
        command += ["-print_final_stats=1", f"-artifact_prefix={folder}/"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        # What ends the process, a crash of the decoder say, is kept by libFuzzer.
        for pattern in ("crash-*", "timeout-*", "oom-*"):
            for path in Path(folder).glob(pattern):
                print(f"fuzz_wire: found {keep(path.read_bytes())}", file=sys.stderr)
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    if executed is None:
        print(done.stderr[-4000:], file=sys.stderr)
        raise SystemExit("fuzz_wire: libFuzzer ended before it had begun; its last words are above")
    print("\n".join(line for line in done.stderr.splitlines() if "fuzz_wire:" in line), file=sys.stderr)
    return int(executed[1]), sorted(set(FOUND.glob("*.bin")) - before)


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fuzz_wire", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        print(
            "fuzz_wire: atheris is not installed, so this is not coverage-guided: inputs are changed at random. "
            "Install it with `pip install atheris` (Linux, CPython).",
            file=sys.stderr,
        )
    execs, found = (fuzz_guided if guided else fuzz_unguided)(options.seconds, options.seed)
    print(f"fuzz_wire: execs={execs} findings={len(found)} guided={int(guided)}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
