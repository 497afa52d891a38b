"""Large files that come in pieces and may break off: what has arrived is stored part by part, and remembered in the storage itself.

An unfinished upload is an entry in a sealed directory beside the tree, which no path reaches: the path it is for, its key, and the
parts that are durable. `offset` is how many bytes those are; whoever resumes, after a crash or on another machine with the same
seed phrase, sends from there on. Nothing is at the path until the upload is finished.
"""

from __future__ import annotations

import os
from typing import Any, Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage.blob_id import HASH
from fabstir.protocol.storage.dirv1 import FileEntry
from fabstir.protocol.storage.keys import DirectoryKeys
from fabstir.storage.s5.contents import PART, Contents
from fabstir.storage.s5.directories import Directories
from fabstir.storage.s5.nodes import Random

DIRECTORY: Final = "\0uploads"
"""No path can name it."""
_NOTHING: Final = Hash32(bytes(HASH))


class Upload:
    """One file on its way. One writer at a time. Memory: less than one part."""

    def __init__(self, uploads: Uploads, number: str, record: dict[str, Any]) -> None:
        """From `Uploads` only."""
        self._uploads = uploads
        self._key: Final[bytes] = record["key"]
        self._media_type: Final[str | None] = record["type"]
        self._parts: list[Hash32] = [
            Hash32(record["parts"][at : at + HASH]) for at in range(0, len(record["parts"]), HASH)
        ]
        self._rest = b""
        self.number: Final = number
        """Finds it again."""
        self.path: Final[str] = record["path"]

    def __repr__(self) -> str:
        return f"<Upload {self.number}: {self.offset} bytes durable, {len(self._rest)} waiting>"

    @property
    def offset(self) -> int:
        """Bytes that are durable: send from here on after a break."""
        return len(self._parts) * PART

    @property
    def received(self) -> int:
        """Bytes that were sent since it was begun or resumed, and before: send from here on otherwise."""
        return self.offset + len(self._rest)

    async def write(self, offset: int, content: bytes) -> int:
        """The bytes from `offset` on, which has to be `received`. Returns what is received now. Raises `upload_offset`."""
        if offset != self.received:
            raise error("upload_offset", f"bytes from {offset} on, {self.received} received")
        self._rest += content
        while len(self._rest) >= PART:
            part = await self._uploads.contents.put_part(self._rest[:PART], self._key, len(self._parts))
            self._parts.append(part)
            self._rest = self._rest[PART:]
            await self._uploads.remember(self.number, self.record())
        return self.received

    async def finish(self, seconds: int) -> FileEntry:
        """The entry of the whole file. The upload is still remembered."""
        parts, size = list(self._parts), self.received
        if self._rest or not parts:
            parts.append(await self._uploads.contents.put_part(self._rest, self._key, len(parts)))
        return await self._uploads.contents.sealed_entry(parts, size, self._key, self._media_type, seconds)

    async def abandon(self) -> None:
        """Forget it, and delete what has arrived."""
        await self.forget()
        await self._uploads.directories.discard(self._parts)

    async def forget(self) -> None:
        """What has arrived stays: it belongs to the file now."""
        await self._uploads.remember(self.number, None)

    def record(self) -> dict[str, Any]:
        """What is remembered of it."""
        return {"path": self.path, "type": self._media_type, "key": self._key, "parts": b"".join(self._parts)}


class Uploads:
    """The unfinished uploads of one drive."""

    def __init__(
        self, root: DirectoryKeys, contents: Contents, directories: Directories, random: Random = os.urandom
    ) -> None:
        """`root` of the drive."""
        self._keys = root.child(DIRECTORY, root.public)
        self._random = random
        self.contents: Final = contents
        self.directories: Final = directories

    async def begin(self, path: str, media_type: str | None) -> Upload:
        """Remembered when it returns."""
        record = {"path": path, "type": media_type, "key": self.contents.new_key(), "parts": b""}
        number = self._random(16).hex()
        await self.remember(number, record)
        return Upload(self, number, record)

    async def resume(self, number: str) -> Upload:
        """Raises `upload_unknown`."""
        entry = await self.directories.entry(self._keys, number)
        if not isinstance(entry, FileEntry):
            raise error("upload_unknown", number[:40])
        record = entry.extra
        if record.keys() != {"path", "type", "key", "parts"} or len(record["parts"]) % HASH:
            raise error("storage_encoding", "an upload that was remembered otherwise")
        return Upload(self, number, record)

    async def remember(self, number: str, record: dict[str, Any] | None) -> None:
        """Durable when it returns. None forgets."""
        entry = FileEntry(_NOTHING, 0, extra=record) if record else None
        await self.directories.change(self._keys, {number: entry})
