"""The planner while a claim is held: disputes are answered in time whatever fails, what is lost is not claimed again, and the job is
settled all the same. Against the contract's model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import pytest

from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import ClaimStage, ProofPolicy
from fabstir.protocol.settlement import Finalize, RequestClose
from fabstir.protocol.settlement_plan import (
    TIME_TO_CLAIM,
    AnswerDispute,
    AwaitBlock,
    AwaitClaim,
    ClaimTail,
    CloseJob,
    NoteClosed,
    RedeemVoucher,
    Rest,
    SettleClaim,
    Situation,
    plan,
)
from tests.protocol.settling import ARBITER, BOND, COMPENSATION, RULES, SLASH, STAKE, Fault, Settling

SIGNED, W = 300, 64
FAULTS: Final = [fault for fault in Fault if fault is not Fault.TX_LATE]
PROOF: Final = ["commitProof", "submitProof"]
TAIL: Final = ["claimProven", "closeByHost", "settleClaim"]


def over(policy: ProofPolicy = ProofPolicy.FALLBACK, tail: int = W, **other: object) -> Settling:
    """A session that is over, with a tail that the renter did not sign for."""
    world = Settling(policy, **other).served_and_signed(SIGNED, tail)  # type: ignore[arg-type]
    world.finish()
    return world


def claimed(policy: ProofPolicy = ProofPolicy.FALLBACK, tail: int = W) -> Settling:
    """The same, up to the claim."""
    world = over(policy, tail)
    until(world, lambda: world.job.stage is ClaimStage.CLAIMED)
    return world


def until(world: Settling, there: Callable[[], bool]) -> None:
    """Steps of the settler until something is so."""
    for _ in range(60):
        if there():
            return
        action = world.step()
        if isinstance(action, AwaitBlock):
            world.pass_time(action.block - world.block)
    raise AssertionError("it never was")


def check(world: Settling, owed: int, *, bond_to_host: int = 0, slashed: int = 0) -> None:
    """All money is where it belongs, and the log says the same: `owed` less the fee is the host's, the rest the renter's."""
    host, fee, back = world.money()
    job, closed = world.job, world.ledger.closed
    assert (job.closed, job.owed, job.held, host + fee) == (True, owed, 0, owed)
    assert closed is not None and (closed.owed, closed.refund) == (owed, job.deposit - owed)
    assert back == job.deposit - owed + world.bonds - bond_to_host
    assert world.repaid(world.terms.host) == bond_to_host
    assert (world.stake, sum(world.chain.compensated.values())) == (STAKE - slashed, COMPENSATION * (slashed > 0))
    assert world.chain.held[world.terms.token] == owed


# -- disputes -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ProofPolicy)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("closed", [False, True])
def test_a_dispute_is_answered_whatever_fails(policy: ProofPolicy, fault: Fault, closed: bool) -> None:
    """Raised before or after the close, and with a crash at any step: one answer, in time, and the tail and the bond are the host's."""
    for at in range(60):
        world = over(policy)

        def object_once(world: Settling = world) -> None:
            if world.job.closed is closed and not world.bonds:
                world.dispute()

        steps = world.settle(meanwhile=object_once, fault_at=at, fault=fault)
        assert (world.bonds, world.reverted) == (BOND, [])
        end = ["closeByHost", "answerDispute"] if closed else ["answerDispute", "closeByHost"]
        head = ["redeem", *PROOF] if policy is ProofPolicy.FALLBACK else [*PROOF, "redeem"]
        assert world.mined == [*head, "claimProven", *end]
        check(world, SIGNED + W, bond_to_host=BOND)
        if at >= len(steps):
            return
    raise AssertionError("too many steps")


def test_until_when_a_dispute_is_answered() -> None:
    """Until the last second of its stage; from then on it is lost, and the host has the outcome."""
    world = claimed()
    world.dispute()
    end, made = world.job.held_until, world.ledger.commitment
    assert made is not None
    answer = AnswerDispute(made, Tokens(SIGNED), end)
    for now, action in ((world.now, answer), (end - 1, answer), (end, SettleClaim(end)), (end + 900, SettleClaim(end))):
        world.now = now
        assert world.plan() == action
    late = Situation(world.job, world.block, float(end + 10_000), 0.0, end - 1)  # the host's own clock does not matter
    assert plan(world.ledger, late, world.rules) == answer
    early = Situation(world.job, world.block, float(end - 10_000), 0.0, end)
    assert plan(world.ledger, early, world.rules) == SettleClaim(end)


@pytest.mark.parametrize("policy", ProofPolicy)
@pytest.mark.parametrize("closed", [False, True])
def test_a_host_that_slept_through_a_dispute_loses_the_tail_and_no_more(policy: ProofPolicy, closed: bool) -> None:
    """One slice of the stake, the tail, no second claim; everything signed is paid, and the job ends."""
    world = claimed(policy)
    until(world, lambda: world.job.closed is closed)
    world.dispute()
    world.pass_time(1_000)
    steps = world.settle()
    assert (world.job.stage, world.reverted) == (ClaimStage.LOST, [])
    assert world.mined.count("claimProven") == 1
    assert not any(isinstance(step, ClaimTail) for step in steps)
    check(world, SIGNED, slashed=SLASH)


def test_what_is_signed_after_a_lost_claim_is_paid() -> None:
    """Also under `required`, where it needs another proof."""
    world = claimed(ProofPolicy.REQUIRED, tail=10)
    world.dispute()
    world.pass_time(1_000)
    world.serve(20)
    world.sign()
    world.settle()
    assert world.mined[-4:] == ["settleClaim", *PROOF, "closeByHost"]
    check(world, SIGNED + 30, slashed=SLASH)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("for_host", "owed", "bond_to_host", "slashed"),
    [(True, SIGNED + W, BOND, 0), (False, SIGNED, 0, SLASH), (None, SIGNED + W, 0, 0)],
)
def test_an_arbiter_decides_or_is_silent(
    for_host: bool | None, owed: int, bond_to_host: int, slashed: int, fault: Fault
) -> None:
    """The host answers, then waits for the arbiter's word, or for the end of its time; with a crash at any step."""
    for at in range(60):
        world = over(arbiter=ARBITER)

        def others(world: Settling = world) -> None:
            if not world.bonds:
                world.dispute()
            if for_host is not None:
                world.rule(for_host)

        steps = world.settle(meanwhile=others, fault_at=at, fault=fault)
        assert world.reverted == []
        assert world.mined.count("answerDispute") == 1
        assert ("settleClaim" in world.mined) is (for_host is None)
        check(world, owed, bond_to_host=bond_to_host, slashed=slashed)
        if at >= len(steps):
            return
    raise AssertionError("too many steps")


def test_a_dispute_begins_at_the_voucher_that_is_redeemed() -> None:
    """Not at the newest; older ones are forgotten, and a restart finds the right one again in the log."""
    world = Settling(ProofPolicy.FALLBACK).served_and_signed(100)
    world.settle()  # redeems 100
    world.served_and_signed(160, W)
    assert list(world.ledger.vouchers) == [100, 160]
    world.plan()
    assert list(world.ledger.vouchers) == [100, 160]
    world.finish()
    until(world, lambda: world.job.stage is ClaimStage.CLAIMED)
    world.plan()
    assert (list(world.ledger.vouchers), world.job.signed) == ([160], 160)
    world.dispute()
    world.restart()
    assert list(world.ledger.vouchers) == [64, 100, 160]
    answer = world.plan()
    assert isinstance(answer, AnswerDispute) and answer.signed == 160
    world.settle()
    check(world, 160 + W, bond_to_host=BOND)


@pytest.mark.parametrize("signed", [0, 1])
def test_a_dispute_from_the_beginning_of_a_job(signed: int) -> None:
    """Where nothing was signed the records begin with the job itself."""
    world = Settling(ProofPolicy.REQUIRED).served_and_signed(signed, W)
    world.finish()
    world.settle(meanwhile=lambda: None if world.bonds else world.dispute())
    assert (world.mined.count("answerDispute"), world.reverted) == (1, [])
    check(world, signed + W, bond_to_host=BOND)


def test_two_claims_from_one_voucher_are_both_answered() -> None:
    """The renter comes back after a claim, takes more without signing, and goes again."""
    world = Settling(ProofPolicy.FALLBACK).served_and_signed(SIGNED, 10)
    ends = []
    for _ in range(2):
        world.idle_for = 4_000.0
        until(world, lambda: world.job.stage is ClaimStage.CLAIMED)
        world.dispute()
        answer = world.plan()
        assert isinstance(answer, AnswerDispute) and answer.signed == SIGNED
        ends.append(answer.until)
        world.step()
        world.idle_for = 0.0
        world.serve(20)
    assert ends[0] != ends[1]
    assert (world.mined.count("answerDispute"), world.job.owed, world.reverted) == (2, SIGNED + 30, [])


def test_a_log_without_the_commitment_does_not_answer_and_still_settles() -> None:
    """A journal from before the commitment (a backup) cannot open it: the tail is lost, the signed part is paid."""
    world = claimed()
    world.dispute()
    world.ledger.commitment = None
    assert world.plan() == CloseJob(None)
    world.now = world.job.held_until
    assert isinstance(world.plan(), SettleClaim)
    world.settle()
    check(world, SIGNED, slashed=SLASH)


# -- what is not claimed ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ProofPolicy)
def test_a_host_without_a_stake_claims_nothing(policy: ProofPolicy) -> None:
    """The contract takes no claim from it; the job is closed with what is signed, and no proof is made for the tail."""
    world = over(policy, stake=SLASH - 1)
    world.settle()
    assert world.mined == [*(PROOF if policy is ProofPolicy.REQUIRED else []), "closeByHost"]
    assert world.reverted == []
    assert world.money()[2] == world.job.deposit - SIGNED
    enough = over(policy, stake=SLASH)
    enough.settle()
    assert "claimProven" in enough.mined


@pytest.mark.parametrize("policy", ProofPolicy)
def test_a_host_that_signed_the_end_claims_nothing_beyond(policy: ProofPolicy) -> None:
    """Anyone who holds its `Close` could show it against the claim."""
    world = Settling(policy).served_and_signed(SIGNED, W)
    world.finish(released=True)
    world.settle()
    assert "claimProven" not in world.mined
    check(world, SIGNED)


# -- what happens while a claim is held ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ProofPolicy)
def test_a_voucher_that_comes_while_a_claim_is_held(policy: ProofPolicy) -> None:
    """It takes the claim over and travels with the close: nothing is held any more, and nothing is paid twice."""
    world = claimed(policy)
    world.sign()
    world.settle()
    assert (world.mined[-2:], world.reverted) == (["claimProven", "closeByHost"], [])
    check(world, SIGNED + W)


def test_a_voucher_that_comes_while_a_claim_is_disputed() -> None:
    """Whoever signs what it disputes was wrong."""
    world = claimed()
    world.dispute()
    world.sign()
    world.settle()
    check(world, SIGNED + W, bond_to_host=BOND)


def test_more_than_is_proven_is_signed_while_a_claim_is_held() -> None:
    """Under `required` the next proof waits until the claim is decided, so that a dispute finds its commitment; then all is paid."""
    world = claimed(ProofPolicy.REQUIRED, tail=10)
    world.serve(20)
    world.sign()
    assert world.plan() == AwaitClaim(world.job.held_until)
    world.settle()
    assert (world.mined[-4:], world.reverted) == (["settleClaim", *PROOF, "closeByHost"], [])
    check(world, SIGNED + 30)


@pytest.mark.parametrize("policy", ProofPolicy)
def test_a_second_tail_is_claimed_when_the_first_is_decided(policy: ProofPolicy) -> None:
    """The contract takes one claim at a time: the host waits for it before it closes."""
    world = claimed(policy, tail=10)
    world.serve(20)
    assert world.plan() == AwaitClaim(world.job.held_until)
    world.settle()
    assert (world.mined[-6:], world.reverted) == (["settleClaim", *PROOF, *TAIL], [])
    check(world, SIGNED + 30)


@pytest.mark.parametrize("policy", ProofPolicy)
def test_what_is_signed_does_not_wait_for_a_claim(policy: ProofPolicy) -> None:
    """More was signed and more served after the claim: what the contract takes is redeemed first, whoever comes or goes meanwhile."""
    world = claimed(policy, tail=10)
    if policy is ProofPolicy.REQUIRED:
        world.sign()  # what is proven, and no more
    else:
        world.serve(20)
        world.sign()
    world.serve(20)
    action = world.step()
    assert isinstance(action, RedeemVoucher)
    assert world.job.owed - world.job.held == world.ledger.amount(world.ledger.acknowledged)
    world.settle()
    assert world.reverted == []
    check(world, world.ledger.served)


@pytest.mark.parametrize(("left", "waits"), [(TIME_TO_CLAIM, False), (TIME_TO_CLAIM + 1, True)])
def test_a_second_tail_is_given_away_where_no_time_is_left_for_it(left: int, waits: bool) -> None:
    """Anybody may close the job `left` seconds after the first claim is decided; W bounds what that costs."""
    world = claimed(tail=10)
    world.serve(20)
    closing = msgspec.structs.replace(world.job, closing_at=world.job.held_until + left)
    action = plan(world.ledger, msgspec.structs.replace(world.situation, job=closing), world.rules)
    assert action == (AwaitClaim(world.job.held_until) if waits else CloseJob(None))


def test_a_second_tail_that_is_worth_nothing_is_not_waited_for() -> None:
    """Less than its gas."""
    world = claimed(tail=10)
    world.serve(RULES.claim_tail_above - 1)
    world.settle()
    assert (world.mined[-3:], world.reverted) == (TAIL, [])
    check(world, SIGNED + 10)


@pytest.mark.parametrize("disputed", [False, True])
@pytest.mark.parametrize("policy", ProofPolicy)
def test_a_renter_that_wants_out_while_a_claim_is_held(policy: ProofPolicy, disputed: bool) -> None:
    """The host closes at once; the claim is decided as if nothing had happened."""
    world = claimed(policy)
    world.act(RequestClose(world.terms.renter, world.ledger.job))
    if disputed:
        world.dispute()
    world.settle()
    assert world.reverted == []
    check(world, SIGNED + W, bond_to_host=BOND if disputed else 0)


def test_somebody_finalizes_while_a_claim_is_held() -> None:
    """The host sees the claim through, and notes the close afterwards."""
    world = over(stake=STAKE)
    world.now = world.terms.expires_at + world.terms.challenge - 60
    until(world, lambda: world.job.stage is ClaimStage.CLAIMED)
    world.now += 60
    world.act(Finalize(world.terms.renter, world.ledger.job))
    assert world.plan() == AwaitClaim(world.job.held_until)
    world.dispute()
    world.settle()
    assert world.mined[-1] == "answerDispute"
    check(world, SIGNED + W, bond_to_host=BOND)


def test_the_close_is_noted_when_the_claim_is_decided() -> None:
    """Not before: the log of a job that is noted as closed is not looked at again, and a dispute needs its records."""
    world = claimed()
    until(world, lambda: world.job.closed)
    for _ in range(3):
        assert world.step() == AwaitClaim(world.job.held_until)
    assert world.ledger.closed is None
    world.now = world.job.held_until - 1
    assert isinstance(world.step(), AwaitClaim)
    world.now += 1
    assert isinstance(world.step(), SettleClaim)
    assert world.step() == NoteClosed(BaseUnits(SIGNED + W), BaseUnits(world.job.deposit - SIGNED - W))
    assert world.plan() == Rest("closed")
    check(world, cost(Tokens(SIGNED + W), world.terms.price))
