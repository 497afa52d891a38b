"""What storage needs from outside: a place for blobs, and a place for signed pointers. Both say the truth about durability.

Implementations translate what their libraries raise: `blob_missing`, `blob_corrupt`, `blob_quota` (quota or disk full), `blob_failed`
(this machine), `storage_unavailable` (a service that does not answer), `registry_invalid`, `registry_stale`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from fabstir.domain.ids import Hash32
from fabstir.protocol.storage.registry import RegistryEntry


class BlobBackend(Protocol):
    """Blobs by their BLAKE3-256."""

    async def put(self, content: bytes) -> Hash32:
        """Durable when it returns. What is there already is written again, so that putting repairs."""
        ...

    async def get(self, blob: Hash32) -> bytes:
        """Checked against its name. Raises `blob_missing`, `blob_corrupt`."""
        ...

    async def size(self, blob: Hash32) -> int | None:
        """Bytes under that name, None where there is nothing. Does not check them."""
        ...

    async def delete(self, blob: Hash32) -> None:
        """Idempotent."""
        ...

    def names(self) -> AsyncIterator[Hash32]:
        """Every blob that was there when it began, in no order; what comes or goes meanwhile may be among them or not."""
        ...


class Registry(Protocol):
    """Signed pointers by public key. Of one key the highest revision is kept."""

    async def read(self, public: bytes) -> RegistryEntry | None:
        """Signature checked. Raises `registry_invalid`."""
        ...

    async def publish(self, entry: RegistryEntry) -> None:
        """Durable when it returns; the same entry again is no mistake. Raises `registry_stale`, `registry_invalid`."""
        ...

    def entries(self) -> AsyncIterator[RegistryEntry]:
        """Every pointer, in no order."""
        ...
