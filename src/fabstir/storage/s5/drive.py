"""Files by path, the renter's own: everything is encrypted before it leaves, durable when a call returns, checked when it is read.

A drive is a root of keys on one pair of backends. Each directory has its own pointer, whose key follows from the path, so that a
file is reached without reading the directories above; the entries above it are there for listing. Several drives may write
the same tree. A batch is atomic within a directory, and not between two. With read keys alone a drive reads its subtree and
refuses to write. Never shows a key, and never stores anything in the clear. docs/explanation/storage.md.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, Literal

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.clock import Clock
from fabstir.ports.storage import BlobBackend, Registry
from fabstir.protocol.storage import paths
from fabstir.protocol.storage.blob_id import BlobId
from fabstir.protocol.storage.dirv1 import DirectoryEntry, Entry, FileEntry
from fabstir.protocol.storage.keys import DirectoryKeys
from fabstir.storage.s5.contents import Contents
from fabstir.storage.s5.directories import Directories
from fabstir.storage.s5.nodes import Random
from fabstir.storage.s5.uploads import Upload, Uploads

MAX_PAGE: Final = 10_000
MAX_MEDIA_TYPE: Final = 255
"""Entries are bounded, so that nodes are."""
ATTEMPTS: Final = 3
AT_ONCE: Final = 16
_AMBIGUOUS: Final = ("storage_unavailable", "blob_failed")
"""After these nobody knows whether the pointer moved: what it may point to stays."""
Names = tuple[str, ...]


class Stat(msgspec.Struct, frozen=True):
    """What is at a path."""

    path: str
    kind: Literal["file", "directory"]
    size: int = 0
    media_type: str | None = None
    seconds: int | None = None
    """Unix seconds of its last change."""
    blob: BlobId | None = None
    """The sealed blob that a file is named by; its size is not told."""


class Page(msgspec.Struct, frozen=True):
    """Part of a listing, in the order of the BLAKE3 of the names."""

    entries: tuple[Stat, ...]
    cursor: str | None
    """For the next page; None at the end."""


class Drive:
    """Close it at the end: `close` waits for what was begun. Memory: that of `Directories`, and a part for each read or write."""

    def __init__(
        self, keys: DirectoryKeys, blobs: BlobBackend, registry: Registry, clock: Clock, random: Random = os.urandom
    ) -> None:
        """`keys` of the root, from `Identity.root()` or from whoever shared a directory."""
        self._root = keys
        self._clock = clock
        self._contents = Contents(blobs, random)
        self._directories = Directories(blobs, registry, random)
        self._uploads = Uploads(keys, self._contents, self._directories, random)
        self._writing: Counter[Names] = Counter()
        """Directories that a write is under way in: they are not deleted meanwhile."""
        self._deleting: Counter[Names] = Counter()
        """And the reverse."""

    def __repr__(self) -> str:
        return f"<Drive {self._root!r} {self._directories!r}>"

    async def put(self, path: str, content: bytes, media_type: str | None = None) -> Stat:
        """Store or replace a file, with the directories above it. Durable when it returns."""
        directory, name = paths.parse_file(path)
        self._check_writable(media_type)
        entry = await self._contents.write(content, media_type, self._now())
        return await self._enter(directory, name, entry)

    async def get(self, path: str) -> bytes:
        """All of a file. Raises `storage_not_found`, `storage_is_directory`, and what `read` raises."""
        return await self.read(path)

    async def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Part of a file. Raises `storage_range`, `blob_missing`, `blob_corrupt`, `storage_key_wrong`."""
        for attempt in range(ATTEMPTS):
            entry = await self._file(path)
            try:
                return await self._contents.read(entry, start, length)
            except FabstirError as lost:
                replaced = lost.code == "blob_missing" and await self._file(path) != entry
                if not replaced or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("returned or raised")

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """A file part by part. If it is replaced meanwhile, the rest is `blob_missing`, never of another version."""
        async for part in self._contents.stream(await self._file(path)):
            yield part

    async def stat(self, path: str) -> Stat:
        """What is at a path; the root is a directory."""
        names = paths.parse(path)
        if not names:
            return Stat("", "directory")
        return _stat(names, await self._entry(names))

    async def list(self, path: str = "", cursor: str | None = None, limit: int = 1_000) -> Page:
        """One page of a directory. Raises `storage_not_found`, `storage_is_file`, `storage_cursor`."""
        names, after = paths.parse(path), paths.after_of(cursor)
        limit = min(max(limit, 1), MAX_PAGE)
        if names and isinstance(await self._entry(names), FileEntry):
            raise error("storage_is_file", path)
        found = await self._directories.page(await self._keys(names), after, limit + 1)
        entries = tuple(_stat((*names, name), entry) for name, entry in found[:limit])
        return Page(entries, paths.cursor_of(found[limit - 1][0]) if len(found) > limit else None)

    async def delete(self, path: str) -> None:
        """A file with its blobs, or an empty directory. Raises `storage_not_found`; `storage_is_directory` where something is in it."""
        directory, name = paths.parse_file(path)
        names = (*directory, name)
        self._check_writable()
        with self._marked(self._deleting, names):
            if isinstance(await self._entry(names), DirectoryEntry):
                inside = await self._directories.page(await self._keys(names), None, 1)
                if inside or any(busy[: len(names)] == names for busy in self._writing):
                    raise error("storage_is_directory", path)
            before = await self._directories.change(await self._keys(directory), {name: None})
        if before[name] is None:
            raise error("storage_not_found", path)
        await self._discard(before.values())

    async def batch(self, changes: Mapping[str, bytes | None]) -> None:
        """Many files at once, None to delete (what is not there is no mistake). Atomic within each directory."""
        self._check_writable()
        grouped: dict[Names, dict[str, Entry | None]] = {}
        turn = asyncio.Semaphore(AT_ONCE)

        async def written(content: bytes | None) -> FileEntry | None:
            async with turn:
                return None if content is None else await self._contents.write(content, None, self._now())

        where = [paths.parse_file(path) for path in changes]
        entries = await asyncio.gather(*(written(content) for content in changes.values()))
        for (directory, name), entry in zip(where, entries, strict=True):
            grouped.setdefault(directory, {})[name] = entry
        for directory, group in grouped.items():
            await self._change(directory, group)

    async def make_directory(self, path: str) -> Stat:
        """An empty directory, with those above it. One that is there stays as it is."""
        names = paths.parse(path)
        self._check_writable()
        await self._link(names)
        return await self.stat(path)

    async def share(self, path: str = "") -> DirectoryKeys:
        """Keys that read a directory and everything below it, and nothing else. They cannot be taken back."""
        names = paths.parse(path)
        if names and isinstance(await self._entry(names), FileEntry):
            raise error("storage_is_file", path)
        keys = await self._keys(names)
        return DirectoryKeys(keys.read, public=keys.public)

    async def begin_upload(self, path: str, media_type: str | None = None) -> Upload:
        """A file that comes in pieces and may break off. Its `number` finds it again, after a restart, too."""
        self._check_writable(media_type)
        paths.parse_file(path)
        return await self._uploads.begin(path, media_type)

    async def resume_upload(self, number: str) -> Upload:
        """Raises `upload_unknown`."""
        return await self._uploads.resume(number)

    async def finish_upload(self, upload: Upload) -> Stat:
        """The file is at its path when it returns. Raises what `put` raises; the upload then stays and can be finished again."""
        directory, name = paths.parse_file(upload.path)
        entry = await upload.finish(self._now())
        stat = await self._enter(directory, name, entry, keep=True)
        await upload.forget()
        return stat

    async def close(self) -> None:
        """When every write that was begun is done."""
        await self._directories.close()

    def _now(self) -> int:
        return int(self._clock.now())

    def _check_writable(self, media_type: str | None = None) -> None:
        if media_type is not None and len(media_type) > MAX_MEDIA_TYPE:
            raise ValueError(f"a media type of {len(media_type)} characters")
        if self._root.pair is None:
            raise error("storage_read_only", self._root.public.hex()[:12])

    async def _enter(self, directory: Names, name: str, entry: FileEntry, *, keep: bool = False) -> Stat:
        await self._change(directory, {name: entry}, keep=keep)
        return _stat((*directory, name), entry)

    async def _change(self, directory: Names, entries: dict[str, Entry | None], *, keep: bool = False) -> None:
        """The directories above, then the entries, then the blobs of what was replaced; or, where it is refused, those of `entries`."""
        if any(directory[: len(names)] == names for names in self._deleting):
            raise error("storage_conflict", "the directory is being deleted")
        try:
            with self._marked(self._writing, directory):
                await self._link(directory)
                before = await self._directories.change(await self._keys(directory), entries)
        except FabstirError as refused:
            if refused.code not in _AMBIGUOUS and not keep:
                await self._discard(entries.values())
            raise
        await self._discard(old for name, old in before.items() if old != entries[name])

    async def _link(self, names: Names) -> None:
        """Entries for `names` from the root down, where they are missing."""
        for depth in range(len(names)):
            above = await self._keys(names[:depth])
            entry = await self._directories.entry(above, names[depth])
            if isinstance(entry, FileEntry):
                raise error("storage_is_file", "/".join(names[: depth + 1]))
            if entry is None:
                link = (await self._keys(names[: depth + 1])).public
                await self._directories.change(above, {names[depth]: DirectoryEntry(link, self._now())})

    async def _discard(self, entries: Iterable[Entry | None]) -> None:
        """Room that is not freed now is no reason to fail what is done."""
        for entry in entries:
            if isinstance(entry, FileEntry):
                with suppress(FabstirError):
                    await self._directories.discard(await self._contents.places(entry))

    async def _file(self, path: str) -> FileEntry:
        directory, name = paths.parse_file(path)
        entry = await self._entry((*directory, name))
        if isinstance(entry, DirectoryEntry):
            raise error("storage_is_directory", path)
        return entry

    async def _entry(self, names: Names) -> Entry:
        entry = await self._directories.entry(await self._keys(names[:-1]), names[-1])
        if entry is None:
            raise error("storage_not_found", "/".join(names))
        return entry

    async def _keys(self, names: Names) -> DirectoryKeys:
        """By derivation where we may write; else the public keys come from the entries on the way."""
        keys = self._root
        for depth, name in enumerate(names, start=1):
            public = None
            if keys.pair is None:
                entry = await self._directories.entry(keys, name)
                if not isinstance(entry, DirectoryEntry):
                    raise error("storage_not_found", "/".join(names[:depth]))
                public = entry.link
            keys = keys.child(name, public)
        return keys

    @staticmethod
    @contextmanager
    def _marked(marks: Counter[Names], names: Names) -> Iterator[None]:
        marks[names] += 1
        try:
            yield
        finally:
            marks[names] -= 1
            if not marks[names]:
                del marks[names]


def _stat(names: Names, entry: Entry) -> Stat:
    path = "/".join(names)
    if isinstance(entry, DirectoryEntry):
        return Stat(path, "directory", seconds=entry.seconds)
    return Stat(path, "file", entry.size, entry.media_type, entry.seconds, BlobId(entry.hash))
