"""A clock that moves only when a test moves it.

Implements `fabstir.ports.clock.Clock`. `advance` wakes sleepers in the order of their deadlines, ties in the order in
which they went to sleep, each at exactly its deadline; so a scenario with timers runs the same way every time and takes
no wall time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

SETTLE_ROUNDS = 20
"""How many turns of the event loop a woken task gets before time moves on: enough for a chain of that many awaits."""


class ManualClock:
    """Wall and monotonic time advance together. Memory: one heap entry per sleeper."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._start = now
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<ManualClock now={self.now():g} sleepers={self.sleepers}>"

    def now(self) -> float:
        """Unix seconds."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._elapsed

    @property
    def sleepers(self) -> int:
        """How many tasks wait for this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    @property
    def next_wake(self) -> float | None:
        """Seconds until the first sleeper wakes; None where nobody sleeps."""
        live = [deadline for deadline, _, future in self._sleepers if not future.done()]
        return min(live) - self._elapsed if live else None

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved the clock by `seconds`; at once (after one turn of the loop) for zero or less."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time on by `seconds`, stopping at each deadline on the way so that what wakes there runs, and may sleep again."""
        if seconds < 0:
            raise ValueError("time does not go back")
        target = self._elapsed + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            deadline, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self._elapsed = max(self._elapsed, deadline)
            future.set_result(None)
            await _settle()
        self._elapsed = target
        await _settle()


async def _settle() -> None:
    for _ in range(SETTLE_ROUNDS):
        await asyncio.sleep(0)
