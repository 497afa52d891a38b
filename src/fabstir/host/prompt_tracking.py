"""Tells readers how prompt jobs get on: `fabstir.protocol.prompt_tracking` with somebody who waits for the next change.

A reader that is slow misses changes and is told so (`lagged`); no writer waits for a reader, and readers are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.prompts import PromptId
from fabstir.protocol.prompt_tracking import FINAL, Changes, Position, PromptTracker, Snapshot, TrackedChange

MAX_READERS: Final = 256
"""Streams at the same time; more are refused with `capacity`."""
HEARTBEAT_SECONDS: Final = 15.0
"""So often a stream without news says that it lives."""


class Progress(msgspec.Struct, frozen=True):
    """One step of a reader: a change, or None as a sign of life."""

    change: TrackedChange | None
    position: Position
    lagged: bool = False
    """Changes between the last step and this one were forgotten."""


class Tracking:
    """Memory: that of the tracker, and one event."""

    def __init__(self, epoch: int) -> None:
        """`epoch` differs at each start."""
        self._tracker = PromptTracker(epoch)
        self._changed = asyncio.Event()
        self._readers = 0

    def __repr__(self) -> str:
        return f"<Tracking {self._tracker!r}, {self._readers} readers>"

    @property
    def position(self) -> Position:
        """After the last change."""
        return self._tracker.position

    def publish(self, prompt: PromptId, stage: str, at: float, reason: str = "") -> None:
        """Note that `prompt` reached `stage`; saying the same again says nothing."""
        known = self._tracker.status(prompt)
        if known is not None and (known.stage, known.reason) == (stage, reason):
            return
        self._tracker.publish(prompt, stage, at, reason)
        self._changed.set()
        self._changed = asyncio.Event()

    def status(self, prompt: PromptId) -> TrackedChange:
        """The last change. Raises Refused (`prompt_unknown`)."""
        known = self._tracker.status(prompt)
        if known is None:
            raise error("prompt_unknown", prompt.hex())
        return known

    def follow(self, prompt: PromptId, after: Position | None) -> AsyncIterator[Progress]:
        """What follows `after`, until the job is over here. Raises Refused (`prompt_unknown`, `capacity`) at once."""
        self.status(prompt)
        if self._readers >= MAX_READERS:
            raise error("capacity", f"{MAX_READERS} streams are open")
        return self._follow(prompt, after)

    async def _follow(self, prompt: PromptId, position: Position | None) -> AsyncIterator[Progress]:
        self._readers += 1
        try:
            while True:
                changed, found = self._changed, self._tracker.read(position)
                position = found.position
                for change in _about(prompt, found):
                    yield Progress(change, position, isinstance(found, Snapshot) and found.lagged)
                last = self._tracker.status(prompt)
                if last is None or (last.stage in FINAL and position == self._tracker.position):
                    return
                if position == self._tracker.position and not await _within(changed, HEARTBEAT_SECONDS):
                    yield Progress(None, position)
        finally:
            self._readers -= 1


def _about(prompt: PromptId, found: Changes | Snapshot) -> list[TrackedChange]:
    changes = found.changes if isinstance(found, Changes) else found.jobs
    return [change for change in changes if change.prompt == prompt]


async def _within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
