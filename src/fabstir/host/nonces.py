"""Remembers what may be used once, as long as it could be used again. Decides nothing else; keeps nothing on disk."""

from __future__ import annotations

import heapq
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, JobId

NONCES_KEPT: Final = 65_536
"""About 270 new sessions a second for the two windows that a nonce is remembered."""


class NonceCache:
    """Nonces of authorisations that are still valid, each good for one use.

    Memory: NONCES_KEPT entries; when full, new ones are refused rather than old ones forgotten.
    """

    def __init__(self, limit: int = NONCES_KEPT) -> None:
        self._limit = limit
        self._used: set[tuple[JobId, Hash32]] = set()
        self._expiry: list[tuple[float, tuple[JobId, Hash32]]] = []

    def __repr__(self) -> str:
        return f"<NonceCache {len(self._used)} of {self._limit}>"

    def use(self, job: JobId, nonce: Hash32, expires_at: float, now: float) -> None:
        """Raises Refused (`session_unauthorized`) where it was used before, (`capacity`) where too many are remembered."""
        while self._expiry and self._expiry[0][0] < now:
            self._used.discard(heapq.heappop(self._expiry)[1])
        entry = (job, nonce)
        if entry in self._used:
            raise error("session_unauthorized", "this nonce was used before")
        if len(self._used) >= self._limit:
            raise error("capacity", f"{self._limit} authorisations in four minutes")
        self._used.add(entry)
        heapq.heappush(self._expiry, (expires_at, entry))
