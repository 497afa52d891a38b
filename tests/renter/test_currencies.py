"""Sessions that are paid in the chain's coin, terms with bond and arbiter, and payments that a host sends: to the last unit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.renter.money_world import COINS, WEI_PRICE, MoneyWorld, money_world
from tests.renter.test_failover import gather
from tests.renter.world import MODEL, STRANGER, WALLET, counting, eventually

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.domain.money import BaseUnits, cost, fee_of
from fabstir.protocol.relay import RelayOpening
from fabstir.renter.settling import Stage
from fabstir.testing.chain import INFO

ARBITER = Address(b"\x0d" * 20)
NATIVE: dict[str, Any] = {"token": ZERO_ADDRESS, "bond": BaseUnits(1)}


async def test_a_session_in_coins_is_paid_to_the_last_wei() -> None:
    """Deposit, top-ups, vouchers, refund, earnings, fee and withdrawals: no wei appears or is lost, and no USDC moves."""
    async with money_world(200_000, min_deposit_native=BaseUnits(10**12)) as world:
        host, memory = world.hosts[0].key.address, world.memory
        before = memory.supply(ZERO_ADDRESS)
        async with world.market(budget=BaseUnits(200 * 10**12), **NATIVE) as market:
            async with market.session(MODEL) as session:
                assert await gather(session.prompt("count 60")) == counting(60)
                [job] = session.jobs
                assert job.ledger.deposit > 50 * 10**12, "topped up: 50 tokens were deposited at first"
                assert world.holds(WALLET.address, ZERO_ADDRESS) == COINS - job.ledger.deposit
                tokens = job.ledger.signed
            await world.settle(world.hosts[0])
            [settled] = await market.settle()
        owed = cost(tokens, WEI_PRICE)
        assert tokens >= 60 and (settled.stage, settled.owed) == (Stage.SETTLED, owed)
        assert world.holds(WALLET.address, ZERO_ADDRESS) == COINS - owed
        assert world.earned(host, ZERO_ADDRESS) == owed - fee_of(owed)
        assert memory.supply(ZERO_ADDRESS) == before
        for who in (host, memory.ledger.market.treasury):
            await memory.connect(who).withdraw("withdraw", ZERO_ADDRESS, who)
        assert world.holds(host, ZERO_ADDRESS) + world.holds(memory.ledger.market.treasury, ZERO_ADDRESS) == owed
        assert world.holds(INFO.market, ZERO_ADDRESS) == 0
        assert world.holds(WALLET.address) == 10_000_000


async def test_coins_that_are_not_there_are_told_and_free_the_budget() -> None:
    """`funds_insufficient`, and nothing stays taken from the budget."""
    async with money_world(200_000, coins=5) as world, world.market(budget=BaseUnits(10**14), **NATIVE) as market:
        session = await market.start_session(MODEL)
        with pytest.raises(FabstirError, match="funds_insufficient"):
            await session.connect()
        assert session.budget_left == 10**14


async def test_a_host_that_takes_no_coins_is_not_listed_for_them() -> None:
    """Neither among the models, nor in the choice; the reason is told."""
    async with (
        money_world(200_000, price_native=0) as world,
        world.market(budget=BaseUnits(10**14), **NATIVE) as market,
    ):
        assert await market.models() == ()
        with pytest.raises(FabstirError, match="1 host answers, and none takes the currency 0x0000"):
            await market.first_model()
        session = await market.start_session(MODEL)
        with pytest.raises(FabstirError, match="does not take this token for the model"):
            await session.connect()


async def test_models_have_the_price_in_the_renters_currency() -> None:
    """The cheapest of it."""
    async with money_world(200_000, 100_000) as world:
        async with world.market(**NATIVE) as market:
            assert [model.cheapest for model in await market.models()] == [WEI_PRICE]
        async with world.market() as market:
            assert [model.cheapest for model in await market.models()] == [100_000]


async def test_the_bond_is_the_larger_of_both_and_the_arbiter_the_renters() -> None:
    """Terms that the host admits at once."""
    async with money_world(200_000, bond_min=BaseUnits(300_000), arbiters=(ARBITER,)) as world:
        for own, agreed in ((100_000, 300_000), (400_000, 400_000)):
            async with world.market(bond=BaseUnits(own), arbiter=ARBITER) as market, market.session(MODEL) as session:
                assert await gather(session.prompt("hi")) == "You said: hi"
                terms = session.jobs[-1].ledger.terms
                assert (terms.bond, terms.arbiter) == (agreed, ARBITER)
            await world.settle(world.hosts[0])


async def test_a_host_that_does_not_accept_the_arbiter_or_wants_too_much_bond_is_left() -> None:
    """The dearer host is taken, whose terms fit; without it, the reason is told."""
    async with money_world(100_000, bond_min=BaseUnits(2_000_000), arbiters=(ARBITER,)) as world:
        async with world.market(arbiter=STRANGER.address) as market:
            session = await market.start_session(MODEL)
            with pytest.raises(FabstirError, match="does not accept the arbiter"):
                await session.connect()
        async with world.market(bond_max=BaseUnits(1_000_000)) as market:
            session = await market.start_session(MODEL)
            with pytest.raises(FabstirError, match="asks a bond of 2000000, at most 1000000"):
                await session.connect()


# -- a host that sends what the renter signed ----------------------------------------------------------------------------


def sent_by(world: MoneyWorld, account: Address) -> list[str]:
    """Keys of the transactions of an account."""
    return [key for owner, key in world.memory._ended if owner == account]


async def test_a_renter_without_eth_opens_and_tops_up_through_the_host() -> None:
    """The renter sends no transaction at all; what it pays is what it signed for, the host pays the gas."""
    async with money_world(1_000_000, relayed_from=BaseUnits(1), min_deposit=BaseUnits(1)) as world:
        async with world.market(relays=world, relay=True, budget=BaseUnits(200)) as market:
            async with market.session(MODEL) as session:
                assert await gather(session.prompt("count 60")) == counting(60)
                tokens = session.jobs[0].ledger.signed
            await world.settle(world.hosts[0])
            [settled] = await market.settle()
        assert world.relayed[0].startswith("open") and any(said.startswith("top up") for said in world.relayed)
        assert sent_by(world, WALLET.address) == []
        assert settled.owed == cost(tokens, world.hosts[0].settings.price)
        assert world.holds(WALLET.address) == 10_000_000 - settled.owed


async def test_a_host_that_does_not_send_it_is_left_for_one_that_does() -> None:
    """What was signed for it can still be sent, so it stays taken from the budget until it has expired; then it is back."""
    async with money_world(100_000, 200_000, relayed_from=BaseUnits(10_000)) as world:
        world.silent.add(world.hosts[0].url)
        async with world.market(relays=world, relay=True, budget=BaseUnits(100_000)) as market:
            session = await market.start_session(MODEL)
            asked = asyncio.ensure_future(gather(session.prompt("hi")))
            while not asked.done():
                await world.clock.advance(1)
            assert await asked == "You said: hi"
            assert [job.host for job in session.jobs] == [world.hosts[1].key.address]
            assert session.budget_left == 50_000, "two deposits of 25,000 are out"
            await session.close()
            await world.clock.advance(300)
            stages = {settled.stage for settled in await market.settle()}
            assert stages == {Stage.PLANNED, Stage.OPEN}, "expired, and an endpoint may still be behind"
            await world.clock.advance(400)
            stages = {settled.stage for settled in await market.settle()}
            assert stages == {Stage.ABANDONED, Stage.OPEN}
            assert session.budget_left == 75_000


async def test_what_the_host_sent_may_show_a_little_later() -> None:
    """Our endpoint is behind the host's: waited for, and no other host is paid."""
    async with money_world(100_000, 200_000, relayed_from=BaseUnits(10_000)) as world:
        world.silent.add(world.hosts[0].url)
        real, sending = world.open, []

        async def late(url: str, opening: RelayOpening) -> None:
            async def send() -> None:
                await world.clock.sleep(3)
                await world.hosts[0].node.relay.open(opening)

            sending.append(asyncio.ensure_future(send()))
            await real(url, opening)

        world.open = late  # type: ignore[method-assign]
        async with world.market(relays=world, relay=True, budget=BaseUnits(100_000)) as market:
            session = await market.start_session(MODEL)
            asked = asyncio.ensure_future(gather(session.prompt("hi")))
            while not asked.done():
                await world.clock.advance(1)
            assert await asked == "You said: hi"
            assert [job.host for job in session.jobs] == [world.hosts[0].key.address]
            assert len(sending) == 1


async def test_a_host_that_sends_later_has_opened_a_spare_job() -> None:
    """The renter finds it on chain and uses it for the next question, and paid for nothing twice."""
    async with money_world(100_000, relayed_from=BaseUnits(10_000)) as world:
        host, held = world.hosts[0], []
        world.silent.add(host.url)
        real = world.open

        async def late(url: str, opening: RelayOpening) -> None:
            held.append(opening)
            await real(url, opening)

        world.open = late  # type: ignore[method-assign]
        async with world.market(relays=world, relay=True, budget=BaseUnits(100_000)) as market:
            session = await market.start_session(MODEL)
            asked = asyncio.ensure_future(session.connect())
            while not asked.done():
                await world.clock.advance(1)
            with pytest.raises(FabstirError, match="hosts_exhausted"):
                await asked
            await host.node.relay.open(held[0])
            await market.settle()
            assert await gather(session.prompt("hi")) == "You said: hi"
            assert len(held) == 1 and session.budget_left == 75_000


async def test_a_host_that_relays_nothing_is_not_taken() -> None:
    """Where the renter needs it; its key must be there to sign."""
    async with money_world(100_000) as world:
        async with world.market(relays=world, relay=True) as market:
            session = await market.start_session(MODEL)
            with pytest.raises(FabstirError, match="does not relay openings"):
                await session.connect()
        with pytest.raises(FabstirError, match="config_invalid"):
            world.market(relays=world, relay=True, **NATIVE)


async def test_the_deposit_is_as_large_as_the_host_sends() -> None:
    """A quarter of the budget would be refused."""
    wanted: dict[str, Any] = {"relay": True, "budget": BaseUnits(100_000)}
    async with (
        money_world(100_000, relayed_from=BaseUnits(40_000)) as world,
        world.market(relays=world, **wanted) as market,
    ):
        session = await market.start_session(MODEL)
        await session.connect()
        assert session.jobs[0].ledger.deposit == 40_000


async def test_a_window_that_no_host_accepts_is_told() -> None:
    """Before anything is paid."""
    async with money_world(100_000, challenge_max=3_600) as world, world.market(challenge=7_200) as market:
        session = await market.start_session(MODEL)
        with pytest.raises(FabstirError, match="challenge windows up to 3600 s, 7200 s are wanted"):
            await session.connect()


async def test_an_open_job_in_another_currency_is_not_gone_on_with() -> None:
    """Nor one with another arbiter: what the settings say now is what the next session gets."""
    async with money_world(100_000, arbiters=(ARBITER,)) as world:
        seen = []
        for settings in ({}, NATIVE | {"budget": BaseUnits(10**14)}, {"arbiter": ARBITER}, {}):
            async with world.market(**settings) as market:
                session = await market.start_session(MODEL)
                await session.connect()
                terms = session.jobs[0].ledger.terms
                seen.append((terms.token, terms.arbiter, session.jobs[0].id))
            host = world.hosts[0]
            host.cut()
            await eventually(lambda: len(host.node._require_running().reception) == 0)  # noqa: B023 - one host
        assert [(token, arbiter) for token, arbiter, _ in seen] == [
            (INFO.usdc, ZERO_ADDRESS),
            (ZERO_ADDRESS, ZERO_ADDRESS),
            (INFO.usdc, ARBITER),
            (INFO.usdc, ZERO_ADDRESS),
        ]
        assert seen[3][2] == seen[0][2], "the first job has its deposit still"
