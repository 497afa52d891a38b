"""The settler and claims: held, seen through, disputed, answered; what counts as earned meanwhile, and what a shutdown waits for."""

from __future__ import annotations

import asyncio

import pytest
from tests.host.settler_world import DEPOSIT, World
from tests.protocol.market import HOST_KEY

from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ClaimStage, ProofPolicy
from fabstir.protocol.host_log import Credited, HostLedger, JobClosed, SessionFinished
from fabstir.testing.chain import INFO, MIN_STAKE, SLASH

SIGNED, SERVED = 100, 140


async def held(market: World, policy: ProofPolicy = ProofPolicy.FALLBACK, salt: int = 1) -> HostLedger:
    """A job whose tail is claimed, and which is closed meanwhile."""
    ledger = await market.job(served=SERVED, signed=SIGNED, policy=policy, salt=salt)
    await market.settle()
    state = await market.state(ledger)
    assert (state.stage, state.closed) == (ClaimStage.CLAIMED, True)
    return ledger


@pytest.mark.parametrize("policy", ProofPolicy)
async def test_a_claim_is_held_and_then_settled(policy: ProofPolicy) -> None:
    """The job is closed at once and the signed part paid; the tail follows when its time is over, and then the book forgets the job."""
    market = World()
    ledger = await held(market, policy)
    until = (await market.state(ledger)).held_until
    assert market.settler.held == {ledger.job: until}
    assert market.earned() == ledger.amount(Tokens(SIGNED))
    await market.clock.advance(until - 1 - market.clock.now())
    await market.settle(2)
    assert market.book.get(ledger.job) is ledger and market.settler.problems == {}
    await market.clock.advance(1)
    await market.settle(1)
    assert market.earned() == ledger.amount(Tokens(SERVED))
    assert (market.book.get(ledger.job), market.settler.held) == (None, {})
    assert market.book.closed[-1].owed == ledger.amount(Tokens(SERVED))


async def test_what_is_held_is_not_earned_yet() -> None:
    """The accounts see the signed part when it is credited, the tail when the claim is decided."""
    market = World()
    seen = market.clock.now()
    ledger = await held(market)
    credits = [event for event in await market.events(ledger) if isinstance(event, Credited)]
    assert credits == [Credited(ledger.amount(Tokens(SIGNED)), seen)]
    await market.clock.advance(ledger.terms.challenge)
    await market.settle(1)
    events = await market.events(ledger)
    assert [event for event in events if isinstance(event, Credited)] == credits
    owed = ledger.amount(Tokens(SERVED))
    assert events[-1] == JobClosed(owed, BaseUnits(DEPOSIT - owed), market.clock.now())


async def test_what_a_late_voucher_takes_out_of_a_claim_is_earned_at_once() -> None:
    """Also where it was credited by the close itself, and the rest of the claim is held for days."""
    market = World()
    ledger = await market.job(served=SERVED, signed=SIGNED, policy=ProofPolicy.FALLBACK)
    while (await market.state(ledger)).stage is not ClaimStage.CLAIMED:
        market.chain.on_transaction = lambda key, phase: market.stop_after(key, phase, "tail:")
        await market.settle(1)
    market.chain.on_transaction = lambda key, phase: None
    await market.sign(ledger, SIGNED + 10)
    await market.settle(2)
    state = await market.state(ledger)
    assert (state.closed, state.stage) == (True, ClaimStage.CLAIMED)
    owed = [event.owed for event in await market.events(ledger) if isinstance(event, Credited)]
    assert owed == [ledger.amount(Tokens(SIGNED)), ledger.amount(Tokens(SIGNED + 10))]


async def test_a_lost_claim_was_never_earned() -> None:
    """The log never said more than what was credited."""
    market = World()
    ledger = await held(market)
    await market.dispute(ledger)
    await market.clock.advance(ledger.terms.challenge)  # the host was away
    await market.settle(1)
    owed = ledger.amount(Tokens(SIGNED))
    assert [e.owed for e in await market.events(ledger) if isinstance(e, Credited | JobClosed)] == [owed, owed]
    assert market.chain.ledger.market.stakes[HOST_KEY.address] == MIN_STAKE - SLASH


@pytest.mark.parametrize("policy", ProofPolicy)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_dispute_is_answered(policy: ProofPolicy, restarted: bool) -> None:
    """By the next pass, also of another process that has only the journal: the host has its tail at once, and the renter's bond."""
    market = World()
    ledger = await held(market, policy)
    await market.dispute(ledger)
    if restarted:
        await market.restart()
    before = market.chain.ledger.balance(INFO.usdc, HOST_KEY.address)
    await market.settle(1)
    state = await market.state(ledger)
    assert (state.stage, state.held, state.owed) == (ClaimStage.NONE, 0, ledger.amount(Tokens(SERVED)))
    assert market.chain.ledger.balance(INFO.usdc, HOST_KEY.address) == before + ledger.terms.bond
    assert market.book.get(ledger.job) is None
    assert market.chain.ledger.market.stakes[HOST_KEY.address] == MIN_STAKE


async def test_a_dispute_is_answered_as_soon_as_the_chain_answers() -> None:
    """A dead endpoint and an answer that got lost delay it; nothing is sent twice."""
    market = World()
    ledger = await held(market)
    await market.dispute(ledger)
    market.chain.unreachable = True
    await market.settle(2)
    market.chain.unreachable, market.chain.lost_answers = False, 1
    sent: list[str] = []
    market.chain.on_transaction = lambda key, phase: sent.append(key) if phase == "after" else None
    await market.settle(3)
    assert (await market.state(ledger)).owed == ledger.amount(Tokens(SERVED))
    assert [key.split(":")[0] for key in sent] == ["answer"]
    assert market.book.get(ledger.job) is None and market.settler.problems == {}


async def test_two_disputes_from_one_voucher_are_both_answered() -> None:
    """The renter comes back after a claim and disputes it, takes more, and does so again: each answer is a transaction of its own."""
    market = World()
    ledger = await market.job(served=110, signed=SIGNED, policy=ProofPolicy.FALLBACK, finished=False)

    def come_back(key: str, phase: str) -> None:
        if key.startswith("tail:") and phase == "after":
            market.idle = 0.0

    market.chain.on_transaction = come_back
    for served in (110, 120):
        market.idle = 4_000.0
        await market.settle()
        state = await market.state(ledger)
        assert (state.stage, state.closed, state.signed) == (ClaimStage.CLAIMED, False, SIGNED)
        await market.dispute(ledger)
        await market.settle(1)
        state = await market.state(ledger)
        assert (state.stage, state.owed) == (ClaimStage.NONE, ledger.amount(Tokens(served)))
        await market.clock.advance(60.0)
        await market.serve(ledger, 10)
    assert market.chain.ledger.market.stakes[HOST_KEY.address] == MIN_STAKE


async def test_a_lost_voucher_is_a_problem_with_a_name() -> None:
    """Where the journal does not have the voucher that was redeemed, the dispute cannot be answered; the rest is settled all the same."""
    market = World()
    ledger = await held(market)
    await market.dispute(ledger)
    ledger.vouchers.clear()
    await market.settle(1)
    assert "journal_failed" in market.settler.problems[ledger.job]
    await market.clock.advance(ledger.terms.challenge)
    await market.settle(1)
    assert market.book.closed[-1].owed == ledger.amount(Tokens(SIGNED))


async def test_a_shutdown_does_not_wait_for_held_claims() -> None:
    """`finish` returns when nothing is left but to wait for the end of a claim; the next process sees it through."""
    market = World()
    ledger = await market.job(served=SERVED, signed=SIGNED, policy=ProofPolicy.FALLBACK)
    other = await market.job(served=10, signed=10, policy=ProofPolicy.FALLBACK, salt=2)
    assert 0 < await seconds_to_finish(market) < 30
    assert (await market.state(other)).closed
    assert (await market.state(ledger)).stage is ClaimStage.CLAIMED
    await market.restart()
    assert await seconds_to_finish(market) == 0
    await market.clock.advance(ledger.terms.challenge)
    await market.settle(1)
    assert market.book.closed[-1].owed == ledger.amount(Tokens(SERVED))


async def seconds_to_finish(market: World) -> float:
    """How long a shutdown takes that may take ten minutes, with a block every half second."""
    begun, finishing = market.clock.now(), asyncio.create_task(market.settler.finish(within=600.0))
    await market.clock.advance(0.0)
    while not finishing.done():
        market.chain.mine()
        await market.clock.advance(0.5)
    await finishing
    return market.clock.now() - begun


async def test_a_shutdown_does_not_leave_signed_money_behind_a_claim() -> None:
    """The close after a claim fails, its renter comes back, signs for more and is served more: a host that goes down then has all that is
    signed in the contract, even if it never comes back."""
    market = World()
    ledger = await market.job(300, 250, finished=False, policy=ProofPolicy.FALLBACK)
    market.idle = 4_000.0
    market.chain.on_transaction = lambda key, phase: market.stop_after(key, phase, "tail")
    while (await market.state(ledger)).stage is not ClaimStage.CLAIMED:
        await market.settle(1)
        market.chain.mine()
    market.chain.on_transaction = lambda key, phase: None
    market.idle = 0.0
    await market.serve(ledger, 40)
    await market.sign(ledger, 340)
    await market.serve(ledger, 20)
    async with market.book.exclusive(ledger):
        await market.book.record(ledger, SessionFinished("host shuts down"))
    await seconds_to_finish(market)
    state = await market.state(ledger)
    assert (state.signed, state.owed - state.held) == (340, ledger.amount(Tokens(340)))


async def test_without_a_stake_nothing_is_claimed_until_there_is_one() -> None:
    """The job is settled with what was signed; a stake that comes back counts for the next job."""
    market = World(staked=False)
    ledger = await market.job(served=SERVED, signed=SIGNED)
    await market.settle()
    assert market.book.closed[-1].owed == ledger.amount(Tokens(SIGNED))
    market.chain.give_stake(HOST_KEY.address)
    await held(market, salt=2)
