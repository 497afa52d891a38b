"""Files that a person names: read and written with errors that say which file and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fabstir.domain.errors import error

MAX_FILE: Final = 256 << 20
"""Bytes of the largest file that is read whole: a session of a million tokens is half of it."""


def read_file(path: Path, limit: int = MAX_FILE) -> bytes:
    """All of it. Raises PeerFault (`request_invalid`)."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as fault:
        raise error("request_invalid", f"{path}: {fault.strerror}", "Name a file that can be read.") from fault
    if len(data) > limit:
        raise error("request_invalid", f"{path} is larger than {limit} bytes", "Name another file.")
    return data


def write_private(path: Path, data: bytes) -> None:
    """A new file that nobody else can read. Raises PeerFault (`request_invalid`) where it exists or cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as fault:
        raise error("request_invalid", f"{path}: {fault.strerror}", "Name a file that does not exist yet.") from fault
