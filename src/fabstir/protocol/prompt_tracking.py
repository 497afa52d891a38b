"""Where every prompt job stands, as a stream that anybody can join late: ordered, without gaps, bounded.

Each change has the next sequence number. A reader asks for what comes `after` the last number that it has: it gets exactly
the next ones; or, where it has none yet, a snapshot; or, where it was so slow that they are forgotten, a snapshot marked
`lagged`. A snapshot says up to which number it holds, so nothing is missed and nothing comes twice. In memory: after a restart
the numbers start again under a new `epoch`, and every reader gets a snapshot. Never blocks a writer for a reader.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice
from typing import Final

import msgspec

from fabstir.domain.prompts import PromptId

FINAL: Final = frozenset({"settling", "ended"})
"""Stages of `prompt_log.Stage` and `prompt_order_log.OrderStage` after which nothing follows here."""


class TrackedChange(msgspec.Struct, frozen=True, array_like=True):
    """One job reached one stage."""

    sequence: int
    prompt: PromptId
    stage: str
    at: float
    reason: str = ""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a reader is. Opaque to it; it hands back the last one that it got."""

    epoch: int
    sequence: int


class Changes(msgspec.Struct, frozen=True, tag="changes"):
    """Exactly what follows the reader's position; empty where it has everything."""

    changes: tuple[TrackedChange, ...]
    position: Position


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """The last change of every job that is remembered, oldest first; `lagged`: changes between were missed."""

    jobs: tuple[TrackedChange, ...]
    position: Position
    lagged: bool


class PromptTracker:
    """Memory: `kept` changes, one change for each running job, and the last one of `finished` jobs that are over."""

    def __init__(self, epoch: int, kept: int = 16_384, finished: int = 10_000) -> None:
        """`epoch` differs at each start (a start time will do)."""
        self._epoch: Final = epoch
        self._finished: Final = finished
        self._changes: deque[TrackedChange] = deque(maxlen=kept)
        self._sequence = 0
        self._running: OrderedDict[PromptId, TrackedChange] = OrderedDict()
        self._over: OrderedDict[PromptId, TrackedChange] = OrderedDict()

    def __repr__(self) -> str:
        return f"<PromptTracker {self._sequence} changes, {len(self._running)} running, {len(self._over)} over>"

    @property
    def position(self) -> Position:
        """After the last change."""
        return Position(self._epoch, self._sequence)

    def status(self, prompt: PromptId) -> TrackedChange | None:
        """The last change of one job; None where it is not known, or forgotten."""
        return self._running.get(prompt) or self._over.get(prompt)

    def publish(self, prompt: PromptId, stage: str, at: float, reason: str = "") -> TrackedChange:
        """Note that `prompt` reached `stage`."""
        self._sequence += 1
        change = TrackedChange(self._sequence, prompt, stage, at, reason)
        self._changes.append(change)
        self._running.pop(prompt, None)
        self._over.pop(prompt, None)
        if stage not in FINAL:
            self._running[prompt] = change
            return change
        self._over[prompt] = change
        if len(self._over) > self._finished:
            self._over.popitem(last=False)
        return change

    def read(self, after: Position | None, limit: int = 256) -> Changes | Snapshot:
        """What a reader at `after` gets next: at most `limit` changes, or a snapshot."""
        if limit < 1:
            raise ValueError("a reader that takes nothing never gets on")
        known = after is not None and after.epoch == self._epoch and after.sequence <= self._sequence
        if not known or after is None:
            return self._snapshot(lagged=after is not None)
        missing = self._sequence - after.sequence
        if missing > len(self._changes):
            return self._snapshot(lagged=True)
        start = len(self._changes) - missing
        changes = self._tail(start, min(limit, missing))
        return Changes(changes, Position(self._epoch, after.sequence + len(changes)))

    def _tail(self, start: int, count: int) -> tuple[TrackedChange, ...]:
        """From the nearer end: a deque is walked, and readers are nearly always at its end."""
        length = len(self._changes)
        if start > length // 2:
            newest_first = tuple(islice(reversed(self._changes), length - start))
            return newest_first[::-1][:count]
        return tuple(islice(self._changes, start, start + count))

    def _snapshot(self, lagged: bool) -> Snapshot:
        jobs = sorted((*self._over.values(), *self._running.values()), key=lambda change: change.sequence)
        return Snapshot(tuple(jobs), self.position, lagged)
