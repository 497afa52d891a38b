"""Moves on the settlement model: a job between the two test keys, opened, proven, claimed; what a call changes or is refused with."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import JobState, ProofPolicy, Terms
from fabstir.protocol.settlement import (
    Call,
    ClaimProven,
    CommitProof,
    MarketState,
    Open,
    Redeem,
    Reverted,
    SubmitProof,
    apply,
)
from fabstir.protocol.signing import job_id
from tests.protocol.market import HOST_KEY, SESSION_KEY, terms

NOW, BLOCK = 1_000_000, 500
TREASURY, STRANGER, ARBITER = (Address(bytes([n]) * 20) for n in (0x7E, 0x99, 0xA4))
TERMS: Final = terms(price=1_000_000, policy=ProofPolicy.REQUIRED)
FALLBACK: Final = terms(price=1_000_000, policy=ProofPolicy.FALLBACK)
RULED: Final = msgspec.structs.replace(TERMS, arbiter=ARBITER)
"""With somebody who rules on an answered dispute."""
RENTER, HOST, SIGNER, TOKEN = TERMS.renter, HOST_KEY.address, SESSION_KEY.address, TERMS.token
ROOT, OTHER = Hash32(b"\1" * 32), Hash32(b"\2" * 32)
STAKE, SLASH, COMPENSATION = 25, 10, 6


def market(stake: int = STAKE) -> MarketState:
    """Nothing opened yet, the host staked."""
    stakes = type(MarketState(TREASURY).stakes)({HOST: stake})
    return MarketState(TREASURY, stakes=stakes, slash=SLASH, compensation=COMPENSATION)


def opened(agreed: Terms = TERMS, deposit: int = 1_000, *, stake: int = STAKE) -> MarketState:
    return apply(market(stake), Open(agreed.renter, agreed, BaseUnits(deposit)), NOW, BLOCK)


def after(state: MarketState, *calls: Call, now: int = NOW, block: int = BLOCK) -> MarketState:
    for call in calls:
        state = apply(state, call, now, block)
    return state


def refused(state: MarketState, call: Call, now: int = NOW, block: int = BLOCK) -> str | None:
    try:
        apply(state, call, now, block)
    except Reverted as refusal:
        return str(refusal)
    return None


def job_of(state: MarketState) -> JobState:
    return next(iter(state.jobs.values())).state


def redeem(tokens: int, agreed: Terms = FALLBACK, **fields: Any) -> Redeem:
    amount = cost(Tokens(tokens), agreed.price)
    return msgspec.structs.replace(Redeem(HOST, job_id(agreed), amount, Tokens(tokens), SIGNER), **fields)


def prove(state: MarketState, agreed: Terms, tokens: int) -> MarketState:
    """One more accepted proof."""
    job = job_id(agreed)
    state = after(state, CommitProof(HOST, job, Tokens(tokens), ROOT))
    return after(state, SubmitProof(job, Tokens(tokens), ROOT, True), block=BLOCK + 3)


def proven(tokens: int, agreed: Terms = TERMS, *, stake: int = STAKE) -> MarketState:
    """A job with an accepted proof."""
    return prove(opened(agreed, stake=stake), agreed, tokens)


def claimed(agreed: Terms = TERMS, *, stake: int = STAKE) -> MarketState:
    """200 tokens proven, 100 of them signed and redeemed, 64 more claimed."""
    state = after(proven(200, agreed, stake=stake), redeem(100, agreed))
    return after(state, ClaimProven(HOST, job_id(agreed)))
