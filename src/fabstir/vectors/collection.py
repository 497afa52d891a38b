"""One collection at work: written through its log, searched in threads, rebuilt beside.

The event loop owns what is in memory. A write is logged and applied; a search runs in a thread on one moment's segments; the keeper
asks the plan what to rebuild and lets the building thread do it, while writes and searches go on. A rebuild replaces segments in
memory at once and on the disk by the next manifest; only then are the old files and the log behind it removed. If a rebuild fails,
everything is served from what there is, the problem is told (`stats`), and it is tried again at the next occasion.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fabstir.domain.errors import FabstirError
from fabstir.ports.clock import Clock
from fabstir.ports.vectors import CollectionStats, Hit, Point, Search, SegmentStats
from fabstir.protocol.vectors import manifest, plan
from fabstir.protocol.vectors.collection import CollectionSpec
from fabstir.protocol.vectors.filters import Filter
from fabstir.protocol.vectors.log import Deleted, Upserted
from fabstir.protocol.vectors.manifest import Manifest
from fabstir.protocol.vectors.plan import Policy, Task
from fabstir.protocol.vectors.points import Batch, PointId
from fabstir.vectors import files, storing, wal
from fabstir.vectors.contents import Contents
from fabstir.vectors.opening import Opened
from fabstir.vectors.scoring import Query
from fabstir.vectors.segments import Segment

Result = TypeVar("Result")
LOOK_SECONDS: Final = 3_600.0
"""How often age is looked at; size is looked at when it changes."""
LOG_BYTES: Final = 256 << 20
"""A file of the log is closed above, however few rows are in it."""
_SETTLE_ROWS: Final = 2_000
_ID_BYTES: Final = 16


class Threads(msgspec.Struct, frozen=True):
    """Who waits for what."""

    disk: Executor
    search: Executor
    build: Executor
    rebuild: Callable[..., Segment] = storing.rebuild
    """What the building thread does."""


class Copy(msgspec.Struct, frozen=True):
    """One moment of a collection, all of it in files, which stay until `release`."""

    manifest: Manifest
    directory: Path


class Collection:
    """Open it with `opening.open_collection`; `close` at the end."""

    def __init__(self, directory: Path, opened: Opened, policy: Policy, clock: Clock, threads: Threads) -> None:
        self.spec: CollectionSpec = opened.contents.spec
        self.contents: Contents = opened.contents
        self._directory = directory
        self._policy = policy
        self._clock = clock
        self._threads = threads
        self._log = wal.Log(directory, opened.number, opened.size, opened.sequence, threads.disk)
        self._first_sequences = dict(opened.first_sequences)
        self._revision, self._published = opened.manifest.revision, opened.manifest.published
        self._intended = opened.manifest.intended
        self._problems = {"torn": opened.torn} if opened.torn else {}
        self._structure = asyncio.Lock()
        """Held while segments are exchanged or the manifest is written."""
        self._writing = asyncio.Lock()
        """Held from the decision to rotate until it is done."""
        self.publishing = asyncio.Lock()
        """Held while a copy is sent."""
        self._pinned: list[Manifest] = []
        self._poked = asyncio.Event()
        self._room = asyncio.Event()
        self._counts = {"upserted": 0, "deleted": 0, "searches": 0, "rebuilds": 0}
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._look())]

    def __repr__(self) -> str:
        return f"<Collection {self.contents!r} {self._log!r}>"

    async def upsert(self, batch: Batch) -> int:
        """All of it or nothing. Waits where more rows came than could be indexed."""
        await self._wait_for_room()
        await self._rotate_if_full()
        empty = all(each == b"{}" for each in batch.metadata)
        packed = batch.vectors.astype(storing.kind_of(self.spec), copy=False).tobytes()
        operation = Upserted(self._clock.now(), batch.ids, packed, None if empty else batch.metadata)
        size = len(packed) + sum(map(len, batch.metadata)) + _ID_BYTES * len(batch.ids)
        count = await self._log.append(operation, size, lambda: self.contents.apply(operation, batch.vectors))
        self._counts["upserted"] += count
        self._poke_if_worn()
        return count

    async def delete(self, ids: Sequence[PointId]) -> int:
        """How many there were."""
        if not ids:
            return 0
        await self._rotate_if_full()
        operation = Deleted(list(dict.fromkeys(ids)))
        count = await self._log.append(operation, _ID_BYTES * len(ids), lambda: self.contents.apply(operation))
        self._counts["deleted"] += count
        self._poke_if_worn()
        return count

    async def matching(self, condition: Filter) -> list[PointId]:
        """Points that pass now."""
        return await self._in(self._threads.search, lambda: self.contents.matching(condition))

    def get(self, ids: Sequence[PointId]) -> list[Point | None]:
        """In their order."""
        return [self.contents.get(each) for each in ids]

    async def search(self, query: Query, how: Search, condition: Filter | None) -> list[Hit]:
        """In a thread."""
        self._counts["searches"] += 1
        return await self._in(self._threads.search, lambda: self.contents.search(query, how, condition))

    def problems(self) -> tuple[str, ...]:
        """What is wrong now, in words."""
        return (*self._problems.values(), *((str(self._log.broken),) if self._log.broken else ()))

    def stats(self) -> CollectionStats:
        """Now."""
        segments = [*self.contents.frozen, self.contents.active]
        stored = sum(each.files.size for each in segments if each.files)
        return CollectionStats(
            spec=self.spec,
            points=len(self.contents),
            segments=tuple(self._segment_stats(each) for each in segments),
            log_bytes=files.log_bytes(self._directory),
            file_bytes=stored,
            revision=self._revision,
            problems=self.problems(),
            **self._counts,
        )

    async def maintain(self) -> None:
        """Rebuild until the plan is content. Raises what a rebuild raises; `problems` tells it until one succeeds."""
        try:
            while await self._rebuild_next():
                pass
        except FabstirError as failed:
            self._problems["rebuild"] = str(failed)
            raise
        finally:
            self._room.set()
        self._problems.pop("rebuild", None)

    async def migrate(self) -> None:
        """Everything becomes historical now: the quickest searches, for a collection that changes little from here on."""
        async with self._writing:
            await self._rotate()
        while True:
            async with self._structure:
                task = plan.migration([each.facts() for each in self.contents.frozen], self._policy)
                if task is None:
                    return
                await self._rebuild(task)

    async def copy(self) -> Copy:
        """All that is acknowledged now, in files."""
        async with self._writing:
            await self._rotate()
        async with self._structure:
            if task := plan.store_task([each.facts() for each in self.contents.frozen]):
                await self._rebuild(task)
            taken = msgspec.structs.replace(self._manifest(), wal_from=0, sequence=0)
            self._pinned.append(taken)
        return Copy(taken, self._directory)

    async def file(self, name: str) -> bytes:
        """One of a copy's. Raises `vectors_corrupt`."""
        return await self._in(self._threads.disk, lambda: bytes(files.mapped(self._directory, name)))

    async def intend(self, published: Manifest) -> None:
        """Remember, before it is sent, what will lie elsewhere."""
        async with self._structure:
            self._intended = manifest.digest(manifest.encode(published))
            await self._write_manifest()

    async def release(self, copy: Copy, published: Manifest | None = None) -> None:
        """The files of a copy may go. `published` is what now lies elsewhere, if it does."""
        async with self._structure:
            self._pinned.remove(copy.manifest)
            if published is not None:
                self._revision = published.revision
                self._published = manifest.digest(manifest.encode(published))
            await self._write_manifest()

    async def close(self) -> None:
        """When every write that was begun is done. A rebuild that is under way is given up; it is begun again when this is opened."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._log.close()

    async def _rebuild_next(self) -> bool:
        async with self._structure:
            facts = [each.facts() for each in self.contents.frozen]
            task = plan.next_task(facts, self._policy, self._clock.now())
            if task is not None:
                await self._rebuild(task)
        return task is not None

    async def _rebuild(self, task: Task) -> None:
        sources = [each for each in self.contents.frozen if each.number in task.sources]
        taken = [each.alive.copy() for each in sources]
        number, work, new = self.contents.new_number(), list(zip(sources, taken, strict=True)), None
        if any(mask.any() for mask in taken):
            new = await self._in(
                self._threads.build,
                lambda: self._threads.rebuild(self._directory, self.spec, work, number, task.kind, task.tier),
            )
        self.contents.replace(sources, taken, new)
        self._counts["rebuilds"] += 1
        self._room.set()
        await self._write_manifest()
        for at in range(0, new.rows if new else 0, _SETTLE_ROWS):
            self.contents.settle(new.ids[at : at + _SETTLE_ROWS] if new else ())
            await asyncio.sleep(0)

    def _manifest(self) -> Manifest:
        """As it is: what is not stored is in the log from `wal_from`."""
        frozen = self.contents.frozen
        unstored = (each for each in (*frozen, self.contents.active) if each.files is None)
        first = min(each.generation for each in unstored)
        entries = tuple(storing.entry_of(each) for each in frozen if each.files is not None)
        sequence = self._first_sequences[first]
        return Manifest(self.spec, entries, first, sequence, self._revision, self._published, self._intended)

    async def _write_manifest(self) -> None:
        now = self._manifest()
        keep = now.files().union(*(each.files() for each in self._pinned))
        await self._in(self._threads.disk, lambda: _put_manifest(self._directory, now, keep))

    async def _rotate_if_full(self) -> None:
        if self._is_full():
            async with self._writing:
                if self._is_full():
                    await self._rotate()
                    self._poked.set()

    def _is_full(self) -> bool:
        return self.contents.active.rows >= self._policy.active_rows or self._log.size > LOG_BYTES

    async def _rotate(self) -> None:
        def turned(number: int) -> None:
            self._first_sequences[number] = self._log.sequence
            self.contents.rotate(number)

        if self._log.size:
            await self._log.rotate(turned)

    async def _wait_for_room(self) -> None:
        """A rebuild that fails must not stop writers for ever: they then go on, and searches scan more."""
        while "rebuild" not in self._problems and self._backlog() > self._policy.backlog_rows:
            self._room.clear()
            self._poked.set()
            await self._room.wait()

    def _backlog(self) -> int:
        return plan.backlog([each.facts() for each in self.contents.frozen])

    def _poke_if_worn(self) -> None:
        if self.contents.lost_rows:
            self.contents.lost_rows = 0
            self._poked.set()

    async def _keep(self) -> None:
        self._poked.set()
        while True:
            await self._poked.wait()
            self._poked.clear()
            with suppress(FabstirError):  # told by `problems`
                await self.maintain()

    async def _look(self) -> None:
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            self._poked.set()

    def _segment_stats(self, segment: Segment) -> SegmentStats:
        active = segment is self.contents.active
        return SegmentStats(
            kind="active" if active else segment.kind,
            tier=segment.tier,
            rows=segment.rows,
            deleted=segment.dead,
            recall=round(segment.index.recall, 4) if segment.index else None,
            file_bytes=segment.files.size if segment.files else 0,
        )

    @staticmethod
    async def _in(executor: Executor, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(executor, act)


def _put_manifest(directory: Path, now: Manifest, keep: frozenset[str]) -> None:
    """The manifest, then what it makes superfluous."""
    files.write(directory / "manifest", manifest.encode(now))
    for path in files.hashed(directory):
        if path.name not in keep:
            files.remove(path)
    for path in directory.glob("wal-*"):
        with suppress(ValueError):
            if int(path.name.removeprefix("wal-")) < now.wal_from:
                files.remove(path)
