"""What the contract needs of a backend under test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fabstir.domain.ids import Hash32
from fabstir.ports.storage import BlobBackend, Registry


class Backend(NamedTuple):
    """Blobs, pointers, and where a blob lies as a file, if it does."""

    blobs: BlobBackend
    registry: Registry
    file: Callable[[Hash32], Path] | None = None
