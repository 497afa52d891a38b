"""What files hold: parts of 4 MiB, each a blob, encrypted under a key that this version of this file alone has.

A file of one part is that blob; a larger one is named by the blob that lists its parts, sealed in the same way. The key is random
and is kept in the file's entry, in a directory that is itself sealed. Every part is checked against its name when it is read, and
opens only at its own place. Since no two files share a blob, what a file held can be deleted when the file is. Memory: one part
for each read or write that is under way.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.ports.storage import BlobBackend
from fabstir.protocol.storage.blob_id import HASH
from fabstir.protocol.storage.dirv1 import FileEntry
from fabstir.protocol.storage.keys import KEY
from fabstir.protocol.storage.sealing import NONCE, seal_part, unseal_part
from fabstir.storage.s5.nodes import Random

PART: Final = 4 << 20
"""Bytes in a part: one request to a portal (32 MiB at most), and little to send again after a break."""
LIST: Final = (1 << 64) - 1
"""The number under which the list of parts is sealed: no part has it."""
MAX_PARTS: Final = 1 << 20
"""4 TiB; the list is 32 MiB then."""
AT_ONCE: Final = 4
_KEY, _PART = "key", "part"


class Contents:
    """File contents on one backend."""

    def __init__(self, blobs: BlobBackend, random: Random = os.urandom) -> None:
        """`random` gives the files' keys and nonces."""
        self._blobs = blobs
        self._random = random

    def new_key(self) -> bytes:
        """For one version of one file."""
        return self._random(KEY)

    async def put_part(self, content: bytes, key: bytes, number: int) -> Hash32:
        """Durable when it returns."""
        sealed = await asyncio.to_thread(seal_part, content, key, number, self._random(NONCE))
        return await self._blobs.put(sealed)

    async def write(self, content: bytes, media_type: str | None, seconds: int) -> FileEntry:
        """All of it, durable when it returns; the entry that names it."""
        key, turn = self.new_key(), asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> Hash32:
            async with turn:
                return await self.put_part(content[number * PART : (number + 1) * PART], key, number)

        count = max(-(-len(content) // PART), 1)
        parts = await asyncio.gather(*(one(number) for number in range(count)))
        return await self.sealed_entry(parts, len(content), key, media_type, seconds)

    async def sealed_entry(
        self, parts: list[Hash32], size: int, key: bytes, media_type: str | None, seconds: int
    ) -> FileEntry:
        """The entry of a file whose parts are stored. Raises `storage_range` beyond 4 TiB."""
        if len(parts) > MAX_PARTS:
            raise error("storage_range", f"{len(parts)} parts, at most {MAX_PARTS}")
        extra: dict[str, bytes | int] = {_KEY: key}
        if len(parts) == 1:
            return FileEntry(parts[0], size, media_type, seconds, extra)
        extra[_PART] = PART
        return FileEntry(await self.put_part(b"".join(parts), key, LIST), size, media_type, seconds, extra)

    async def read(self, entry: FileEntry, start: int = 0, length: int | None = None) -> bytes:
        """Bytes from `start` on, up to `length` of them. Raises `storage_range`, `blob_missing`, `blob_corrupt`, `storage_key_wrong`."""
        end = entry.size if length is None else start + length
        if not 0 <= start <= end <= entry.size:
            raise error("storage_range", f"{start} to {end} of {entry.size} bytes")
        if start == end:
            return b""
        key, part = _shape(entry)
        parts = await self.parts(entry)
        first, last = start // part, (end - 1) // part
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> bytes:
            async with turn:
                sealed = await self._blobs.get(parts[number])
                return await asyncio.to_thread(unseal_part, sealed, key, number, min(part, entry.size - number * part))

        found = b"".join(await asyncio.gather(*(one(number) for number in range(first, last + 1))))
        return found[start - first * part : end - first * part]

    async def stream(self, entry: FileEntry) -> AsyncIterator[bytes]:
        """All of it, part by part, each checked before it is given out."""
        _, part = _shape(entry)
        for start in range(0, entry.size, part):
            yield await self.read(entry, start, min(part, entry.size - start))

    async def parts(self, entry: FileEntry) -> list[Hash32]:
        """The blobs of its parts."""
        key, part = _shape(entry)
        if _PART not in entry.extra:
            return [entry.hash]
        count = -(-entry.size // part)
        listed = unseal_part(await self._blobs.get(entry.hash), key, LIST, count * HASH)
        return [Hash32(listed[at : at + HASH]) for at in range(0, len(listed), HASH)]

    async def places(self, entry: FileEntry) -> list[Hash32]:
        """Every blob that goes when the file goes."""
        parts = await self.parts(entry)
        return parts if entry.hash in parts else [*parts, entry.hash]


def _shape(entry: FileEntry) -> tuple[bytes, int]:
    """Key and size of a part."""
    key, part = entry.extra.get(_KEY), entry.extra.get(_PART, max(entry.size, 1))
    if not (isinstance(key, bytes) and len(key) == KEY and type(part) is int and part > 0):
        raise error("storage_encoding", "a file without a key of its own")
    if _PART in entry.extra and -(-entry.size // part) > MAX_PARTS:
        raise error("storage_encoding", "a file of more parts than there can be")
    return key, part
