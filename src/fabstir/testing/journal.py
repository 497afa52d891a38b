"""The journal and the outbox store in memory, with a hook at every write.

Implements `fabstir.ports.journal.Journal` and `OutboxStore`. What was written belongs to the "disk", which outlives the
journal object: `reopen()` gives the next process its journal over the same disk and makes the old object refuse every
write, as a killed process would. Never writes a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from fabstir.domain.errors import error
from fabstir.ports.journal import OutboxEntry

WritePhase = Literal["before", "after"]
WriteHook = Callable[[int, WritePhase], None]
"""Called with the number of the write (1, 2, ...) before it is made and after it is durable but not yet acknowledged."""


class SimulatedCrash(BaseException):
    """The process died here. Not an Exception: nothing that handles errors may handle this."""


def crash_at(number: int, phase: WritePhase = "after") -> WriteHook:
    """A hook that kills the life of a journal at write `number`; every later write of that life dies as well."""

    def hook(write: int, when: WritePhase) -> None:
        if write > number or (write == number and when == phase):
            raise SimulatedCrash(f"write {number}, {phase}")

    return hook


class _Disk:
    """What survives a crash."""

    def __init__(self) -> None:
        self.events: dict[str, list[bytes]] = {}
        self.entries: dict[str, OutboxEntry] = {}


class MemoryJournal:
    """Each `append` and each `put` is one write. Memory: everything ever written."""

    def __init__(self, on_write: WriteHook | None = None, *, disk: _Disk | None = None) -> None:
        self._disk = disk or _Disk()
        self._on_write = on_write
        self._closed = False
        self.writes = 0
        """Writes asked of this life of the journal, crashed ones included."""

    def __repr__(self) -> str:
        streams, entries = len(self._disk.events), len(self._disk.entries)
        return f"<MemoryJournal writes={self.writes} streams={streams} outbox={entries}>"

    def reopen(self, on_write: WriteHook | None = None) -> MemoryJournal:
        """The journal of the next process: same disk, new hook, writes counted from 1 again."""
        self._closed = True
        return MemoryJournal(on_write, disk=self._disk)

    async def close(self) -> None:
        """Nothing can be written afterwards."""
        self._closed = True

    # -- Journal
    async def append(self, stream: str, events: Sequence[bytes]) -> None:
        """Append all of `events` to `stream`, in one write; no events are no write."""
        kept = [bytes(event) for event in events]
        if not kept:
            return
        self._write(lambda: self._disk.events.setdefault(stream, []).extend(kept))

    async def read(self, stream: str) -> list[bytes]:
        """Every event of `stream`, oldest first."""
        return list(self._disk.events.get(stream, ()))

    async def streams(self) -> list[str]:
        """Every stream, oldest first."""
        return list(self._disk.events)

    # -- OutboxStore
    async def put(self, entry: OutboxEntry) -> None:
        """Insert or replace by `key`; a replaced entry keeps its place in the order."""
        self._write(lambda: self._disk.entries.__setitem__(entry.key, entry))

    async def get(self, key: str) -> OutboxEntry | None:
        """The entry, if any."""
        return self._disk.entries.get(key)

    async def unfinished(self) -> list[OutboxEntry]:
        """Entries that are planned or signed, oldest first."""
        return [entry for entry in self._disk.entries.values() if entry.status in ("planned", "signed")]

    def _write(self, apply: Callable[[], object]) -> None:
        if self._closed:
            raise error("journal_failed", detail="the journal is closed")
        self.writes += 1
        number = self.writes
        if self._on_write:
            self._on_write(number, "before")
        apply()
        if self._on_write:
            self._on_write(number, "after")
