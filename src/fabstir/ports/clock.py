"""Time, injected: nothing in the cores reads a clock."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall time for deadlines that both sides and the chain share; monotonic time for everything measured here."""

    def now(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock."""
        ...
