"""What a renter wants of every job, where nothing else is said. Frozen; made by the composition root, or directly by a
program that uses the SDK.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.ids import Address
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import DEFAULT_EXPOSURE, MIN_CHALLENGE_SECONDS, ProofPolicy


class RenterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds where nothing else is said."""

    budget: BaseUnits = BaseUnits(1_000_000)
    """Of one session: what its jobs can cost together, deposits of jobs that are still open included."""
    token: Address | None = None
    """What is paid with; None: the chain's USDC."""
    max_price: PricePerMTok | None = None
    policy: ProofPolicy = ProofPolicy.REQUIRED
    exposure: Tokens = DEFAULT_EXPOSURE
    challenge: int = MIN_CHALLENGE_SECONDS
    """At least; a host may ask for more."""
    lifetime: int = 86_400
    """From opening a job to its expiry."""
    top_up: bool = True
    """Top a job up where its deposit runs out in the middle of something, as far as the budget goes; else a new job is opened."""
    dispute_above: BaseUnits = BaseUnits(100_000)
    """Dispute a host's claim of tokens that never arrived where they are worth so much; below, the bond and the gas cost more."""
    authorize: bool = False
    """Pay by a signed transfer (EIP-3009) instead of approve and open: one transaction instead of two. Needs the
    wallet's key.
    """
    answer_patience: float = 120.0
    """A host that sends nothing for so long while an answer is due is given up."""
    greeting_patience: float = 15.0
    """The same for `session_ready` and for the end of a session."""
