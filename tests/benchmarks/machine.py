"""What the figures were measured on, what is installed there, and whom the processor's time went to."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

_BLOCK_BYTES = 8192
_FLUSHES = 100
_LIBRARIES = ("fanfold", "confluent-kafka", "psycopg", "msgspec", "ormsgpack")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def facts(*, broker: str, postgres: str, flush_in: Path | None = None) -> dict[str, str]:
    """By name, in the order in which they are shown.

    Args:
        broker: as `BenchStack.broker`.
        postgres: what the server says is its version.
        flush_in: a folder on the disk whose flushes are timed; the temporary folder's when None.
    """
    return {
        "broker": broker,
        "postgres": postgres,
        "cpu": f"{os.cpu_count()} × {_cpu_model()}",
        "memory": f"{_memory_gib():.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "flush": f"{flush_us(flush_in or Path(tempfile.gettempdir())):.0f} µs (8 KiB written and flushed, median)",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES),
        "load": f"{os.getloadavg()[0]:.1f} (average of the minute before)",
    }


def is_installed(module: str) -> bool:
    """Without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it would be in
        return False


def flush_us(folder: Path) -> float:
    """What a flush costs there, as a commit pays it: the median of 100 blocks written in place, each with fdatasync."""
    costs = []
    block = os.urandom(_BLOCK_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:
        # The file exists in full first, as WAL segments do; else every flush would also store a new length.
        os.pwrite(file.fileno(), block * _FLUSHES, 0)
        os.fsync(file.fileno())
        for number in range(_FLUSHES):
            began = time.perf_counter()
            os.pwrite(file.fileno(), block, number * _BLOCK_BYTES)
            os.fdatasync(file.fileno())
            costs.append(time.perf_counter() - began)
    return statistics.median(costs) * 1e6


def descendants(pid: int) -> list[int]:
    """The process and all below it that live; of a server, its workers too."""
    found = [pid]
    for parent in found:
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found.extend(map(int, listing.read_text().split()))
            except OSError:
                continue  # it ended meanwhile
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time so far, in steps of 10 ms. A child that has ended counts with the parent that waited for it."""
    return sum(map(_process_ticks, set(pids))) / _TICKS_PER_S


def _process_ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The name in parentheses may have spaces in it. User and system time, then both of the children waited for.
    return sum(map(int, text.rpartition(")")[2].split()[11:15]))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
