"""The terms of one job: what renter and host agreed, fixed when the deposit is made.

Mirrors `JobMarketplace.Terms` field by field; `fabstir.protocol.signing.job_id` hashes it exactly as the contract does.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens

DEFAULT_EXPOSURE: Final = Tokens(64)
"""W: at most so many tokens are served but not acknowledged. 64 tokens at 0.20 USDC/M are worth 0.0013 cent."""

MIN_CHALLENGE_SECONDS: Final = 900
"""The contract refuses a shorter challenge window (x402 batch-settlement uses the same minimum)."""

MAX_CHALLENGE_SECONDS: Final = 3 * 86_400
"""And a longer one: a host's stake stays locked for three of them."""

DEFAULT_BOND: Final = BaseUnits(100_000)
"""0.10 USDC: some fifty times what the answer to a dispute costs on Base, so that nobody disputes for fun."""

DEFAULT_BOND_NATIVE: Final = BaseUnits(40_000_000_000_000)
"""0.00004 ETH: the same where one ETH is worth 2,500 USDC."""

_OPENED_BY: Final = b"\xff" * 4
OPENER_SALT_BYTES: Final = 8


class ProofPolicy(IntEnum):
    """What a host must show before it is paid."""

    REQUIRED = 0
    """Nothing is redeemed without a valid proof over at least as many tokens."""
    FALLBACK = 1
    """The renter's voucher pays alone; a proof is needed only for tokens that the renter did not sign for."""


class ClaimStage(IntEnum):
    """Where a claim of proven tokens that the renter did not sign stands (`MarketTypes.Stage`)."""

    NONE = 0
    CLAIMED = 1
    """Held back; the renter may dispute."""
    DISPUTED = 2
    """The host must open its records."""
    ANSWERED = 3
    """The arbiter may rule."""
    LOST = 4
    """The host lost a claim; it has no other one in this job."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """One job between one renter and one host."""

    renter: Address
    """Who pays the deposit and gets the refund."""
    signer: Address
    """The renter's session key: its signature alone makes a voucher valid (plain ECDSA, never ERC-1271)."""
    host: Address
    """Who serves and is paid; also signs receipts."""
    token: Address
    """ERC-20 contract, or ZERO_ADDRESS for the native coin."""
    arbiter: Address = ZERO_ADDRESS
    """Who rules where an answered dispute needs judgement; ZERO_ADDRESS: nobody, the answer decides for the host."""
    price: PricePerMTok
    bond: BaseUnits = DEFAULT_BOND
    """What a dispute costs whoever was wrong to raise it, in base units of `token`; above 0."""
    expires_at: int
    """Unix seconds. After `expires_at + challenge` anyone may finalize."""
    challenge: int
    """Seconds between the renter's requestClose and finalize, and of each stage of a claim."""
    exposure: Tokens
    """W of this job."""
    policy: ProofPolicy
    model_id: ModelId
    salt: Hash32
    """Random; makes the job id unique. Or made by `salt_for`: then one other account alone may open the job."""

    @property
    def opener(self) -> Address:
        """Who may open the job: the renter, unless the salt names another account."""
        return Address(self.salt[:20]) if self.salt[20:24] == _OPENED_BY else self.renter


def salt_for(opener: Address, rest: bytes) -> Hash32:
    """A salt with which only `opener` may open the job; `rest` is 8 bytes, random."""
    if len(rest) != OPENER_SALT_BYTES:
        raise ValueError(f"{OPENER_SALT_BYTES} bytes make it unique")
    return Hash32(opener + _OPENED_BY + rest)


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """What the contract holds about one job (`JobMarketplace.jobs(id)`)."""

    deposit: BaseUnits = BaseUnits(0)
    owed: BaseUnits = BaseUnits(0)
    """Credited so far and held back by a claim; host's part and fee together."""
    signed: Tokens = Tokens(0)
    """Tokens of the best redeemed voucher."""
    proven: Tokens = Tokens(0)
    """Tokens covered by the best accepted proof."""
    closed: bool = False
    closing_at: int = 0
    """Unix seconds from which finalize is allowed after requestClose; 0 while not requested."""
    pending_block: int = 0
    """Block of the open proof commitment; 0 while there is none."""
    held: BaseUnits = BaseUnits(0)
    """Part of `owed` that a claim holds back until it is decided."""
    held_tokens: Tokens = Tokens(0)
    """Cumulative tokens of that claim."""
    held_until: int = 0
    """Unix seconds at which its stage ends."""
    stage: ClaimStage = ClaimStage.NONE

    @property
    def is_open(self) -> bool:
        """A deposit was made and the job was not closed."""
        return self.deposit > 0 and not self.closed
