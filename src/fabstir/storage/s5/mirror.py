"""Two backends as one: everything is written to both, and what one has lost is given back to it from the other.

A put or a publish has returned only when both have it, so either alone has everything that was acknowledged. A read takes the first
that answers with the right bytes; where the first had nothing or something else, it gets the blob again, and `healed` counts it.
Of two pointers the higher is taken and given to the one behind. One backend that does not answer fails every write, by name: a
copy that is silently no longer made is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.ports.storage import BlobBackend, Registry
from fabstir.protocol.storage.registry import RegistryEntry

_LOST: Final = ("blob_missing", "blob_corrupt")
_REPAIRABLE: Final = (*_LOST, "storage_unavailable", "blob_failed")


class MirroredBlobs:
    """Implements `BlobBackend` on two of them."""

    def __init__(self, first: BlobBackend, second: BlobBackend) -> None:
        """`first` is read first."""
        self._first = first
        self._second = second
        self.healed = 0
        """Blobs that were given back to the first."""

    def __repr__(self) -> str:
        return f"<MirroredBlobs {self._first!r}, {self._second!r}: {self.healed} healed>"

    async def put(self, content: bytes) -> Hash32:
        """On both."""
        blob, _ = await asyncio.gather(self._first.put(content), self._second.put(content))
        return blob

    async def get(self, blob: Hash32) -> bytes:
        """From the first, or from the second. Raises what the first said where neither has it."""
        try:
            return await self._first.get(blob)
        except FabstirError as lost:
            if lost.code not in _REPAIRABLE:
                raise
            try:
                content = await self._second.get(blob)
            except FabstirError as also:
                raise lost from also
            if lost.code in _LOST:
                await self._first.put(content)
                self.healed += 1
            return content

    async def size(self, blob: Hash32) -> int | None:
        """Of the first that has it."""
        found = await self._first.size(blob)
        return found if found is not None else await self._second.size(blob)

    async def delete(self, blob: Hash32) -> None:
        """On both."""
        await asyncio.gather(self._first.delete(blob), self._second.delete(blob))

    async def names(self) -> AsyncIterator[Hash32]:
        """Of the first, then what only the second has."""
        async for blob in self._first.names():
            yield blob
        async for blob in self._second.names():
            if await self._first.size(blob) is None:
                yield blob


class MirroredRegistry:
    """Implements `Registry` on two of them."""

    def __init__(self, first: Registry, second: Registry) -> None:
        """Neither is more than the other."""
        self._both = (first, second)

    def __repr__(self) -> str:
        return f"<MirroredRegistry {self._both[0]!r}, {self._both[1]!r}>"

    async def read(self, public: bytes) -> RegistryEntry | None:
        """The higher of both, which the one behind is given. Where one does not answer, the other has all that was acknowledged."""
        answers = await asyncio.gather(*(registry.read(public) for registry in self._both), return_exceptions=True)
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not found:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        best = max((entry for entry in found if entry), key=lambda entry: entry.revision, default=None)
        for registry, answer in zip(self._both, answers, strict=True):
            if best and _is_behind(answer, best):
                await registry.publish(best)
        return best

    async def publish(self, entry: RegistryEntry) -> None:
        """On both, one after the other: of two writers the one that is second at the first is refused before it reaches the second."""
        for registry in self._both:
            await registry.publish(entry)

    async def entries(self) -> AsyncIterator[RegistryEntry]:
        """The higher of both, for every key of either."""
        seen = set[bytes]()
        for registry in self._both:
            async for entry in registry.entries():
                if entry.public not in seen:
                    seen.add(entry.public)
                    yield await self.read(entry.public) or entry


def _is_behind(answer: RegistryEntry | BaseException | None, best: RegistryEntry) -> bool:
    """It has less, nothing, or something that nobody signed."""
    if isinstance(answer, RegistryEntry):
        return answer.revision < best.revision
    return answer is None or (isinstance(answer, FabstirError) and answer.code == "registry_invalid")
