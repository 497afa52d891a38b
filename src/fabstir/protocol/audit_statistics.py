"""The arithmetic behind a verdict: how far honest figures may stray, at a rate of error that is chosen beforehand.
Pure.

Two questions only. How large may the mean of n bounded measurements be (`bernstein_excess`: Bernstein's inequality,
valid for every n and every distribution inside the bound, so that nothing is assumed about tails that a calibration has
not seen)? How often may something rare happen in n attempts (`most_of`: the exact binomial tail)? Neither knows what is
measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

SMALLEST_BOUND: Final = 1e-4
"""Nats. Where all honest measurements agree exactly, a difference this small is still no evidence."""
BOUND_QUANTILE: Final = 0.999
BOUND_FACTOR: Final = 2
"""What lies above twice this quantile is counted as if it lay there: one wild value must not decide about a thousand tokens. Twice, so
that a cheat's values stand out even where all honest ones are the same."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration saw of one measurement on honest answers."""

    bound: float
    """Values are cut here before they are averaged."""
    mean: float
    variance: float
    effect: float
    """How many times more the mean of an answer varies than that of independent values would: tokens of one answer share their past."""
    count: int
    """Measurements."""
    answers: int

    def threshold(self, count: int, rate: float) -> float:
        """The mean of `count` honest values is above this with a probability of at most `rate`, the calibration's own error included."""
        return self.mean + self._excess(count, rate) + self._excess(self.count, rate)

    def _excess(self, count: int, rate: float) -> float:
        return bernstein_excess(self.variance, self.bound, count / self.effect, rate)


def cut_mean(values: Sequence[float], bound: float) -> float:
    """The mean of the values, each cut at `bound`."""
    return math.fsum(min(value, bound) for value in values) / len(values)


def spread_of(answers: Sequence[Sequence[float]], largest: float = math.inf) -> Spread:
    """The spread of honest values, given answer by answer. `largest`: what a value can be at most."""
    values = sorted(value for answer in answers for value in answer)
    if not values:
        raise ValueError("nothing was measured")
    quantile = values[min(len(values) - 1, int(BOUND_QUANTILE * len(values)))]
    bound = min(largest, max(SMALLEST_BOUND, BOUND_FACTOR * quantile))
    mean = cut_mean(values, bound)
    variance = math.fsum((min(value, bound) - mean) ** 2 for value in values) / len(values)
    sums = [math.fsum(min(value, bound) - mean for value in answer) for answer in answers]
    together = math.fsum(part * part for part in sums)
    alone = variance * len(values)
    return Spread(
        bound=bound,
        mean=mean,
        variance=variance,
        effect=max(1.0, together / alone) if alone > 0 else 1.0,
        count=len(values),
        answers=len(answers),
    )


def bernstein_excess(variance: float, bound: float, count: float, rate: float) -> float:
    """How far the mean of `count` independent values in [0, bound] exceeds its expectation with probability at most `rate`."""
    if count <= 0:
        return math.inf
    linear = bound * math.log(1 / rate) / (3 * count)
    return linear + math.sqrt(linear * linear + 2 * variance * math.log(1 / rate) / count)


def upper_rate(events: int, trials: int, doubt: float = 0.05) -> float:
    """The largest rate at which `events` or fewer in `trials` would still happen with probability `doubt` (Clopper and Pearson)."""
    if trials <= 0 or events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(events, trials, middle) > doubt else (low, middle)
    return high


@lru_cache(maxsize=4096)
def most_of(trials: int, rate: float, doubt: float) -> int:
    """The smallest number that is exceeded with probability at most `doubt` in `trials` attempts."""
    if rate >= 1:
        return trials
    reached = 0.0
    for count in range(trials):
        reached += _exactly(count, trials, rate)
        if 1 - reached <= doubt:
            return count
    return trials


def at_most(events: int, trials: int, rate: float) -> float:
    """The probability of `events` or fewer in `trials` independent attempts."""
    if events >= trials:
        return 1.0
    return min(1.0, math.fsum(_exactly(count, trials, rate) for count in range(events + 1)))


def _exactly(events: int, trials: int, rate: float) -> float:
    if not 0 < rate < 1:
        return float(events == (trials if rate >= 1 else 0))
    ways = math.lgamma(trials + 1) - math.lgamma(events + 1) - math.lgamma(trials - events + 1)
    return math.exp(ways + events * math.log(rate) + (trials - events) * math.log1p(-rate))
