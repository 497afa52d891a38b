"""The nouns of prompt jobs: what a renter posts on the `PromptBoard`, and where such a job stands.

Mirrors `PromptBoard.PromptTerms` field by field; `fabstir.protocol.prompt_signing.prompt_id` hashes it exactly as the
contract does. Decides nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NewType

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy

PromptId = NewType("PromptId", bytes)
"""32 bytes, keccak-256 of the ABI-encoded prompt terms: names one prompt job."""

Cid = NewType("Cid", bytes)
"""32 bytes, BLAKE3-256 of sealed bytes: where content is found, and what it must be."""

MAX_ANSWER_TOKENS: Final = Tokens(4096)
"""The market's greatest exposure, since an answer is the exposure of its job."""
MAX_ESCROW: Final = 2**88 - 1
SETTLE_SECONDS: Final = 86_400
"""How long the host has in the market to prove the answer and to claim."""


class PromptTerms(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt job: what is asked, for how much, until when."""

    renter: Address
    """Whose money it is: gets the refund, may assign and cancel."""
    signer: Address
    """The key whose voucher pays the host without a proof (policy fallback)."""
    token: Address
    """ERC-20 contract, or ZERO_ADDRESS for the native coin."""
    assigner: Address
    """May assign the job to hosts in the renter's place; ZERO_ADDRESS: nobody."""
    arbiter: Address
    """Rules over an answered dispute; ZERO_ADDRESS: nobody, the answer decides."""
    ceiling: PricePerMTok
    """The most that a host may ask; it is paid what the registry names for it at its claim."""
    bond: BaseUnits
    """What a dispute costs whoever was wrong to raise it."""
    max_tokens: Tokens
    deadline: int
    """Unix seconds from which the money goes back."""
    execute_seconds: int
    """How long a claim, or a reservation, lasts."""
    challenge: int
    """Seconds of each stage of the market job's claim."""
    policy: ProofPolicy
    model_id: ModelId
    prompt_cid: Cid
    salt: Hash32
    """Random; makes the id unique and binds what is sealed to this job."""


class PromptState(IntEnum):
    """Where a prompt job stands on chain, numbered as in the contract."""

    NONE = 0
    """Never posted."""
    POSTED = 1
    """Money lies there, no host works on it."""
    RESERVED = 2
    """Only `host` may claim it, until `until`; then it is as free as one that was just posted."""
    CLAIMED = 3
    """`host` may complete it, until `until`; then it is as free as one that was just posted."""
    COMPLETED = 4
    """The answer is committed, the market job is open."""
    CANCELLED = 5
    """The renter took its money back."""
    REFUNDED = 6
    """The deadline passed; the renter has its money back."""


ENDED: Final = frozenset({PromptState.COMPLETED, PromptState.CANCELLED, PromptState.REFUNDED})


class PromptStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the board holds about one prompt job (`PromptBoard.prompts(id)`)."""

    state: PromptState = PromptState.NONE
    host: Address = ZERO_ADDRESS
    """Who claimed it last, or has it reserved, or answered it."""
    until: int = 0
    """Unix seconds at which claim or reservation is over."""
    price: PricePerMTok = PricePerMTok(0)
    """Of the claim."""
    escrow: BaseUnits = BaseUnits(0)

    @property
    def ended(self) -> bool:
        """Nothing happens on the board any more."""
        return self.state in ENDED

    def claimed_by(self, host: Address) -> bool:
        """The last claim is that of `host`, whether it holds or has run out."""
        return self.state is PromptState.CLAIMED and self.host == host

    def held_by(self, host: Address, now: float) -> bool:
        """`host` may complete it now."""
        return self.claimed_by(host) and now < self.until

    def free_for(self, host: Address, now: float) -> bool:
        """`host` may claim it now, as far as the board's state says."""
        match self.state:
            case PromptState.POSTED:
                return True
            case PromptState.RESERVED:
                return self.host == host or now >= self.until
            case PromptState.CLAIMED:
                return now >= self.until
            case _:
                return False


class PromptCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The board's event about an answer: with the prompt's terms, all of the market job's terms."""

    job: JobId
    host: Address
    tokens: Tokens
    price: PricePerMTok
    result_cid: Cid
    result_hash: Hash32
    expires_at: int
