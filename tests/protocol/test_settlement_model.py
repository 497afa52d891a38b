"""The contract's money as a pure function, rule by rule: each refusal by the contract's own name, at its bound.

Claims and their disputes are in test_settlement_disputes.py; `tests/contracts` holds the same function against the real contract.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from fabstir.domain.ids import ZERO_ADDRESS, JobId
from fabstir.domain.money import MAX_AMOUNT, MAX_DEPOSIT, BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import JobState, salt_for
from fabstir.protocol.settlement import (
    ClaimProven,
    CloseByHost,
    CloseCooperative,
    CommitProof,
    Finalize,
    MarketState,
    Open,
    Redeem,
    RequestClose,
    SubmitProof,
    TopUp,
    Withdraw,
    claimable_by_proof,
    finalizable_at,
)
from fabstir.protocol.signing import job_id
from tests.protocol.moves import (
    BLOCK,
    FALLBACK,
    HOST,
    NOW,
    OTHER,
    RENTER,
    ROOT,
    SIGNER,
    STRANGER,
    TERMS,
    TREASURY,
    after,
    job_of,
    opened,
    proven,
    redeem,
    refused,
)


def changed(**fields: Any) -> Any:
    return msgspec.structs.replace(TERMS, **fields)


@pytest.mark.parametrize(
    ("agreed", "deposit", "error"),
    [
        (TERMS, 1, None),
        (TERMS, 0, "BadTerms"),
        (changed(price=PricePerMTok(1)), 1, None),
        (changed(price=PricePerMTok(0)), 1, "BadTerms"),
        (changed(host=ZERO_ADDRESS), 1, "BadTerms"),
        (changed(signer=ZERO_ADDRESS), 1, "BadTerms"),
        (changed(expires_at=NOW + 1), 1, None),
        (changed(expires_at=NOW), 1, "BadTerms"),
        (changed(challenge=900), 1, None),
        (changed(challenge=899), 1, "BadTerms"),
        (changed(challenge=3 * 86_400), 1, None),
        (changed(challenge=3 * 86_400 + 1), 1, "BadTerms"),
        (changed(bond=BaseUnits(1)), 1, None),
        (changed(bond=BaseUnits(0)), 1, "BadTerms"),
        (TERMS, MAX_DEPOSIT, None),
        (TERMS, MAX_DEPOSIT + 1, "BadTerms"),
        (changed(exposure=Tokens(1)), 1, None),
        (changed(exposure=Tokens(0)), 1, "BadTerms"),
        (changed(exposure=Tokens(4096)), 1, None),
        (changed(exposure=Tokens(4097)), 1, "BadTerms"),
        (changed(policy=1), 1, None),
        (changed(policy=2), 1, "BadTerms"),
    ],
)
def test_opening(agreed: Any, deposit: int, error: str | None) -> None:
    """Each term at its bound."""
    assert refused(MarketState(TREASURY), Open(RENTER, agreed, BaseUnits(deposit))) == error


def test_who_opens() -> None:
    """The renter, or anyone with its authorisation; where the salt names somebody, that one alone; an id once."""
    nobody = Open(STRANGER, TERMS, BaseUnits(5))
    assert refused(MarketState(TREASURY), nobody) == "NotParty"
    named = changed(salt=salt_for(STRANGER, bytes(8)))
    assert refused(MarketState(TREASURY), Open(STRANGER, named, BaseUnits(5))) is None
    assert refused(MarketState(TREASURY), Open(RENTER, named, BaseUnits(5))) == "NotParty"
    assert refused(MarketState(TREASURY), Open(HOST, named, BaseUnits(5), authorized=True)) == "NotParty"
    state = after(MarketState(TREASURY), msgspec.structs.replace(nobody, authorized=True))
    assert (state.held[TERMS.token], job_of(state)) == (5, JobState(deposit=BaseUnits(5)))
    assert refused(state, Open(RENTER, TERMS, BaseUnits(5))) == "JobExists"


ANY: Final = JobId(b"\7" * 32)


@pytest.mark.parametrize(
    "call",
    [
        redeem(1, job=ANY),
        CommitProof(HOST, ANY, Tokens(1), ROOT),
        SubmitProof(ANY, Tokens(1), ROOT, True),
        ClaimProven(HOST, ANY),
        CloseByHost(HOST, ANY),
        CloseCooperative(RENTER, ANY, BaseUnits(0), Tokens(0), HOST),
        RequestClose(RENTER, ANY),
        Finalize(STRANGER, ANY),
    ],
    ids=lambda call: type(call).__name__,
)
def test_a_job_that_is_not_open(call: Any) -> None:
    """Unknown or closed: nothing can be done with it."""
    assert refused(MarketState(TREASURY), call) == "NotOpen"
    closed = after(opened(), CloseByHost(HOST, job_id(TERMS)))
    assert refused(closed, msgspec.structs.replace(call, job=job_id(TERMS))) == "NotOpen"


def test_every_count_of_tokens_is_an_ordinary_one() -> None:
    """Up to the last that fits into its 32 bits."""
    assert refused(opened(FALLBACK, deposit=1 << 33), redeem(2**32 - 1)) is None


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (redeem(100), None),
        (redeem(1_000), None),
        (redeem(1_001), "AboveDeposit"),
        (redeem(10), "StaleVoucher"),
        (redeem(9), "StaleVoucher"),
        (redeem(11), None),
        (redeem(100, amount=BaseUnits(99)), "AmountMismatch"),
        (redeem(100, amount=BaseUnits(101)), "AmountMismatch"),
        (redeem(100, recovered=HOST), "BadSignature"),
        (redeem(100, recovered=None), "BadSignature"),
        (redeem(100, sender=RENTER), "NotParty"),
    ],
)
def test_redeeming(call: Redeem, error: str | None) -> None:
    """10 tokens are redeemed already, the deposit is 1,000."""
    assert refused(after(opened(FALLBACK), redeem(10)), call) == error


def test_an_amount_beyond_96_bits_is_none() -> None:
    """The contract's type cannot hold it."""
    dear = msgspec.structs.replace(FALLBACK, price=PricePerMTok(MAX_AMOUNT))
    assert cost(Tokens(2_000_000), dear.price) > MAX_AMOUNT
    assert refused(opened(dear, MAX_DEPOSIT), redeem(2_000_000, dear)) == "AmountMismatch"
    assert refused(opened(dear, MAX_DEPOSIT), redeem(1_000_000, dear)) == "AboveDeposit"


def test_redeemed_money_is_the_difference() -> None:
    """The fee is floored at each credit; host and treasury have the sum."""
    state = after(opened(FALLBACK), redeem(39))
    assert (state.earnings[HOST, TERMS.token], state.earnings[TREASURY, TERMS.token]) == (38, 1)
    state = after(state, redeem(58))
    assert (state.earnings[HOST, TERMS.token], state.earnings[TREASURY, TERMS.token]) == (57, 1)
    assert (job_of(state).owed, job_of(state).signed) == (58, 58)


def test_required_pays_what_is_proven() -> None:
    """Up to the last proven token."""
    state = proven(100)
    assert refused(state, redeem(100, TERMS)) is None
    assert refused(state, redeem(101, TERMS)) == "ProofMissing"
    assert refused(opened(), redeem(1, TERMS)) == "ProofMissing"


def test_committing() -> None:
    """By the host, for more than is proven, and not again while the challenge can be answered."""
    job, state = job_id(TERMS), proven(100)
    assert refused(state, CommitProof(RENTER, job, Tokens(101), ROOT)) == "NotParty"
    assert refused(state, CommitProof(HOST, job, Tokens(100), ROOT)) == "NothingToProve"
    state = after(state, CommitProof(HOST, job, Tokens(101), ROOT))
    assert job_of(state).pending_block == BLOCK
    assert refused(state, CommitProof(HOST, job, Tokens(102), ROOT), block=BLOCK + 258) == "CommitmentPending"
    assert refused(state, CommitProof(HOST, job, Tokens(102), ROOT), block=BLOCK + 259) is None


@pytest.mark.parametrize(
    ("fields", "block", "error"),
    [
        ({}, 3, None),
        ({}, 258, None),
        ({}, 2, "SeedNotReady"),
        ({}, 259, "SeedExpired"),
        ({"tokens": Tokens(99)}, 3, "NoCommitment"),
        ({"root": OTHER}, 3, "NoCommitment"),
        ({"valid": False}, 3, "ProofInvalid"),
    ],
)
def test_answering(fields: dict[str, Any], block: int, error: str | None) -> None:
    """The commitment that was made, in its time, with a proof that holds."""
    job = job_id(TERMS)
    state = after(opened(), CommitProof(HOST, job, Tokens(100), ROOT))
    call = msgspec.structs.replace(SubmitProof(job, Tokens(100), ROOT, True), **fields)
    assert refused(state, call, block=BLOCK + block) == error
    if error is None:
        state = after(state, call, block=BLOCK + block)
        assert (job_of(state).proven, job_of(state).pending_block) == (100, 0)
        assert refused(state, call, block=BLOCK + block) == "NoCommitment"
    assert refused(opened(), call, block=BLOCK + block) == "NoCommitment"


@pytest.mark.parametrize(
    ("signed", "proven_tokens", "deposit", "amount"),
    [
        (0, 0, 1_000, 0),
        (0, 30, 1_000, 30),
        (0, 64, 1_000, 64),
        (0, 65, 1_000, 64),
        (10, 100, 1_000, 74),
        (10, 100, 50, 50),
    ],
)
def test_the_bounded_tail(signed: int, proven_tokens: int, deposit: int, amount: int) -> None:
    """Proven tokens, at most W beyond the signed ones, at most the deposit."""
    state = JobState(deposit=BaseUnits(deposit), signed=Tokens(signed), proven=Tokens(proven_tokens))
    assert claimable_by_proof(TERMS, state) == amount


def test_closing_by_the_host() -> None:
    """With a better voucher it is redeemed, with an older one it is not looked at; the rest goes back."""
    job = job_id(FALLBACK)
    state = after(opened(FALLBACK), redeem(10))
    assert refused(state, CloseByHost(RENTER, job)) == "NotParty"
    assert job_of(after(state, CloseByHost(HOST, job, redeem(30)))).owed == 30
    old = after(state, CloseByHost(HOST, job, redeem(10, recovered=None)))
    assert (job_of(old).owed, job_of(old).closed) == (10, True)
    assert (old.repaid[RENTER, TERMS.token], old.held[TERMS.token]) == (990, 10)
    assert refused(state, CloseByHost(HOST, job, redeem(30, recovered=None))) == "BadSignature"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, None),
        ({"host_recovered": STRANGER}, "BadSignature"),
        ({"host_recovered": None}, "BadSignature"),
        ({"sender": STRANGER}, "BadSignature"),
        ({"sender": STRANGER, "recovered": SIGNER}, None),
        ({"sender": HOST, "recovered": HOST}, "BadSignature"),
        ({"amount": BaseUnits(31)}, "AmountMismatch"),
        ({"amount": BaseUnits(1_001), "tokens": Tokens(1_001)}, "AboveDeposit"),
        ({"amount": BaseUnits(9), "tokens": Tokens(9)}, "StaleVoucher"),
        ({"amount": BaseUnits(10), "tokens": Tokens(10)}, None),
    ],
)
def test_closing_together(fields: dict[str, Any], error: str | None) -> None:
    """The host's consent, the renter's or its voucher, and an amount that is right. (10 are owed.)"""
    state = after(opened(FALLBACK), redeem(10))
    right = CloseCooperative(RENTER, job_id(FALLBACK), BaseUnits(30), Tokens(30), HOST)
    call = msgspec.structs.replace(right, **fields)
    assert refused(state, call) == error
    if error is None:
        assert (job_of(after(state, call)).owed, job_of(after(state, call)).closed) == (call.amount, True)


def test_closing_together_needs_a_proof_only_for_more_money() -> None:
    """Under required; tokens that cost nothing need none."""
    cheap = msgspec.structs.replace(TERMS, price=PricePerMTok(1))
    free = CloseCooperative(RENTER, job_id(cheap), BaseUnits(0), Tokens(5), HOST)
    assert refused(opened(cheap), free) is None
    paid = CloseCooperative(RENTER, job_id(TERMS), BaseUnits(5), Tokens(5), HOST)
    assert refused(opened(), paid) == "ProofMissing"
    assert refused(proven(5), paid) is None
    assert refused(proven(4), paid) == "ProofMissing"


def test_topping_up() -> None:
    """Any amount above nothing, to an open job, up to what its slot holds; it is refunded like the rest."""
    job = job_id(TERMS)
    assert refused(opened(), TopUp(ANY, BaseUnits(1))) == "NotOpen"
    assert refused(opened(), TopUp(job, BaseUnits(0))) == "BadTerms"
    assert refused(opened(), TopUp(job, BaseUnits(MAX_DEPOSIT - 1_000))) is None
    assert refused(opened(), TopUp(job, BaseUnits(MAX_DEPOSIT - 999))) == "BadTerms"
    state = after(opened(), TopUp(job, BaseUnits(500)))
    assert (job_of(state).deposit, state.held[TERMS.token]) == (1_500, 1_500)
    closed = after(state, CloseByHost(HOST, job))
    assert closed.repaid[RENTER, TERMS.token] == 1_500
    assert refused(closed, TopUp(job, BaseUnits(1))) == "NotOpen"


def test_requesting_and_finalizing() -> None:
    """The renter, once; then anyone, not a second early; or one window after expiry, whichever comes first."""
    job = job_id(TERMS)
    state = opened()
    assert refused(state, RequestClose(HOST, job)) == "NotParty"
    expiry = TERMS.expires_at + TERMS.challenge
    assert finalizable_at(TERMS, job_of(state)) == expiry
    assert refused(state, Finalize(STRANGER, job), now=expiry - 1) == "TooEarly"
    assert refused(state, Finalize(STRANGER, job), now=expiry) is None
    state = after(state, RequestClose(RENTER, job))
    assert job_of(state).closing_at == finalizable_at(TERMS, job_of(state)) == NOW + 900
    assert refused(state, RequestClose(RENTER, job)) == "AlreadyClosing"
    assert refused(state, Finalize(STRANGER, job), now=NOW + 899) == "TooEarly"
    state = after(state, Finalize(STRANGER, job), now=NOW + 900)
    assert (job_of(state).closed, state.repaid[RENTER, TERMS.token], state.held[TERMS.token]) == (True, 1_000, 0)
    late = after(opened(), RequestClose(RENTER, job), now=expiry - 10)
    assert finalizable_at(TERMS, job_of(late)) == expiry


def test_a_close_forgets_the_open_commitment() -> None:
    """Nothing is pending in a closed job."""
    job = job_id(TERMS)
    state = after(opened(), CommitProof(HOST, job, Tokens(5), ROOT), CloseByHost(HOST, job))
    assert (job_of(state).pending_block, state.jobs[job].pending) == (0, None)


def test_withdrawing() -> None:
    """All that one earned, once."""
    state = after(opened(FALLBACK), redeem(100))
    assert refused(state, Withdraw(STRANGER, TERMS.token)) == "NothingToClaim"
    assert refused(state, Withdraw(HOST, ZERO_ADDRESS)) == "NothingToClaim"
    state = after(state, Withdraw(HOST, TERMS.token))
    assert (state.held[TERMS.token], state.earnings[HOST, TERMS.token]) == (905, 0)
    assert refused(state, Withdraw(HOST, TERMS.token)) == "NothingToClaim"
