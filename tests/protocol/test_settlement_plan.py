"""The planner against the contract's model: what it collects, with how many transactions, and that nothing makes it forget or repeat."""

from __future__ import annotations

import pytest

from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.domain.money import BaseUnits, Tokens, fee_of
from fabstir.domain.terms import JobState, ProofPolicy
from fabstir.protocol.matrix import Pay, claims
from fabstir.protocol.settlement import BLOCKHASH_WINDOW, SEED_DELAY, Finalize, RequestClose, apply
from fabstir.protocol.settlement_plan import (
    AnswerChallenge,
    AwaitBlock,
    Bounds,
    CloseCheckpoint,
    CloseJob,
    CommitTree,
    NoteClosed,
    RedeemVoucher,
    Rest,
    SettlementRules,
    Situation,
    is_finishing,
)
from tests.protocol.settling import RULES, START, Fault, Settling, expected_owed

REQUIRED, FALLBACK = ProofPolicy.REQUIRED, ProofPolicy.FALLBACK
PROOF = ["commitProof", "submitProof"]
TAIL = ["claimProven", "closeByHost", "settleClaim"]
"""The job is closed while its claim is held."""
CASES = [
    # policy, signed, tail, transactions: each number is the smallest with which the contract pays
    (REQUIRED, 0, 0, ["closeByHost"]),
    (REQUIRED, 0, 4, ["closeByHost"]),  # a tail that is worth less than the gas
    (REQUIRED, 0, 64, [*PROOF, *TAIL]),
    (REQUIRED, 1, 0, [*PROOF, "closeByHost"]),
    (REQUIRED, 300, 4, [*PROOF, "closeByHost"]),
    (REQUIRED, 300, 5, [*PROOF, "redeem", *TAIL]),
    (REQUIRED, 1_000, 64, [*PROOF, "redeem", *TAIL]),
    (FALLBACK, 0, 0, ["closeByHost"]),
    (FALLBACK, 0, 64, [*PROOF, *TAIL]),
    (FALLBACK, 300, 0, ["closeByHost"]),
    (FALLBACK, 300, 4, ["closeByHost"]),
    (FALLBACK, 300, 64, ["redeem", *PROOF, *TAIL]),
]


def check_money(world: Settling, tail: bool) -> None:
    """The host has what the matrix says, less the fee; the renter has the rest; the contract holds nothing else."""
    owed = expected_owed(world.ledger, world.job.deposit, tail)
    host, fee, refund = world.money()
    assert (world.job.closed, world.job.owed) == (True, owed)
    assert host + fee == owed
    assert fee <= fee_of(BaseUnits(owed))
    assert refund == world.job.deposit - owed
    assert world.chain.held[world.terms.token] == host + fee


@pytest.mark.parametrize(("policy", "signed", "tail", "transactions"), CASES)
def test_a_finished_session(policy: ProofPolicy, signed: int, tail: int, transactions: list[str]) -> None:
    """Exactly these transactions, none of them refused, and exactly the money of the matrix; then the log says closed."""
    world = Settling(policy).served_and_signed(signed, tail)
    world.finish()
    steps = world.settle()
    assert (world.mined, world.reverted) == (transactions, [])
    check_money(world, tail >= RULES.claim_tail_above)
    closed = world.ledger.closed
    assert closed is not None and (closed.owed, closed.refund) == (world.job.owed, world.job.deposit - world.job.owed)
    assert steps[-1] == Rest("closed")
    assert world.proofs_made == transactions.count("submitProof")


@pytest.mark.parametrize("policy", ProofPolicy)
@pytest.mark.parametrize("pay", Pay)
def test_the_calls_are_those_of_the_matrix(policy: ProofPolicy, pay: Pay) -> None:
    """In its order; a redeem at the end travels with the close, and the job does not stay open until its claim is decided."""
    signed, tail = {Pay.NOTHING: (0, 0), Pay.SIGNED: (300, 0), Pay.SIGNED_AND_TAIL: (300, 64)}[pay]
    world = Settling(policy).served_and_signed(signed, tail)
    world.finish()
    world.settle()
    calls = [call.value for call in claims(policy, pay)]
    if calls[-1:] == ["settleClaim"]:
        calls.insert(-1, "closeByHost")
    else:
        calls = [*(calls[:-1] if calls[-1:] == ["redeem"] else calls), "closeByHost"]
    assert world.mined == calls


@pytest.mark.parametrize(("policy", "signed", "tail", "transactions"), CASES)
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.TX_LATE])
def test_a_crash_at_any_step_changes_nothing(
    policy: ProofPolicy, signed: int, tail: int, transactions: list[str], fault: Fault
) -> None:
    """Before, in the middle of or after each step: the same transactions once each, the same money."""
    for at in range(60):
        world = Settling(policy).served_and_signed(signed, tail)
        world.finish()
        steps = world.settle(fault_at=at, fault=fault)
        assert (world.mined, world.reverted) == (transactions, [])
        check_money(world, tail >= RULES.claim_tail_above)
        if at >= len(steps):
            return
    raise AssertionError("too many steps")


def test_checkpoints_hold_all_tokens_once() -> None:
    """Full ones of 256 and one rest; the tail is among them only where it is claimed."""
    for tail, sizes in ((64, [256, 256, 152]), (4, [256, 256, 88])):
        world = Settling().served_and_signed(600, tail)
        world.finish()
        world.settle()
        assert [checkpoint.tokens for checkpoint in world.ledger.checkpoints] == sizes


def test_the_tail_ends_with_the_deposit() -> None:
    """A deposit that does not pay for the whole tail pays for its part."""
    world = Settling(deposit=110).served_and_signed(100, 10)
    world.finish()
    world.settle()
    assert world.job.owed == 110
    check_money(world, True)


# -- when a job is finishing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "finishing"),
    [
        ("running", False),
        ("finished", True),
        ("close requested", True),
        ("expiring", True),
        ("before expiry", False),
        ("idle", True),
        ("not yet idle", False),
    ],
)
def test_when_a_job_is_settled_for_good(why: str, finishing: bool) -> None:
    """The session ended, the renter wants to close, it expires soon, or nobody came back."""
    world = Settling().served_and_signed(10)
    match why:
        case "finished":
            world.finish()
        case "close requested":
            world.chain = apply(world.chain, RequestClose(world.terms.renter, world.ledger.job), world.now, world.block)
        case "expiring":
            world.now = world.terms.expires_at - 3_600 + 1
        case "before expiry":
            world.now = world.terms.expires_at - 3_600
        case "idle":
            world.idle_for = 3_600.1
        case "not yet idle":
            world.idle_for = 3_600.0
    assert is_finishing(world.ledger, world.situation, world.rules) is finishing
    world.settle()
    assert world.job.closed is finishing


def test_rules_have_sensible_values() -> None:
    """One dollar, more than the gas, an hour; in coins the same where one is worth 2,500 dollars."""
    rules = SettlementRules()
    assert rules.native == Bounds(**{name: getattr(rules, name) * 400_000_000 for name in Bounds.__struct_fields__})
    assert (rules.bounds(Address(b"\x04" * 20)), rules.bounds(ZERO_ADDRESS)) == (rules, rules.native)
    assert (rules.redeem_above, rules.claim_tail_above) == (1_000_000, 2_000)
    assert (rules.expiry_margin, rules.idle_close) == (3_600.0, 3_600.0)
    assert (Situation(JobState(), 1, 1.0).idle_for, Situation(JobState(), 1, 1.0).staked) == (0.0, True)


def test_nothing_is_due_in_a_small_running_job() -> None:
    """Not redeemed before it is worth it, not even checkpointed before a checkpoint is full."""
    world = Settling().served_and_signed(99)
    assert world.plan() == Rest("not due")
    world = Settling(price=1_000).served_and_signed(255)
    assert world.plan() == Rest("not due")
    world.served_and_signed(256)
    assert world.plan() == CloseCheckpoint(Tokens(0), Tokens(256))
    world.served_and_signed(600)
    world.settle()
    assert ([c.tokens for c in world.ledger.checkpoints], world.mined) == ([256, 256], [])


# -- a job that goes on --------------------------------------------------------------------------------------------------------------


def test_a_running_job_is_redeemed_when_it_is_worth_it() -> None:
    """Under fallback at once; under required after one proof. The session goes on, and the job stays open."""
    for policy, transactions in ((FALLBACK, ["redeem"]), (REQUIRED, [*PROOF, "redeem"])):
        world = Settling(policy).served_and_signed(100)
        world.settle()
        assert (world.mined, world.reverted, world.job.closed) == (transactions, [], False)
        assert (world.job.owed, world.job.signed) == (100, 100)
        world.served_and_signed(150)
        assert world.plan() == Rest("not due")


@pytest.mark.parametrize("exposure", [2, 64])
@pytest.mark.parametrize("policy", [REQUIRED, FALLBACK])
def test_a_busy_job_does_not_chase_its_vouchers(policy: ProofPolicy, exposure: int) -> None:
    """A session that signs for more during every step is redeemed all the same, each time with one proof for what was signed when it
    was due; and the checkpoints do not get small."""
    world = Settling(policy, exposure=exposure).served_and_signed(100)
    steps = 0
    while world.mined.count("redeem") < 5:
        world.step()
        world.pass_time(1)
        world.serve(exposure)
        world.sign()
        steps += 1
        assert steps < 2_500
    assert world.reverted == []
    if policy is REQUIRED:
        assert world.mined == [*PROOF, "redeem"] * 5
        assert len(world.ledger.checkpoints) <= world.ledger.served // 256 + 6
    world.finish()
    world.settle()
    check_money(world, False)


def test_a_proof_that_was_made_is_redeemed_while_more_is_signed() -> None:
    """What the proof covers is paid, not the newer voucher that it does not cover."""
    world = Settling().served_and_signed(100)
    while "submitProof" not in world.mined:
        action = world.step()
        if isinstance(action, AwaitBlock):
            world.pass_time(action.block - world.block)
    world.served_and_signed(200)
    action = world.step()
    assert isinstance(action, RedeemVoucher) and action.voucher.tokens == 100
    assert (world.job.signed, world.reverted) == (100, [])


def test_a_session_that_ends_during_a_challenge() -> None:
    """The open challenge is answered, then the rest is proven; the last voucher travels with the close."""
    world = Settling().served_and_signed(100)
    while "commitProof" not in world.mined:
        world.step()
    world.served_and_signed(250)
    world.finish()
    world.settle()
    assert (world.mined, world.reverted) == ([*PROOF, *PROOF, "closeByHost"], [])
    check_money(world, False)


def test_a_proof_for_less_is_not_redeemed_at_the_end() -> None:
    """What an earlier proof covers is part of what the last voucher pays: one redemption, not two."""
    world = Settling().served_and_signed(100)
    while "submitProof" not in world.mined:
        action = world.step()
        if isinstance(action, AwaitBlock):
            world.pass_time(action.block - world.block)
    world.served_and_signed(250, 64)
    world.finish()
    world.settle()
    assert world.mined == [*PROOF, *PROOF, "redeem", *TAIL]
    check_money(world, True)


@pytest.mark.parametrize(
    ("price", "least", "claimed"), [(1_000_000, 0, True), (1_000_000, 1, True), (10_000, 0, False)]
)
def test_a_tail_that_is_worth_nothing_is_not_proven(price: int, least: int, claimed: bool) -> None:
    """Whatever the rules say: one unit is claimed where they allow it, none is not."""
    rules = SettlementRules(redeem_above=BaseUnits(100), claim_tail_above=BaseUnits(least))
    world = Settling(FALLBACK, price=price, rules=rules).served_and_signed(100, 1)
    world.finish()
    world.settle()
    assert ("claimProven" in world.mined) is claimed
    check_money(world, claimed)


def test_a_young_chain() -> None:
    """Block numbers below the window of block hashes are numbers like others: nothing is waited for but the one challenge."""
    world = Settling().served_and_signed(300, 64)
    world.block = 1
    world.finish()
    steps = world.settle()
    assert [type(step) for step in steps].count(AwaitBlock) == 1
    assert world.mined == [*PROOF, "redeem", *TAIL]


# -- what goes wrong ------------------------------------------------------------------------------------------------------------------


def test_a_challenge_is_answered_in_its_time() -> None:
    """From the block after the seed block, as long as its hash can be read; then the commitment is made again, not earlier than
    the contract allows."""
    world = Settling().served_and_signed(10)
    world.finish()
    while "commitProof" not in world.mined:
        world.step()
    seed_block, made = world.block + SEED_DELAY, world.ledger.commitment
    assert made is not None
    for block, action in [
        (seed_block - 1, AwaitBlock(seed_block + 1)),
        (seed_block, AwaitBlock(seed_block + 1)),
        (seed_block + 1, AnswerChallenge(made, seed_block)),
        (seed_block + BLOCKHASH_WINDOW - 1, AnswerChallenge(made, seed_block)),
        (seed_block + BLOCKHASH_WINDOW, AwaitBlock(seed_block + BLOCKHASH_WINDOW + 1)),
        (seed_block + BLOCKHASH_WINDOW + 1, CommitTree(made)),
    ]:
        world.block = block
        assert world.plan() == action
    world.block = seed_block + BLOCKHASH_WINDOW - 1
    world.step()  # the last block that counts
    assert (world.mined[-1], world.reverted) == ("submitProof", [])


@pytest.mark.parametrize("policy", [REQUIRED, FALLBACK])
def test_a_commitment_that_expired_is_made_again(policy: ProofPolicy) -> None:
    """The host slept through its challenge: one more commitment, and everything is paid."""
    world = Settling(policy).served_and_signed(300, 64)
    world.finish()
    while "commitProof" not in world.mined:
        world.step()
    world.pass_time(400)
    world.settle()
    assert (world.mined.count("commitProof"), world.mined.count("submitProof"), world.reverted) == (2, 1, [])
    check_money(world, True)


def test_a_log_that_lost_its_commitment_waits_for_the_next() -> None:
    """A commitment on chain that the log does not know (a journal restored from a backup) cannot be answered: its time is waited out."""
    world = Settling().served_and_signed(10)
    world.finish()
    while "commitProof" not in world.mined:
        world.step()
    world.journal.pop()
    world.restart()
    world.block += SEED_DELAY + 1
    action = world.plan()
    assert isinstance(action, AwaitBlock)
    world.settle()
    assert (world.mined, world.reverted) == (["commitProof", *PROOF, "closeByHost"], [])


def test_without_a_prover_fallback_is_paid_what_is_signed() -> None:
    """The voucher needs no proof and does not wait for one; only the tail does, until the prover is back."""
    world = Settling(FALLBACK).served_and_signed(300, 64)
    world.prover_works = False
    world.finish()
    for _ in range(10):
        world.step()
    assert (world.job.owed, world.job.closed) == (300, False)
    world.prover_works = True
    world.settle()
    check_money(world, True)


def test_without_a_prover_required_is_paid_nothing() -> None:
    """Nothing is given up: it is tried again, until somebody finalizes."""
    world = Settling(REQUIRED).served_and_signed(300)
    world.prover_works = False
    world.finish()
    for _ in range(10):
        world.step()
    assert (world.mined, world.job.owed) == ([], 0)
    world.now = world.terms.expires_at + world.terms.challenge
    world.chain = apply(world.chain, Finalize(world.terms.renter, world.ledger.job), world.now, world.block)
    assert world.step() == NoteClosed(BaseUnits(0), world.job.deposit)
    assert world.plan() == Rest("closed")


def test_a_renter_that_wants_out_is_paid_back_at_once() -> None:
    """The host redeems and closes inside the challenge window instead of waiting for finalize."""
    world = Settling().served_and_signed(300)
    world.chain = apply(world.chain, RequestClose(world.terms.renter, world.ledger.job), world.now, world.block)
    world.settle()
    assert world.mined == [*PROOF, "closeByHost"]
    assert world.now < START + world.terms.challenge
    check_money(world, False)


def test_a_closed_job_is_noted_once() -> None:
    """Whoever closed it; after that there is nothing to do, whatever the chain says."""
    world = Settling().served_and_signed(10)
    world.finish()
    world.settle()
    before = list(world.journal)
    assert world.settle() == [Rest("closed")]
    assert world.journal == before


def test_a_voucher_that_is_redeemed_is_not_closed_with() -> None:
    """The close carries a voucher only where it still pays."""
    world = Settling(FALLBACK).served_and_signed(100)
    world.settle()
    world.finish()
    assert world.plan() == CloseJob(None)
    world = Settling(FALLBACK).served_and_signed(100)
    world.finish()
    assert world.plan() == CloseJob(world.ledger.voucher)
