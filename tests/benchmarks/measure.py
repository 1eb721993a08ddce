"""How contenders are compared: in turns, and by ratios of the same round, because the machine drifts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

Sample: TypeAlias = float
Progress: TypeAlias = Callable[[str, int, Sample], None]
"""Told (contender, round from 0, sample) after each run."""


def interleave(
    contenders: Mapping[str, Callable[[], Sample]], repetitions: int, progress: Progress | None = None
) -> dict[str, list[Sample]]:
    """Run every contender once a round. Each round begins with another one, so that none is always first.

    Returns:
        The samples of each contender, by round; so position n of two contenders is one pair.
    """
    if repetitions < 1:
        raise ValueError(f"{repetitions} repetitions; at least 1 gives a figure")
    names = list(contenders)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(repetitions):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            sample = contenders[name]()
            samples[name].append(sample)
            if progress is not None:
                progress(name, number, sample)
    return samples


def median(values: Sequence[Sample]) -> float:
    return statistics.median(values)


def spread(values: Sequence[Sample]) -> tuple[float, float]:
    """The smallest and the largest."""
    return min(values), max(values)


def percentile(values: Sequence[Sample], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank), so always one that was measured.

    Args:
        percent: above 0, at most 100.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"percentile {percent}: above 0, at most 100")
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values to take a percentile of")
    # In whole numbers: 0.07 * 100 is more than 7 as a float, and would be rounded up to the next rank.
    rank = -(-len(ordered) * round(percent * 1000) // 100_000)
    return ordered[max(rank, 1) - 1]


def ratio(of: Sequence[Sample], to: Sequence[Sample]) -> float:
    """The median of the quotients of each round, which a machine that slows down for some rounds does not change."""
    if len(of) != len(to):
        raise ValueError(f"{len(of)} samples cannot be paired with {len(to)}: both are needed of every round")
    return median([a / b for a, b in zip(of, to, strict=True)])
