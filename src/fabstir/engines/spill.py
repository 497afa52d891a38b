"""What llama.cpp computed for sessions that lost their slot, set aside in memory until they ask again.

The server can only write it to a file, and the file holds what was said. So the folder must be in memory (tmpfs) on a machine that does
not swap, or nothing is set aside; it is readable by this user alone, bounded, removed at the end, and a folder that a killed process left
is removed at the next start. A file is a cache: where it cannot be written or read, the prompt is computed again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Final

import structlog

from fabstir.domain.errors import error

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  memory, which is the point
PREFIX: Final = "fabstir-kv-"
IN_MEMORY: Final = frozenset(("tmpfs", "ramfs"))

log = structlog.get_logger()


class SpillFolder:
    """The folder and what is in it. Memory: `limit` bytes of tmpfs."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path: Final = path
        self._limit = limit
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """By session, the one that was set aside last at the end."""
        self._names: dict[str, str] = {}
        self._count = 0
        self._per_token = 0.0
        """Bytes, as measured on the last file."""

    def __repr__(self) -> str:
        return f"<SpillFolder {len(self._sizes)} sessions, {sum(self._sizes.values())} of {self._limit} bytes>"

    def name_for(self, session: str, tokens: int) -> str | None:
        """The file to write; older ones make room. None where it would not fit, as far as is known."""
        expected = int(tokens * self._per_token)
        if expected > self._limit:
            return None
        self.drop(session)
        self._shrink(self._limit - expected)
        self._count += 1
        self._names[session] = f"{self._count}.kv"
        return self._names[session]

    def written(self, session: str, tokens: int) -> None:
        """The file is there."""
        try:
            size = (self.path / self._names[session]).stat().st_size
        except OSError:
            self.drop(session)
            return
        self._sizes[session] = size
        self._per_token = size / max(1, tokens)
        self._shrink(self._limit)

    def name_of(self, session: str) -> str | None:
        """The file of a session that was set aside."""
        return self._names.get(session) if session in self._sizes else None

    def drop(self, session: str) -> None:
        """Forget it."""
        self._sizes.pop(session, None)
        name = self._names.pop(session, None)
        if name is not None:
            (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all."""
        for session in tuple(self._names):
            self.drop(session)

    def remove(self) -> None:
        """Forget all, and the folder. Idempotent."""
        self.clear()
        shutil.rmtree(self.path, ignore_errors=True)

    def _shrink(self, to: int) -> None:
        while self._sizes and sum(self._sizes.values()) > to:
            self.drop(next(iter(self._sizes)))


def open_folder(limit: int | None, root: Path = SHARED_MEMORY) -> SpillFolder | None:
    """A folder of this process for at most `limit` bytes. `limit` None: an eighth of what `root` can hold, where it is safe, else no folder
    (None), and the log says why. 0: none.

    Raises LocalFault (`config_invalid`) where a limit is set and what was said could reach a disk.
    """
    if limit == 0:
        return None
    why = unsafe(root)
    if why:
        if limit is not None:
            raise error("config_invalid", f"engine.spill_mb: {why}", "Set it to 0: prompts are then computed again.")
        log.info("kv_spill_off", reason=why)
        return None
    clean(root)
    room = shutil.disk_usage(root).total // 8 if limit is None else limit
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))
    return SpillFolder(path, room)


def unsafe(root: Path, mounts: Path = Path("/proc/self/mounts"), swaps: Path = Path("/proc/swaps")) -> str:
    """Why what is written under `root` could reach a disk; "" where it cannot."""
    try:
        rows = [line.split() for line in mounts.read_text().splitlines()]
        swapping = [line.split()[0] for line in swaps.read_text().splitlines()[1:]]
    except OSError:
        return "it is not known whether this machine swaps"
    here = [row for row in rows if len(row) > 2 and root.is_relative_to(row[1])]
    kind = max(here, key=lambda row: len(row[1]), default=["", "", "nothing"])[2]
    if kind not in IN_MEMORY or not os.access(root, os.W_OK):
        return f"{root} is no writable memory, but {kind}"
    on_disk = [name for name in swapping if not name.startswith("/dev/zram")]
    return f"this machine swaps to {on_disk[0]}" if on_disk else ""


def clean(root: Path) -> None:
    """Remove folders of processes that are gone."""
    for folder in root.glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
