"""The log of one collection: what was acknowledged is on the disk. Those who wait at the same moment share one frame and one sync.

An operation is written, synced, applied to what is in memory, and then answered, in one order for all. So memory never has what
the disk has not, and after a failure the file ends where it ended before (`vectors_full`: nothing was written, try again). If the disk does
not even take that, or a sync fails, nobody knows what is on it: everything is refused until the collection is opened again.
Never reads what is acknowledged while it runs. Memory: the operations that wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.protocol.vectors import log
from fabstir.protocol.vectors.log import Operation
from fabstir.vectors import files

Result = TypeVar("Result")
GROUP_BYTES: Final = 16 << 20
"""Of one frame, unless a single operation has more."""


class Waiting(msgspec.Struct, frozen=True):
    """An operation that is not on the disk yet."""

    operation: Operation
    size: int
    apply: Callable[[], int]
    done: asyncio.Future[int]


class Log:
    """One writer at a time; the thread that waits for the disk is `disk`."""

    def __init__(self, directory: Path, number: int, size: int, sequence: int, disk: Executor) -> None:
        """Goes on in the file `number`, which ends at `size`, with the frame `sequence`."""
        self._directory = directory
        self._disk = disk
        self._waiting: list[Waiting] = []
        self._turn = asyncio.Lock()
        self._broken: FabstirError | None = None
        self.number = number
        self.size = size
        self.sequence = sequence
        self._handle = self._open(number)

    def __repr__(self) -> str:
        return f"<Log {self.number}: {self.size} bytes, next frame {self.sequence}, {len(self._waiting)} wait>"

    @property
    def broken(self) -> FabstirError | None:
        """Why everything is refused, if it is."""
        return self._broken

    async def append(self, operation: Operation, size: int, apply: Callable[[], int]) -> int:
        """What `apply` says, once the operation is durable. Raises `vectors_full`, `vectors_failed`, `vectors_closed`."""
        entry = Waiting(operation, size, apply, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        async with self._turn:
            while not entry.done.done():
                await asyncio.shield(asyncio.ensure_future(self._write(self._group())))
        return await entry.done

    async def rotate(self, then: Callable[[int], None]) -> None:
        """Go on in a new file, between two frames. `then` hears its number."""
        async with self._turn:
            await asyncio.shield(asyncio.ensure_future(self._rotate(then)))

    async def close(self) -> None:
        """When what was begun is done."""
        async with self._turn:
            self._broken = self._broken or error("vectors_closed")
            os.close(self._handle)

    def _group(self) -> list[Waiting]:
        count, size = 0, 0
        for entry in self._waiting:
            size += entry.size
            if count and size > GROUP_BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _write(self, group: Sequence[Waiting]) -> None:
        """One frame. Whoever waits hears of it."""
        try:
            if self._broken:
                raise self._broken
            await self._on_disk(lambda: self._add(log.frame_bytes(self.sequence, [one.operation for one in group])))
            self.sequence += 1
        except FabstirError as refused:
            for entry in group:
                if not entry.done.cancelled():
                    entry.done.set_exception(refused)
                    entry.done.exception()  # whoever asked may have gone
            return
        for entry in group:
            result = entry.apply()
            if not entry.done.cancelled():
                entry.done.set_result(result)

    async def _rotate(self, then: Callable[[int], None]) -> None:
        if self._broken:
            raise self._broken
        handle = await self._on_disk(lambda: self._open(self.number + 1))
        os.close(self._handle)
        self.number, self.size, self._handle = self.number + 1, 0, handle
        then(self.number)

    def _add(self, frame: bytes) -> None:
        try:
            with files.translated():
                written = 0
                while written < len(frame):
                    written += os.pwrite(self._handle, memoryview(frame)[written:], self.size + written)
                os.fdatasync(self._handle)
        except FabstirError as refused:
            self._restore(refused)
            raise
        self.size += len(frame)

    def _restore(self, refused: FabstirError) -> None:
        """The file as it was before the frame, or no more frames."""
        try:
            os.ftruncate(self._handle, self.size)
            os.fdatasync(self._handle)
        except OSError:
            self._broken = refused
        if refused.code != "vectors_full":
            self._broken = refused

    def _open(self, number: int) -> int:
        with files.translated():
            handle = os.open(path_of(self._directory, number), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                files.sync(self._directory)
            except OSError:
                os.close(handle)
                raise
        return handle

    async def _on_disk(self, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, act)


def path_of(directory: Path, number: int) -> Path:
    """Of one file of the log."""
    return directory / f"wal-{number:08}"
