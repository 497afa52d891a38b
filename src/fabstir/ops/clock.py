"""The machine's clock, for whatever is not a test."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Implements `fabstir.ports.clock.Clock`."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
