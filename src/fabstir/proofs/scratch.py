"""A folder for the files of one prover process, gone with it however it ends.

ezkl takes inputs and witness as files. A process that is killed cannot remove them, so each folder is locked by its owner, and whoever
makes the next one removes those whose lock is free. The files hold salted digests of records, never text. Never imports ezkl.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that no folder is seen between its making and its own lock
        for other in parent.glob("work-*"):
            _remove_if_orphaned(other)
        folder = Path(tempfile.mkdtemp(prefix="work-", dir=parent))
        held = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _remove_if_orphaned(folder: Path) -> None:
    held = _locked(folder)
    if held is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock, or None where another process holds it or the folder has just gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
