"""Files of collections: whole or not there, on the disk when a call returns, checked when they are read, and one writer.

    lock                            held by the process that writes
    <collection>/manifest           what it is at one moment (`protocol.vectors.manifest`)
    <collection>/wal-<number>       what came since (`protocol.vectors.log`)
    <collection>/<hash>             the immutable files of segments, by their BLAKE3

What the system raises is translated here: `vectors_full` for a full disk, a used-up quota and a file that must not grow,
`vectors_failed` for the rest. Decides nothing about what is in a file.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from blake3 import blake3

from fabstir.domain.errors import error

FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_HASH_CHARACTERS: Final = 64


@contextmanager
def translated() -> Iterator[None]:
    """Raises `vectors_full` and `vectors_failed` for what the system says."""
    try:
        yield
    except OSError as cause:
        raise error(
            "vectors_full" if cause.errno in FULL else "vectors_failed", cause.strerror or str(cause)
        ) from cause


class Lock:
    """The kernel drops it when the process ends, however it ends."""

    def __init__(self, root: Path) -> None:
        """Makes `root` (mode 0700). Raises `vectors_locked`."""
        with translated():
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            os.close(self._file)
            raise error("vectors_locked", root.name) from cause

    def release(self) -> None:
        """Let another process in."""
        os.close(self._file)


def write(path: Path, content: bytes | memoryview) -> None:
    """In the place of what was there, whole, when it returns."""
    aside = path.with_name(f".{path.name}.aside")
    with translated():
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            sync(path.parent)
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


def store(directory: Path, content: bytes | memoryview) -> str:
    """Under its hash, which is returned. What is there under it is that already."""
    name = blake3(content).hexdigest()
    path = directory / name
    if not path.exists() or path.stat().st_size != len(content):
        write(path, content)
    return name


def mapped(directory: Path, name: str) -> memoryview:
    """A file by its hash, mapped and checked. Raises `vectors_corrupt`."""
    path = directory / name
    if not path.exists():
        raise error("vectors_corrupt", f"{directory.name}/{name} is missing")
    with translated(), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")
    if blake3(content).hexdigest() != name:
        raise error("vectors_corrupt", f"{directory.name}/{name} is not what its name says")
    return content


def read(path: Path) -> bytes:
    """All of a file. Raises `vectors_corrupt` where it is missing."""
    with translated():
        if not path.exists():
            raise error("vectors_corrupt", f"{path.parent.name}/{path.name} is missing")
        return path.read_bytes()


def sync(directory: Path) -> None:
    """Its entries. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def collections_in(root: Path) -> list[str]:
    """By name; what a dead process left half made or half removed goes."""
    with translated():
        found = sorted(root.iterdir())
    for path in found:
        if path.name.startswith("."):
            remove(path)
    return [path.name for path in found if path.is_dir() and not path.name.startswith(".")]


def log_bytes(directory: Path) -> int:
    """Of the log, without what was cut off."""
    size = 0
    for path in directory.glob("wal-*"):
        if path.name[4:].isdecimal():
            with suppress(FileNotFoundError):
                size += path.stat().st_size
    return size


def hashed(directory: Path) -> list[Path]:
    """The files of segments, needed or not."""
    return [path for path in directory.iterdir() if len(path.name) == _HASH_CHARACTERS]


def remove(path: Path) -> None:
    """A file or a directory with all that is in it. What cannot go is only room."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
