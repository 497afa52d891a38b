"""Blobs and pointers in a directory of this machine: the default backend.

    blobs/ab/abcd...   a blob under its hash            registry/ed...   a packed entry under its public key
    aside/...          what is being written            lock             held while a pointer is read and replaced

A file appears under its name only whole: written aside, synced, renamed, and the directory synced before anybody is told. What is read
is hashed again. A full disk and a quota that is used up are `blob_quota`; a pointer is small and is written in spite of the quota, so
that what is stored can still be deleted. Several processes may share the directory; each counts the quota for itself. Memory: one number.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage.blob_id import HASH, hash_of
from fabstir.protocol.storage.registry import RegistryEntry, is_news

Result = TypeVar("Result")
FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class DiskStorage:
    """Implements `BlobBackend` and `Registry`."""

    def __init__(self, root: Path, *, quota: int | None = None) -> None:
        """Makes `root` (mode 0700), clears what a dead process left aside, and counts what is there against `quota` bytes, if any.

        Raises `blob_failed`.
        """
        self._root = root
        self._quota = quota
        self._used = 0
        self._room = asyncio.Lock()
        try:
            for part in ("blobs", "registry", "aside"):
                (root / part).mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in (root / "aside").iterdir():
                if not _is_running(left.name):
                    left.unlink(missing_ok=True)
            if quota is not None:
                self._used = sum(_size(path) for path in self._files())
        except OSError as cause:
            raise _failure(cause) from cause

    def __repr__(self) -> str:
        bounds = f"{self._used} of {self._quota} bytes" if self._quota is not None else "no quota"
        return f"<DiskStorage {self._root.name}: {bounds}>"

    async def put(self, content: bytes) -> Hash32:
        """Raises `blob_quota`, `blob_failed`."""
        blob = hash_of(content)
        before = await self._do(lambda: _size(self._path(blob)))
        async with self._room:
            if self._quota is not None and self._used - before + len(content) > self._quota:
                raise error("blob_quota", f"{len(content)} bytes more than fit beside {self._used} of {self._quota}")
            self._used += len(content) - before
        try:
            await self._do(lambda: self._write(self._path(blob), content))
        except FabstirError:
            self._used -= len(content) - before
            raise
        return blob

    async def get(self, blob: Hash32) -> bytes:
        """Raises `blob_missing`, `blob_corrupt`, `blob_failed`."""
        content = await self._do(lambda: _read(self._path(blob)))
        if content is None:
            raise error("blob_missing", blob.hex())
        if hash_of(content) != blob:
            raise error("blob_corrupt", f"{blob.hex()}, {len(content)} bytes")
        return content

    async def size(self, blob: Hash32) -> int | None:
        """Bytes of the file."""
        path = self._path(blob)
        return await self._do(lambda: path.stat().st_size if path.exists() else None)

    async def delete(self, blob: Hash32) -> None:
        """Idempotent."""
        path = self._path(blob)
        self._used -= await self._do(lambda: _unlink(path))

    async def names(self) -> AsyncIterator[Hash32]:
        """By directory."""
        for path in await self._do(lambda: list(self._files())):
            yield Hash32(bytes.fromhex(path.name))

    async def read(self, public: bytes) -> RegistryEntry | None:
        """Raises `registry_invalid` where the file was changed."""
        return await self._do(lambda: self._read_entry(public))

    async def publish(self, entry: RegistryEntry) -> None:
        """Read, compared and replaced under the lock."""
        await self._do(lambda: self._publish(entry))

    async def entries(self) -> AsyncIterator[RegistryEntry]:
        """Every pointer."""
        for path in await self._do(lambda: list((self._root / "registry").iterdir())):
            if (packed := await self._do(lambda path=path: _read(path))) is not None:  # type: ignore[misc]
                yield RegistryEntry.unpack(packed)

    def _read_entry(self, public: bytes) -> RegistryEntry | None:
        packed = _read(self._root / "registry" / public.hex())
        if packed is None:
            return None
        entry = RegistryEntry.unpack(packed)
        if entry.public != public:
            raise error("registry_invalid", "an entry under another key's name")
        return entry

    def _publish(self, entry: RegistryEntry) -> None:
        with _locked(self._root / "lock"):
            try:
                held = self._read_entry(entry.public)
            except FabstirError:
                held = None  # what nobody signed is no entry, and must not keep out one that is
            if is_news(held, entry):
                self._write(self._root / "registry" / entry.public.hex(), entry.pack())

    def _path(self, blob: Hash32) -> Path:
        name = blob.hex()
        return self._root / "blobs" / name[:2] / name

    def _files(self) -> Iterator[Path]:
        return (path for path in (self._root / "blobs").glob("??/*") if len(path.name) == 2 * HASH)

    def _write(self, path: Path, content: bytes) -> None:
        aside = self._root / "aside" / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True, mode=0o700)
                _sync(path.parent.parent)
            aside.replace(path)
            _sync(path.parent)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    async def _do(self, act: Callable[[], Result]) -> Result:
        try:
            return await asyncio.to_thread(act)
        except OSError as cause:
            raise _failure(cause) from cause


def _failure(cause: OSError) -> FabstirError:
    return error("blob_quota" if cause.errno in FULL else "blob_failed", cause.strerror or str(cause))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _unlink(path: Path) -> int:
    """Bytes that are free again. Not synced: a deleted blob that comes back after a power cut is only room."""
    size = _size(path)
    path.unlink(missing_ok=True)
    return size


def _is_running(name: str) -> bool:
    """Whether the process that wrote aside under `name` may still be at it."""
    number = name.partition("-")[0]
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
