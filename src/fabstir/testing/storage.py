"""Storage in memory that can fail, stop, lie and be looked at. For tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage.blob_id import hash_of
from fabstir.protocol.storage.registry import RegistryEntry, is_news


class Stopped(BaseException):
    """The process ended here. Nothing catches it."""


class MemoryStorage:
    """Implements `BlobBackend` and `Registry`. Every verb gives way once, so that others run in between."""

    def __init__(self) -> None:
        self.blobs: dict[Hash32, bytes] = {}
        self.pointers: dict[bytes, RegistryEntry] = {}
        self.history: list[str] = []
        """`put`, `delete` and `publish`, in order."""
        self.stop_after: int | None = None
        """The writing verb of this number, from 0, is carried out and never answered; all later ones are not carried out."""
        self.fail: str | None = None
        """The error code of every verb, while it is set."""
        self.fail_publish: str | None = None
        """The error code of every `publish`, which is carried out all the same."""
        self.gate = asyncio.Event()
        """While it is clear, `publish` waits, and says so in `waiting`."""
        self.gate.set()
        self.waiting = asyncio.Event()
        self.meanwhile: dict[str, Callable[[], Awaitable[object]]] = {}
        """What somebody else does, once, just before the next `get` or `publish`."""
        self.stopped = asyncio.Event()
        """Set where `stop_after` took effect."""

    def __repr__(self) -> str:
        return f"<MemoryStorage: {len(self.blobs)} blobs, {len(self.pointers)} pointers>"

    def copy(self) -> MemoryStorage:
        """Another one with the same content."""
        other = MemoryStorage()
        other.blobs, other.pointers = dict(self.blobs), dict(self.pointers)
        return other

    def holds(self, needle: bytes) -> bool:
        """Whether these bytes are anywhere in it."""
        return any(needle in blob for blob in self.blobs.values()) or any(
            needle in each.pack() for each in self.pointers.values()
        )

    async def put(self, content: bytes) -> Hash32:
        blob = hash_of(content)
        await self._enter("put")
        self.blobs[blob] = content
        self._leave()
        return blob

    async def get(self, blob: Hash32) -> bytes:
        await self._enter(None)
        await self._others("get")
        if blob not in self.blobs:
            raise error("blob_missing", blob.hex())
        if hash_of(self.blobs[blob]) != blob:
            raise error("blob_corrupt", blob.hex())
        return self.blobs[blob]

    async def size(self, blob: Hash32) -> int | None:
        await self._enter(None)
        return len(self.blobs[blob]) if blob in self.blobs else None

    async def delete(self, blob: Hash32) -> None:
        await self._enter("delete")
        self.blobs.pop(blob, None)
        self._leave()

    async def names(self) -> AsyncIterator[Hash32]:
        for blob in list(self.blobs):
            yield blob

    async def read(self, public: bytes) -> RegistryEntry | None:
        await self._enter(None)
        return self.pointers.get(public)

    async def publish(self, entry: RegistryEntry) -> None:
        await self._others("publish")
        await self._enter("publish")
        self.waiting.set()
        await self.gate.wait()
        if is_news(self.pointers.get(entry.public), entry):
            self.pointers[entry.public] = entry
        self._leave()
        if self.fail_publish:
            raise error(self.fail_publish, "as the test asks")

    async def entries(self) -> AsyncIterator[RegistryEntry]:
        for entry in list(self.pointers.values()):
            yield entry

    async def _others(self, verb: str) -> None:
        if act := self.meanwhile.pop(verb, None):
            await act()

    async def _enter(self, verb: str | None) -> None:
        await asyncio.sleep(0)
        if self.fail:
            raise error(self.fail, "as the test asks")
        if verb is None:
            return
        self._leave()
        self.history.append(verb)

    def _leave(self) -> None:
        if self.stop_after is not None and len(self.history) > self.stop_after:
            self.stopped.set()
            raise Stopped
