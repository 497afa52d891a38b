"""What a host does next about its epochs: a pure planner over the contract's state and the places in its jobs' logs.

An epoch is chosen where at least two sessions are due, since a proof costs the same for one and for many; while one is
on its way, who becomes due waits for the next. Remembers nothing: the contract says which epoch is open or proven, the
logs say what it held. What a single job does is `settlement_plan`. Decision record: docs/decisions/0006-epoch-proofs.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

import msgspec

from fabstir.domain.ids import Hash32, JobId
from fabstir.protocol.epochs import EpochPlace, EpochSession, commitment_digest
from fabstir.protocol.host_log import CommitmentMade
from fabstir.protocol.settlement import BLOCKHASH_WINDOW, SEED_DELAY

SMALLEST: Final = 2
"""Sessions for which an epoch needs less gas than their own proofs: its transactions cost what those of one job cost."""
LARGEST: Final = 1_000
"""Bounds the write before a commitment, one entry in each session's log."""
REDEEMED_AT_ONCE: Final = 100
"""Claims in one redemption: 2.5 million gas, a twelfth of the smallest block of the networks that are known."""


class Standing(Enum):
    """Of the epoch that a session was last put into."""

    NONE = "none"
    """There is none, or the contract does not know it (any more)."""
    PENDING = "pending"
    """It waits for its proof."""
    PROVEN = "proven"


class EpochView(msgspec.Struct, frozen=True):
    """The host's epochs as one job sees them."""

    mine: Standing
    busy: bool
    """An epoch can still be answered: the next has to wait."""


class OpenEpoch(msgspec.Struct, frozen=True):
    """What the contract keeps of the host's last commitment."""

    pending_block: int
    digest: int
    block: int
    """Newest block."""

    @property
    def seed_block(self) -> int:
        """Whose hash is the challenge."""
        return self.pending_block + SEED_DELAY

    @property
    def busy(self) -> bool:
        """It can still be answered, or its challenge is not known yet: no other one can be committed."""
        return self.pending_block > 0 and self.block <= self.seed_block + BLOCKHASH_WINDOW

    @property
    def answerable(self) -> bool:
        """Now, with a block to spare."""
        return self.pending_block > 0 and self.seed_block < self.block < self.seed_block + BLOCKHASH_WINDOW

    def holds(self, place: EpochPlace) -> bool:
        """It is the epoch of this place."""
        return self.pending_block > 0 and self.digest == commitment_digest(place.root, place.total)

    def view(self, place: EpochPlace | None, proven: Iterable[Hash32]) -> EpochView:
        """For the job whose last place this is; `proven`: roots that the contract knows as proven."""
        if place is None:
            return EpochView(Standing.NONE, self.busy)
        if place.root in proven:
            return EpochView(Standing.PROVEN, self.busy)
        return EpochView(Standing.PENDING if self.busy and self.holds(place) else Standing.NONE, self.busy)


def session_of(job: JobId, committed: CommitmentMade) -> EpochSession:
    """What an epoch says of a job that is ready for `committed`."""
    return EpochSession(job, committed.tree_root, committed.head, committed.tokens)
