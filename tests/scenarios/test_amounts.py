"""How much is paid at the bounds: W, the deposit, a voucher for a part, an agreement; on the real contracts, to the last unit."""

from __future__ import annotations

from typing import Final

import pytest

from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.domain.money import affordable
from fabstir.domain.terms import ClaimStage, ProofPolicy
from tests.scenarios.stage import ARBITER, EXPOSURE, PRICE, SIGNER, STRANGER, Stage

DEPOSIT: Final = 1_000
AFFORDABLE: Final = affordable(DEPOSIT, PRICE)  # type: ignore[arg-type]
REQUIRED, FALLBACK = ProofPolicy.REQUIRED, ProofPolicy.FALLBACK


def job(policy: ProofPolicy = FALLBACK, arbiter: Address = ZERO_ADDRESS) -> Stage:
    return Stage(policy, DEPOSIT, arbiter=arbiter)


def closed(stage: Stage) -> Stage:
    assert stage.close_by_host() is None
    return stage


@pytest.mark.parametrize("policy", ProofPolicy)
def test_the_tail_is_never_more_than_w(policy: ProofPolicy) -> None:
    """A host that proves more tokens than it may serve unsigned claims W of them, once."""
    stage = job(policy)
    stage.prove(700)
    assert stage.redeem(300) is None
    assert stage.claim_proven() is None
    assert (stage.state.owed, stage.state.held_tokens) == (stage.cost(300 + EXPOSURE), 300 + EXPOSURE)
    stage.until_time(stage.state.held_until)
    assert stage.settle_claim() is None
    assert stage.claim_proven() == "NothingToClaim"
    assert stage.redeem(300 + EXPOSURE) is None  # the renter signs for the tail after all: it is not paid twice
    assert (stage.state.owed, stage.credited) == (stage.cost(300 + EXPOSURE), stage.cost(300 + EXPOSURE))


def test_a_voucher_for_a_part_of_a_claim_takes_that_part() -> None:
    """The rest stays held, and is paid by itself."""
    stage = job()
    stage.prove(364)
    assert stage.redeem(300) is None
    assert stage.claim_proven() is None
    assert stage.redeem(320) is None
    assert (stage.credited, stage.state.stage) == (stage.cost(320), ClaimStage.CLAIMED)
    closed(stage).until_time(stage.state.held_until)
    assert stage.settle_claim() is None
    stage.check_payout(stage.cost(364))


def test_the_tail_ends_with_the_deposit() -> None:
    """Proven tokens are paid as far as the deposit goes, to its last unit."""
    stage = job(REQUIRED)
    stage.prove(AFFORDABLE + 10)
    assert stage.redeem(AFFORDABLE - 5) is None
    assert stage.claim_proven() is None
    assert stage.state.owed == DEPOSIT
    closed(stage).until_time(stage.state.held_until)
    assert stage.settle_claim() is None
    stage.check_payout(DEPOSIT)


def test_a_voucher_above_the_deposit_pays_nothing_until_it_is_topped_up() -> None:
    """Signed or not."""
    stage = job()
    assert stage.redeem(AFFORDABLE + 1) == "AboveDeposit"
    assert stage.redeem(AFFORDABLE) is None
    assert stage.top_up(100, by=STRANGER) is None
    assert stage.redeem(AFFORDABLE + 1) is None


@pytest.mark.parametrize("policy", ProofPolicy)
def test_the_last_voucher_travels_with_the_close(policy: ProofPolicy) -> None:
    """Under `required` once it is proven: one transaction less."""
    stage = job(policy)
    if policy is REQUIRED:
        stage.prove(300)
    assert stage.close_by_host(300) is None
    stage.check_payout(stage.cost(300))


@pytest.mark.parametrize("policy", ProofPolicy)
def test_closing_together_pays_what_was_signed(policy: ProofPolicy) -> None:
    """With the host's consent and the renter's voucher anyone can end the job; under `required` only what is proven is paid."""
    stage = job(policy)
    if policy is REQUIRED:
        assert stage.close_cooperative(300, by=STRANGER, key=SIGNER) == "ProofMissing"
        stage.prove(300)
    assert stage.close_cooperative(300, by=STRANGER, key=SIGNER) is None
    stage.check_payout(stage.cost(300))


def test_closing_together_ends_a_dispute_by_agreement() -> None:
    """The bond goes back, nobody is slashed."""
    for arbiter in (ZERO_ADDRESS, ARBITER.address):
        stage = job(arbiter=arbiter)
        stage.prove(40)
        assert (stage.claim_proven(), stage.dispute()) == (None, None)
        if arbiter != ZERO_ADDRESS:
            assert stage.answer() is None
        assert stage.close_cooperative(20) is None
        stage.check_payout(stage.cost(20))


def test_an_expired_job_is_finalized_even_where_a_close_was_requested_late() -> None:
    """The earlier of both deadlines counts."""
    stage = job()
    stage.until_time(stage.terms.expires_at + stage.terms.challenge - 10)
    assert stage.request_close() is None
    assert stage.finalize() == "TooEarly"
    stage.until_time(stage.terms.expires_at + stage.terms.challenge)
    assert stage.finalize() is None
    stage.check_payout(0)


def test_the_host_still_redeems_until_somebody_finalizes() -> None:
    """After the window has passed, too: the deadline only allows the close."""
    stage = job()
    assert stage.request_close() is None
    stage.until_time(stage.state.closing_at + 10)
    assert stage.redeem(300) is None
    assert stage.finalize() is None
    stage.check_payout(stage.cost(300))
