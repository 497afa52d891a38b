"""Rounds of answers at the same time, and what they come to: shared by the benchmarks that compare two ways to have answers made."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Iterable

import psutil


class Round:
    """What one round of answers came to."""

    def __init__(self) -> None:
        self.first: list[float] = []
        """Seconds to the first token of each."""
        self.tokens = 0
        self.seconds = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second, all answers together."""
        return self.tokens / self.seconds

    async def made(self, answers: Awaitable[object]) -> Round:
        """This round, once `answers` are there."""
        began = time.perf_counter()
        await answers
        self.seconds = time.perf_counter() - began
        return self


def rate_of(rounds: Iterable[Round]) -> float:
    """Median, tokens a second."""
    return statistics.median(each.rate for each in rounds)


def first_ms(rounds: Iterable[Round]) -> float:
    """Median time to the first token."""
    return 1000 * statistics.median(value for each in rounds for value in each.first)


def cpu_of(process: int) -> float:
    """CPU seconds so far of one process, without its children."""
    return sum(psutil.Process(process).cpu_times()[:2])
