"""What the records of this process's answers were hashed from, for as long as a proof may have to open them.

In memory only, and nothing of it is ever written: a preimage holds its record's salt and token, so with it the digest in the journal says
what was said. A process that starts again therefore has none of what it served before. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

CAPACITY: Final = 256 << 20
"""Bytes. With five listed tokens a record takes about 310 of them, so this is some 860,000 tokens of open jobs."""
OVERHEAD: Final = 200
"""Bytes of CPython's for one entry: two `bytes` objects and their place in the dictionary."""


class HeldRecords:
    """Preimages by their digest, the oldest dropped beyond `capacity`. Memory: `capacity`."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._preimages: dict[bytes, bytes] = {}
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<HeldRecords {len(self._preimages)} records, {self._bytes} of {self._capacity} bytes>"

    def keep(self, digest: bytes, preimage: bytes) -> None:
        """A record was served."""
        self._forget(digest)
        self._preimages[digest] = preimage
        self._bytes += len(preimage) + OVERHEAD
        while self._bytes > self._capacity:
            self._forget(next(iter(self._preimages)))

    def find(self, digest: bytes) -> bytes | None:
        """What `digest` was made of, if this process served it and still holds it."""
        return self._preimages.get(digest)

    def forget(self, digests: Iterable[bytes]) -> None:
        """These records will not be opened any more."""
        for digest in digests:
            self._forget(digest)

    def _forget(self, digest: bytes) -> None:
        preimage = self._preimages.pop(digest, None)
        if preimage is not None:
            self._bytes -= len(preimage) + OVERHEAD
