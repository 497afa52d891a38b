"""The settler on a market in memory: who is paid, in how many transactions, and what happens while parts fail."""

from __future__ import annotations

from typing import Any

import pytest
from tests.host.settler_world import DEPOSIT, World

from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy
from fabstir.host.settler import RETRY_SECONDS
from fabstir.protocol.claims import Kind
from fabstir.protocol.host_log import Credited, JobClosed


@pytest.mark.parametrize("policy", list(ProofPolicy))
async def test_a_finished_job_is_paid_and_closed(policy: ProofPolicy) -> None:
    """The host gets what was signed, to the last unit; the rest of the deposit goes back; the book forgets the job."""
    market = World()
    ledger = await market.job(served=300, signed=300, policy=policy)
    await market.settle()
    state = await market.state(ledger)
    assert (state.closed, state.owed) == (True, ledger.amount(Tokens(300)))
    assert market.book.get(ledger.job) is None and market.book.closed[-1].owed == state.owed
    assert ledger.job in market.told
    assert state.proven == (300 if policy is ProofPolicy.REQUIRED else 0)


async def test_a_restart_between_any_two_writes_settles_the_same() -> None:
    """Another process with the same journal goes on where the last one was, and nothing is paid twice."""
    whole = World()
    ledger = await whole.job(served=300, signed=300)
    for _ in range(12):
        await whole.settler.settle()
        await whole.restart()
        whole.chain.mine()
    state = await whole.state(ledger)
    assert (state.closed, state.owed) == (True, ledger.amount(Tokens(300)))


async def test_the_unsigned_tail_is_claimed_only_where_it_is_worth_it() -> None:
    """Proven tokens beyond the voucher are paid, at most W; below the bound nothing is spent on them."""
    rich, poor = World(claim_tail_above=BaseUnits(1)), World(claim_tail_above=BaseUnits(10**9))
    for market, paid in ((rich, 164), (poor, 100)):
        ledger = await market.job(served=200, signed=100)
        await market.settle(20)
        state = await market.state(ledger)
        assert (state.closed, state.owed) == (True, ledger.amount(Tokens(paid)))


async def test_each_currency_has_its_own_bounds() -> None:
    """A million wei is worth no gas, a million base units of USDC are: running jobs are redeemed, and tails claimed, from the bounds of
    the currency that they are paid in, and each currency's bound is without effect on the other's jobs."""
    market = World()  # the defaults
    wei_price, coins = PricePerMTok(10**19), BaseUnits(10**16)  # 10**13 wei a token
    running: dict[str, Any] = {"finished": False, "policy": ProofPolicy.FALLBACK, "deposit": coins}
    native = running | {"token": ZERO_ADDRESS, "price": wei_price}
    little = await market.job(served=39, signed=39, salt=1, **native)
    await market.settle(3)
    assert (await market.state(little)).signed == 0
    enough = await market.job(served=40, signed=40, salt=2, **native)
    await market.settle(3)
    assert [(await market.state(ledger)).signed for ledger in (little, enough)] == [39, 40]  # 39 in company
    dollars = await market.job(served=500, signed=500, salt=3, finished=False, policy=ProofPolicy.FALLBACK)
    await market.settle(3)
    assert (await market.state(dollars)).signed == 500


async def test_a_tail_in_coins_is_claimed_from_the_bound_in_coins() -> None:
    """A tail of 2,000 wei costs no transaction; one of 0.8 millionths of a coin is claimed, and the outlook shows just that one."""
    for price, paid in ((PricePerMTok(12_499_999_999_000_000), 100), (PricePerMTok(12_500_000_000_000_000), 164)):
        market = World()
        ledger = await market.job(
            served=200, signed=100, token=ZERO_ADDRESS, price=price, deposit=BaseUnits(10**16), exposure=Tokens(64)
        )
        await market.settler.settle()
        shown = [row.kind for row in market.settler.outlook.rows()]
        assert (Kind.CLAIM in shown) is (paid > 100)
        await market.settle(20)
        state = await market.state(ledger)
        assert (state.closed, state.owed) == (True, ledger.amount(Tokens(paid)))


async def test_a_dead_chain_delays_and_loses_nothing() -> None:
    """While no endpoint answers the reason stands in `problems` and the next pass comes soon; afterwards all is paid."""
    market = World()
    ledger = await market.job(served=40, signed=40)
    market.chain.unreachable = True
    assert await market.settler.settle() <= RETRY_SECONDS
    assert "chain_unreachable" in market.settler.problems[ledger.job]
    market.chain.unreachable = False
    await market.settle()
    assert (await market.state(ledger)).owed == ledger.amount(Tokens(40))
    assert market.settler.problems == {}


async def test_a_dead_prover_delays_only_what_needs_a_proof() -> None:
    """Policy fallback is paid by the voucher alone; policy required waits for the prover."""
    market = World()
    strict = await market.job(served=40, signed=40, salt=1)
    loose = await market.job(served=40, signed=40, salt=2, policy=ProofPolicy.FALLBACK)
    market.prover.unavailable = True
    await market.settle(3)
    assert (await market.state(loose)).closed
    assert not (await market.state(strict)).closed
    assert "prover_unavailable" in market.settler.problems[strict.job]
    market.prover.unavailable = False
    await market.settle()
    assert (await market.state(strict)).closed


async def test_running_jobs_are_redeemed_together() -> None:
    """Vouchers above the bound of several running jobs travel in one transaction, and the jobs stay open."""
    market = World(redeem_above=BaseUnits(1))
    ledgers = [
        await market.job(served=30, signed=30, finished=False, salt=n, policy=ProofPolicy.FALLBACK) for n in (1, 2, 3)
    ]
    before = await market.host.block_number()
    await market.settler.settle()
    assert await market.host.block_number() == before + 1
    for ledger in ledgers:
        state = await market.state(ledger)
        assert (state.closed, state.signed, state.owed) == (False, 30, ledger.amount(Tokens(30)))


async def test_smaller_vouchers_travel_with_one_that_is_due() -> None:
    """In company they cost less gas: alone nobody goes; with one that is due, all that are worth their place, in one transaction."""
    market = World(redeem_above=BaseUnits(60_000), join_above=BaseUnits(26_000))
    worth, little = [
        await market.job(served=n, signed=n, finished=False, salt=n, policy=ProofPolicy.FALLBACK) for n in (13, 12)
    ]
    before = await market.host.block_number()
    await market.settler.settle()
    assert await market.host.block_number() == before
    due = await market.job(served=30, signed=30, finished=False, salt=30, policy=ProofPolicy.FALLBACK)
    before = await market.host.block_number()
    await market.settler.settle()
    assert await market.host.block_number() == before + 1
    assert [(await market.state(ledger)).signed for ledger in (due, worth, little)] == [30, 13, 0]


async def test_a_credit_is_written_down_once_and_when_it_was_seen() -> None:
    """For the accounts: the cumulative amount of each credit, never twice; the close says its own."""
    market = World(redeem_above=BaseUnits(1))
    ledger = await market.job(served=30, signed=20, finished=False, policy=ProofPolicy.FALLBACK)
    seen = market.clock.now()
    await market.settle(5)
    assert ledger.credited == ledger.amount(Tokens(20))
    await market.clock.advance(86_400 - 3_000)  # into the last hour: the tail is claimed, the job closed
    await market.settle(5)
    assert (await market.state(ledger)).closed and ledger.closed is None
    await market.clock.advance(ledger.terms.challenge)
    await market.settle(1)
    events = await market.events(ledger)
    assert [event for event in events if isinstance(event, Credited)] == [Credited(ledger.amount(Tokens(20)), seen)]
    assert events[-1] == JobClosed(
        ledger.amount(Tokens(30)), BaseUnits(DEPOSIT - ledger.amount(Tokens(30))), market.clock.now()
    )
    at_once = await market.job(served=10, signed=10, salt=2, policy=ProofPolicy.FALLBACK)
    await market.settle(5)
    assert at_once.closed is not None and at_once.credited == 0


async def test_before_going_down_what_is_over_is_settled() -> None:
    """`finish` leaves no finished job behind where the chain works."""
    market = World()
    ledger = await market.job(served=10, signed=10, policy=ProofPolicy.FALLBACK)
    await market.settler.finish(within=30.0)
    assert (await market.state(ledger)).closed
