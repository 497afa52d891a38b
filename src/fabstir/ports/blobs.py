"""Where sealed content lies: prompts that were uploaded, results that wait for their renter. Named by what they are."""

from __future__ import annotations

from typing import Protocol

from fabstir.domain.prompts import Cid


class BlobStore(Protocol):
    """Content by its BLAKE3-256. Raises LocalFault (`blob_failed`) where the disk does not work."""

    async def put(self, content: bytes) -> Cid:
        """Durable when it returns; content that is there already is kept as new. Raises Refused (`blob_quota`)."""
        ...

    async def get(self, cid: Cid) -> bytes:
        """Checked against its name. Raises Refused (`blob_missing`), LocalFault (`blob_corrupt`)."""
        ...

    async def has(self, cid: Cid) -> bool:
        """Something is there under that name."""
        ...

    async def delete(self, cid: Cid) -> None:
        """Idempotent."""
        ...

    def aged(self, older_than: float) -> tuple[Cid, ...]:
        """What was put before Unix second `older_than`."""
        ...

    async def sweep(self) -> int:
        """Remove what is too old; returns how many blobs that were."""
        ...
