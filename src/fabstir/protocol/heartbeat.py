"""Is the other side still there? When to ask, and when to conclude that it is not.

Pure: the time is an argument, in seconds of any monotonic clock. It never sends and never closes; host and renter have one each.
Whatever arrives is a sign of life, not `pong` alone. A connection whose peer is gone without a word (half-open: a cable, a NAT, a
suspended machine) is noticed after two periods.
"""

from __future__ import annotations

from enum import Enum


class Beat(Enum):
    """What is to be done now."""

    NOTHING = "nothing"
    ASK = "ask"
    """Send `ping`."""
    SILENT = "silent"
    """The peer was asked and said nothing: give the connection up."""


class Heartbeat:
    """Of one connection. Memory: three numbers."""

    def __init__(self, period: float, now: float) -> None:
        self._period = period
        self._since = now
        self._asked = False
        self.count = 0
        """Pings sent: the id of the next one."""

    def __repr__(self) -> str:
        return f"<Heartbeat {self._period} s, {'asked' if self._asked else 'heard'}>"

    @property
    def deadline(self) -> float:
        """When `tick` has something to do."""
        return self._since + self._period

    def heard(self, now: float) -> None:
        """Something arrived, or this side begins to listen again."""
        self._since, self._asked = now, False

    def tick(self, now: float) -> Beat:
        """Time has passed."""
        if now < self.deadline:
            return Beat.NOTHING
        if self._asked:
            return Beat.SILENT
        self._since, self._asked = now, True
        self.count += 1
        return Beat.ASK
