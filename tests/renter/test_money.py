"""The pure parts that touch money: the purse, the step that brings a deposit back, the signed transfer."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError, Refused
from fabstir.domain.ids import Address, Hash32, JobId, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy, Terms
from fabstir.protocol.authorization import authorization_digest
from fabstir.protocol.renter_log import HostReleased, JobOpened, JobPlanned, RenterLedger
from fabstir.protocol.signing import Market as Contract
from fabstir.protocol.signing import SigningKey, recover
from fabstir.renter.purse import Purse
from fabstir.renter.settling import LATE_SECONDS, Stage, Step, claim_step, reclaim_step, settlement_of


def job(number: int) -> JobId:
    return JobId(number.to_bytes(32, "big"))


# -- the purse -------------------------------------------------------------------------------------------------------------


def test_a_job_takes_a_part_so_that_there_is_something_to_move_on_with() -> None:
    """A quarter of the budget, more where the host asks for more, never more than is left."""
    purse = Purse(BaseUnits(100))
    assert purse.deposit_for(BaseUnits(1)) == 25
    assert purse.deposit_for(BaseUnits(40)) == 40
    purse.take(job(1), BaseUnits(90))
    assert purse.deposit_for(BaseUnits(1)) == 10
    with pytest.raises(FabstirError, match="budget_exceeded.*10 of 100.*takes 11"):
        purse.deposit_for(BaseUnits(11))


def test_what_a_settled_job_did_not_cost_comes_back() -> None:
    """Once; of a job that is not in it nothing does."""
    purse = Purse(BaseUnits(100))
    purse.take(job(1), BaseUnits(60))
    purse.settled(job(1), BaseUnits(5))
    purse.settled(job(1), BaseUnits(5))
    purse.settled(job(2), BaseUnits(50))
    assert purse.left == 95


Moves = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 60), st.booleans()), max_size=40)


@given(Moves)
def test_nothing_brings_a_purse_below_zero(moves: list[tuple[int, int, bool]]) -> None:
    """Whatever is taken and settled in whatever order."""
    purse = Purse(BaseUnits(100))
    deposits: dict[int, int] = {}
    for number, amount, settles in moves:
        if settles:
            purse.settled(job(number), BaseUnits(min(amount, deposits.get(number, 0))))
        else:
            with contextlib.suppress(Refused):
                purse.take(job(number), BaseUnits(amount))
                deposits[number] = amount
        assert 0 <= purse.left <= 100


# -- the way back ------------------------------------------------------------------------------------------------------


def ledger(policy: ProofPolicy = ProofPolicy.REQUIRED, released: tuple[int, int] | None = None) -> RenterLedger:
    terms = Terms(
        renter=Address(b"\x01" * 20),
        signer=Address(b"\x02" * 20),
        host=Address(b"\x03" * 20),
        token=Address(b"\x04" * 20),
        price=PricePerMTok(1_000_000),
        expires_at=10_000,
        challenge=900,
        exposure=Tokens(64),
        policy=policy,
        model_id=ModelId(b"\x05" * 32),
        salt=Hash32(b"\x06" * 32),
    )
    found = RenterLedger(
        JobPlanned(terms, BaseUnits(1000), Contract(31337, Address(b"\x07" * 20)), b"\x01" * 32, "", 0.0)
    )
    found.apply(JobOpened(0, 0.0))
    if released is not None:
        found.apply(HostReleased(Tokens(released[0]), BaseUnits(released[1]), b""))
    return found


def state(**changes: Any) -> JobState:
    return msgspec.structs.replace(JobState(deposit=BaseUnits(1000)), **changes)


@pytest.mark.parametrize(
    ("policy", "released", "contract", "now", "expected"),
    [
        (ProofPolicy.REQUIRED, None, JobState(), 0, Step.WAIT),
        (ProofPolicy.REQUIRED, None, state(closed=True), 0, Step.WAIT),
        (ProofPolicy.REQUIRED, None, state(), 0, Step.REQUEST_CLOSE),
        (ProofPolicy.REQUIRED, None, state(closing_at=900), 899, Step.WAIT),
        (ProofPolicy.REQUIRED, None, state(closing_at=900), 900, Step.FINALIZE),
        (ProofPolicy.REQUIRED, None, state(), 10_899, Step.REQUEST_CLOSE),
        (ProofPolicy.REQUIRED, None, state(), 10_900, Step.FINALIZE),
        # the host signed the end
        (ProofPolicy.FALLBACK, (50, 50), state(), 0, Step.CLOSE_COOPERATIVE),
        (ProofPolicy.FALLBACK, (50, 50), state(closing_at=900), 0, Step.CLOSE_COOPERATIVE),
        (ProofPolicy.FALLBACK, (50, 50), state(owed=BaseUnits(60)), 0, Step.REQUEST_CLOSE),
        (ProofPolicy.REQUIRED, (50, 50), state(), 0, Step.REQUEST_CLOSE),
        (ProofPolicy.REQUIRED, (50, 50), state(proven=Tokens(49)), 0, Step.REQUEST_CLOSE),
        (ProofPolicy.REQUIRED, (50, 50), state(proven=Tokens(50)), 0, Step.CLOSE_COOPERATIVE),
        (ProofPolicy.REQUIRED, (50, 50), state(owed=BaseUnits(50)), 0, Step.CLOSE_COOPERATIVE),
        (ProofPolicy.REQUIRED, (0, 0), state(), 0, Step.CLOSE_COOPERATIVE),
        # which also ends a claim
        (ProofPolicy.REQUIRED, (0, 0), state(owed=BaseUnits(64), held=BaseUnits(64)), 0, Step.CLOSE_COOPERATIVE),
        (ProofPolicy.REQUIRED, (0, 0), state(owed=BaseUnits(64), held=BaseUnits(63)), 0, Step.REQUEST_CLOSE),
    ],
)
def test_the_step_that_brings_the_deposit_back_soonest(
    policy: ProofPolicy, released: tuple[int, int] | None, contract: JobState, now: int, expected: Step
) -> None:
    """Never a call that the contract would refuse."""
    assert reclaim_step(ledger(policy, released), contract, now) is expected


def claimed(stage: ClaimStage = ClaimStage.CLAIMED, tokens: int = 64) -> JobState:
    """The host claims `tokens`, of which nothing is signed; one base unit each."""
    return state(
        owed=BaseUnits(tokens), held=BaseUnits(tokens), held_tokens=Tokens(tokens), held_until=900, stage=stage
    )


@pytest.mark.parametrize(
    ("released", "contract", "now", "received", "expected"),
    [
        (None, state(), 0, 0, Step.WAIT),
        (None, claimed(), 0, 64, Step.WAIT),  # they arrived
        (None, claimed(), 0, None, Step.WAIT),  # nobody knows whether they did
        (None, claimed(), 0, 0, Step.DISPUTE),
        (None, claimed(), 0, 14, Step.DISPUTE),  # 50 of them did not
        (None, claimed(), 0, 15, Step.WAIT),  # 49 are not worth it
        (None, claimed(), 899, 0, Step.DISPUTE),
        (None, claimed(), 900, 0, Step.SETTLE_CLAIM),  # too late: the host is paid
        (None, claimed(ClaimStage.DISPUTED), 899, 0, Step.WAIT),
        (None, claimed(ClaimStage.DISPUTED), 900, 0, Step.SETTLE_CLAIM),  # the host said nothing
        (None, claimed(ClaimStage.ANSWERED), 899, 0, Step.WAIT),
        (None, claimed(ClaimStage.ANSWERED), 900, 0, Step.SETTLE_CLAIM),
        (None, claimed(ClaimStage.LOST), 900, 0, Step.WAIT),
        # the host signed the end
        ((63, 63), claimed(), 0, None, Step.CONTRADICT),
        ((63, 63), claimed(), 5000, None, Step.CONTRADICT),
        ((63, 63), claimed(ClaimStage.ANSWERED), 0, None, Step.CONTRADICT),
        ((64, 64), claimed(), 0, 0, Step.DISPUTE),
    ],
)
def test_what_is_done_about_a_claim(
    released: tuple[int, int] | None, contract: JobState, now: int, received: int | None, expected: Step
) -> None:
    """Nothing where it is right or not worth it; never too late; for nothing where the host contradicts itself."""
    arrived = None if received is None else Tokens(received)
    assert claim_step(ledger(released=released), contract, now, arrived, BaseUnits(50)) is expected


def test_a_signed_transfer_can_still_be_sent_for_a_while() -> None:
    """Its deposit is given up once it has run out and `LATE_SECONDS` have passed, or the terms have expired: not before."""
    transfer = RenterLedger(msgspec.structs.replace(ledger().planned, payable_until=1_000))
    last = 1_000 + LATE_SECONDS
    stages = [settlement_of(transfer, JobState(), now).stage for now in (1_001, last, last + 1)]
    assert stages == [Stage.PLANNED, Stage.PLANNED, Stage.ABANDONED]


def test_what_arrived_is_never_disputed() -> None:
    """Even where every claim is worth it: to the last token that came."""
    for arrived, step in ((63, Step.DISPUTE), (64, Step.WAIT), (65, Step.WAIT)):
        assert claim_step(ledger(), claimed(), 0, Tokens(arrived), BaseUnits(0)) is step


def test_a_job_is_paid_out_before_it_is_over() -> None:
    """Closed with a claim that is held: the rest is there, and the job stays in the book until the claim is decided."""
    found = settlement_of(ledger(), msgspec.structs.replace(claimed(), closed=True), 0)
    assert (found.stage, found.over, found.paid_out) == (Stage.CLAIMED, False, True)
    assert (found.refund, found.held, found.held_until) == (936, 64, 900)
    lost = settlement_of(ledger(), state(closed=True, stage=ClaimStage.LOST), 0)
    assert (lost.stage, lost.over, lost.refund) == (Stage.SETTLED, True, 1000)


@pytest.mark.parametrize(
    ("contract", "now", "stage"),
    [
        (JobState(), 10_000, Stage.PLANNED),
        (JobState(), 10_001, Stage.ABANDONED),
        (state(), 0, Stage.OPEN),
        (state(closing_at=900), 0, Stage.CLOSING),
        (state(closed=True, owed=BaseUnits(40)), 0, Stage.SETTLED),
    ],
)
def test_where_the_deposit_is(contract: JobState, now: int, stage: Stage) -> None:
    """Cost and refund add up to the deposit once it is settled."""
    settlement = settlement_of(ledger(), contract, now)
    assert settlement.stage is stage
    assert settlement.over == (stage in (Stage.SETTLED, Stage.ABANDONED))
    if stage is Stage.SETTLED:
        assert (settlement.owed, settlement.refund) == (40, 960)


# -- the signed transfer -----------------------------------------------------------------------------------------------


def test_the_authorisation_is_what_eip_3009_says() -> None:
    """The same digest as a wallet computes from the typed data; the wallet's signature is recovered from it."""
    wallet, token, market = SigningKey(b"\x09" * 32), Address(b"\x0a" * 20), Address(b"\x0c" * 20)
    data = encode_typed_data(
        domain_data={
            "name": "USD Coin",
            "version": "2",
            "chainId": 31337,
            "verifyingContract": to_hex(token),
        },
        message_types={
            "ReceiveWithAuthorization": [
                {"name": "from", "type": "address"},
                {"name": "to", "type": "address"},
                {"name": "value", "type": "uint256"},
                {"name": "validAfter", "type": "uint256"},
                {"name": "validBefore", "type": "uint256"},
                {"name": "nonce", "type": "bytes32"},
            ]
        },
        message_data={
            "from": to_hex(wallet.address),
            "to": to_hex(market),
            "value": 123_456,
            "validAfter": 0,
            "validBefore": 1_900_000_000,
            "nonce": job(77),
        },
    )
    digest = authorization_digest(
        31337, token, wallet.address, market, BaseUnits(123_456), 1_900_000_000, Hash32(job(77))
    )
    signed = Account.sign_message(data, b"\x09" * 32)
    assert wallet.sign(digest) == signed.signature
    assert recover(digest, signed.signature) == wallet.address
