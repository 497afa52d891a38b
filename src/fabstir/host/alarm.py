"""One task that waits until a core has something to do. Set anew after each input, it costs nothing where the time has only moved back: it
then rings too early, nothing is found to do, and it is set again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fabstir.ports.clock import Clock


class Alarm:
    """Memory: a task."""

    def __init__(self, clock: Clock, ring: Callable[[], Awaitable[None]]) -> None:
        self._clock = clock
        self._ring = ring
        self._due: float | None = None
        self._waiting: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Alarm {'off' if self._due is None else self._due}>"

    def set(self, due: float | None) -> None:
        """Ring then, or before; None: not at all."""
        if due == self._due or (due is not None and self._due is not None and self._due < due):
            return
        self.stop()
        self._due = due
        if due is not None:
            self._waiting = asyncio.create_task(self._wait(due), name="alarm")

    def rung(self) -> None:
        """It did."""
        self._due = None

    def stop(self) -> None:
        """Not any more."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._due, self._waiting = None, None

    async def _wait(self, due: float) -> None:
        await self._clock.sleep(due - self._clock.monotonic())
        await self._ring()
