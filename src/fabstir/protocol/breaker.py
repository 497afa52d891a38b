"""When something that failed is left alone, and when it is tried again.

A forgiving circuit breaker: FAILURES in WINDOW seconds open it, for REST seconds; then one probe decides, and each probe that fails
doubles the rest up to LONGEST_REST. A success closes it and forgets everything. What the asker did wrong is no failure: whoever calls
tells only of the other side's. Sans I/O, time is an argument. Memory: FAILURES times.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

FAILURES: Final = 3
WINDOW_SECONDS: Final = 60.0
REST_SECONDS: Final = 15.0
LONGEST_REST_SECONDS: Final = 120.0


class Circuit(Enum):
    """How a breaker stands."""

    CLOSED = "closed"
    """Works, as far as is known."""
    OPEN = "open"
    """Left alone."""
    PROBING = "probing"
    """One attempt is under way, and nothing else is let through."""


class Breaker:
    """Of one thing that is asked."""

    def __init__(self) -> None:
        self._failed: deque[float] = deque(maxlen=FAILURES)
        self._rest = REST_SECONDS
        self._until: float | None = None
        """When the next probe may go."""
        self._probing = False
        self.reason = ""
        """Of the last failure."""

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value} {self.reason}>"

    @property
    def state(self) -> Circuit:
        """Without a look at the time."""
        if self._until is None:
            return Circuit.CLOSED
        return Circuit.PROBING if self._probing else Circuit.OPEN

    def allows(self, now: float) -> bool:
        """Whether something may be tried."""
        return self._until is None or (not self._probing and now >= self._until)

    def wait(self, now: float) -> float:
        """Seconds until the next probe; 0 where something may be tried."""
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def begin(self) -> None:
        """An attempt that `allows` let through goes out."""
        self._probing = self._until is not None

    def succeeded(self) -> None:
        """It works."""
        self._failed.clear()
        self._rest, self._until, self._probing, self.reason = REST_SECONDS, None, False, ""

    def failed(self, now: float, reason: str) -> None:
        """It does not, through no fault of who asked."""
        self.reason = reason
        if self._probing:
            self._rest = min(2 * self._rest, LONGEST_REST_SECONDS)
            self._until, self._probing = now + self._rest, False
            return
        self._failed.append(now)
        if self._until is None and len(self._failed) == FAILURES and now - self._failed[0] <= WINDOW_SECONDS:
            self._until = now + self._rest

    def undecided(self) -> None:
        """The attempt ended without saying whether it works: the asker left, or was wrong."""
        self._probing = False
