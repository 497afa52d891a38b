"""Blobs in a directory, one file each, named by their BLAKE3-256.

A file appears under its name only whole and synced (written aside, then renamed), and what is read is hashed again, so that
neither a crash nor a bad disk hands out something else. Bounded in bytes and in age: what is older than `max_age` may go as
soon as room is needed, and goes at the next `sweep`. Never looks into content; callers seal it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blake3 import blake3

from fabstir.domain.errors import error
from fabstir.domain.prompts import Cid
from fabstir.ports.clock import Clock

ASIDE: Final = "aside-"
"""Prefix of files that are being written; those of an earlier process are removed."""


class DirectoryBlobs:
    """One directory, one process. Memory: a name, a size and a time for each blob."""

    def __init__(self, root: Path, clock: Clock, *, quota: int, max_age: float) -> None:
        """Makes `root` (mode 0700) and looks at what is there. `quota` in bytes, `max_age` in seconds. Raises `blob_failed`."""
        self._root = root
        self._clock = clock
        self._quota = quota
        self._max_age = max_age
        self._lock = asyncio.Lock()
        self._known: dict[Cid, tuple[int, float]] = {}
        """CID -> (bytes, Unix seconds of the last `put`)."""
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._look()
        except OSError as refused:
            raise error("blob_failed", f"{root}: {refused.strerror}") from refused

    def __repr__(self) -> str:
        return f"<DirectoryBlobs {self._root.name}: {len(self._known)} blobs, {self.size} of {self._quota} bytes>"

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(size for size, _ in self._known.values())

    def aged(self, older_than: float) -> tuple[Cid, ...]:
        """What was put before Unix second `older_than`."""
        return tuple(cid for cid, (_, at) in self._known.items() if at < older_than)

    async def put(self, content: bytes) -> Cid:
        """Raises `blob_quota`, `blob_failed`."""
        cid = Cid(await asyncio.to_thread(_digest, content))
        async with self._lock:
            now = self._clock.now()
            fresh = 0 if cid in self._known else len(content)
            if self.size + fresh > self._quota:
                await self._remove(self.aged(now - self._max_age))
            if self.size + fresh > self._quota:
                raise error("blob_quota", f"{len(content)} bytes more than fit beside {self.size} of {self._quota}")
            await self._do(self._write, cid, content, now)
            self._known[cid] = (len(content), now)
        return cid

    async def get(self, cid: Cid) -> bytes:
        """Raises `blob_missing`, `blob_corrupt`, `blob_failed`."""
        if cid not in self._known:
            raise error("blob_missing", cid.hex())
        try:
            content = await asyncio.to_thread(self._path(cid).read_bytes)
        except FileNotFoundError as gone:
            self._known.pop(cid, None)
            raise error("blob_missing", cid.hex()) from gone
        except OSError as refused:
            raise error("blob_failed", refused.strerror or "") from refused
        if await asyncio.to_thread(_digest, content) != cid:
            raise error("blob_corrupt", f"{cid.hex()}, {len(content)} bytes")
        return content

    async def has(self, cid: Cid) -> bool:
        """Something is there under that name."""
        return cid in self._known

    async def delete(self, cid: Cid) -> None:
        """Idempotent."""
        async with self._lock:
            await self._remove((cid,))

    async def sweep(self) -> int:
        """Remove what is too old; returns how many blobs that were."""
        async with self._lock:
            old = self.aged(self._clock.now() - self._max_age)
            await self._remove(old)
            return len(old)

    async def _remove(self, cids: tuple[Cid, ...]) -> None:
        for cid in cids:
            self._known.pop(cid, None)
            await self._do(self._unlink, cid)

    async def _do(self, act: Callable[..., None], *arguments: object) -> None:
        try:
            await asyncio.to_thread(act, *arguments)
        except OSError as refused:
            raise error("blob_failed", refused.strerror or "") from refused

    def _write(self, cid: Cid, content: bytes, now: float) -> None:
        path = self._path(cid)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        aside = self._root / f"{ASIDE}{secrets.token_hex(8)}"
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.utime(aside, (now, now))
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        for directory in (path.parent, self._root):
            _sync(directory)

    def _unlink(self, cid: Cid) -> None:
        self._path(cid).unlink(missing_ok=True)

    def _look(self) -> None:
        for left in self._root.glob(ASIDE + "*"):
            left.unlink()
        for path in self._root.glob("??/*"):
            with contextlib.suppress(ValueError):
                found = path.stat()
                self._known[Cid(bytes.fromhex(path.name))] = (found.st_size, found.st_mtime)

    def _path(self, cid: Cid) -> Path:
        name = cid.hex()
        return self._root / name[:2] / name


def _digest(content: bytes) -> bytes:
    return blake3(content).digest()


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
