"""Whether a work takes more than it took before."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ROUNDS = 4  # what noise can be told from
MEGABYTES = 1.0  # by which memory may differ from run to run; seen was 0.1


@dataclass(frozen=True)
class Verdict:
    """A comparison with what it was before.

    Args:
        what: Work, mode, contestant and quantity.
        ratio: That of now to before.
        noise: How much of the ratio may be chance. NaN: too little is known.
        worse: Whether it is above the bound by more than that.
    """

    what: str
    ratio: float
    noise: float
    worse: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.ratio:.3f} (noise {self.noise:.3f})"


def noise(times: Sequence[float]) -> float:
    """By what share the medians of alternate rounds differ, which should be the same.

    What the machine does by the way hits both alike, unless it is so much that the
    median of all rounds can not be trusted either.
    """
    if len(times) < ROUNDS:
        return math.nan
    even, odd = statistics.median(times[::2]), statistics.median(times[1::2])
    return max(even, odd) / min(even, odd) - 1


def of_times(
    what: str, now: Sequence[float], before: Sequence[float], bound: float
) -> Verdict:
    """Worse if the medians' ratio is, less the noise, and that of the fastest rounds.

    Others who use the machine make rounds slower, never faster: so the fastest ones
    are known best, and the medians are what one usually gets.
    """
    ratio = statistics.median(now) / statistics.median(before)
    chance = max(noise(now), noise(before))
    worse = ratio > bound * (1 + chance) and min(now) / min(before) > bound
    return Verdict(what, ratio, chance, worse)


def of_memory(what: str, now: float, before: float, bound: float) -> Verdict:
    """Worse if it is above the bound by more than memory differs anyway."""
    ratio = now / before if before else math.inf
    chance = MEGABYTES / before if before else math.inf
    return Verdict(what, ratio, chance, now > bound * before + MEGABYTES)


def summary(verdicts: Sequence[Verdict], bound: float) -> str:
    """All that is worse, or that nothing is."""
    worse = [verdict for verdict in verdicts if verdict.worse]
    unknown = [verdict for verdict in verdicts if math.isnan(verdict.noise)]
    lines = [
        f"{len(verdicts)} comparisons, {len(worse)} worse by more than a factor of"
        f" {bound:g} and the noise"
    ]
    lines += [f"worse: {verdict}" for verdict in worse]
    if unknown:
        lines.append(
            f"not known: {len(unknown)}; noise shows from {ROUNDS} rounds on, memory on"
            " Linux"
        )
    return "\n".join(lines)
