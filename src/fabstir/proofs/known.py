"""Commitments that a prover has made or looked at: a host asks before each tree whether all of its checkpoints can be proven, and a job may
have tens of thousands of them. What is not known is computed again, so nothing depends on what is dropped. Decides nothing."""

from __future__ import annotations

from typing import Final

from fabstir.domain.ids import Hash32

CAPACITY: Final = 1 << 16


class KnownCommitments:
    """The youngest CAPACITY. Memory: about 120 bytes each, 8 MB."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity: Final = capacity
        self._known: Final[dict[Hash32, None]] = {}

    def __repr__(self) -> str:
        return f"<KnownCommitments {len(self._known)} of {self._capacity}>"

    def __contains__(self, commitment: Hash32) -> bool:
        return commitment in self._known

    def add(self, commitment: Hash32) -> None:
        """It is young from now on."""
        self._known.pop(commitment, None)
        self._known[commitment] = None
        if len(self._known) > self._capacity:
            del self._known[next(iter(self._known))]
