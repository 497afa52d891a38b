"""Sessions on the real contracts, with real hosts and renters of this process: in ETH, through a relay, by a delegate."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.chain.support import Chain, coins, nonce
from tests.renter.money_world import MoneyWorld
from tests.renter.test_failover import gather
from tests.renter.world import STRANGER, WALLET, World, counting

from fabstir.chain.deploy import MINIMUM_STAKE, Operator
from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.domain.money import BaseUnits, PricePerMTok, cost, fee_of
from fabstir.ops.clock import SystemClock
from fabstir.protocol.signing import SigningKey
from fabstir.renter.delegates import Delegates
from fabstir.testing.clock import ManualClock
from fabstir.testing.journal import MemoryJournal

pytestmark = pytest.mark.real

SECRETS = (b"\x01" * 32, b"\x21" * 32, b"\x22" * 32)
"""Of the world's first host, WALLET and STRANGER."""
HOST_KEY = SigningKey(SECRETS[0])
WEI_PRICE = PricePerMTok(10**18)
DAY = 86_400


class RealView:
    """Clients by account, under the name that the world uses."""

    def __init__(self, clients: dict[Address, MarketClient]) -> None:
        self.clients = clients

    def view(self, account: Address) -> MarketClient:
        return self.clients[account]


class RealWorld(MoneyWorld):
    """The same hosts and renters; every transaction is one of anvil's."""

    def __init__(self, chain: Chain, clients: dict[Address, MarketClient], clock: ManualClock) -> None:
        World.__init__(self, RealView(clients), clock)
        self.info = chain.info
        self.relayed, self.silent = [], set()

    async def of(self, account: Address, token: Address) -> int:
        return await self.chain.clients[account].balance(token, account)

    async def held(self, token: Address) -> int:
        """By the market."""
        return await self.chain.clients[HOST_KEY.address].balance(token, self.info.market)

    async def owed(self, account: Address, token: Address) -> int:
        return await self.chain.clients[HOST_KEY.address].earnings(token, account)


@contextlib.asynccontextmanager
async def real_market(chain: Chain, rpc: JsonRpc, wallet_coins: int, **settings: Any) -> AsyncIterator[RealWorld]:
    """One staked host, a renter with 10 USDC and so many wei, a delegate with gas."""
    control, operator = DevnetControl(rpc), Operator(rpc, DEV_KEYS[0])
    for account in (HOST_KEY.address, WALLET.address, STRANGER.address):
        await control.set_balance(account, BaseUnits(wallet_coins if account == WALLET.address else 10**18))
    await operator.mint(chain.info, HOST_KEY.address, BaseUnits(MINIMUM_STAKE))
    await operator.mint(chain.info, WALLET.address, BaseUnits(10_000_000))
    clients = {
        SigningKey(secret).address: await MarketClient.connect(
            [chain.url], secret, chain.info, MemoryJournal(), SystemClock()
        )
        for secret in SECRETS
    }
    host = clients[HOST_KEY.address]
    await host.approve_stake("approve", BaseUnits(MINIMUM_STAKE))
    await host.add_stake("stake", BaseUnits(MINIMUM_STAKE))
    world = RealWorld(chain, clients, ManualClock(float(await host.timestamp())))
    try:
        await world.host(1_000_000, model_id=chain.model, price_native=WEI_PRICE, min_deposit=BaseUnits(1), **settings)
        yield world
    finally:
        for one in world.hosts:
            await one.stop()
        for client in clients.values():
            await client.close()


async def test_a_session_in_eth_is_paid_to_the_last_wei(chain: Chain, rpc: JsonRpc) -> None:
    """What the renter lost is gas and what the market owes host and treasury, who withdraw all of it: the market is empty again."""
    async with real_market(chain, rpc, 10**18, min_deposit_native=BaseUnits(10**12)) as world:
        before = await world.held(ZERO_ADDRESS)
        settings: dict[str, Any] = {"token": ZERO_ADDRESS, "bond": BaseUnits(1), "budget": BaseUnits(200 * 10**12)}
        async with world.market(**settings) as market:
            async with market.session(chain.model) as session:
                assert await gather(session.prompt("count 60")) == counting(60)
                [job] = session.jobs
                tokens, deposit = job.ledger.signed, job.ledger.deposit
            assert deposit > 50 * 10**12, "topped up"
            assert await world.held(ZERO_ADDRESS) == before + deposit
            spent = await coins(rpc, WALLET.address)
            await world.settle(world.hosts[0])
            [settled] = await market.settle()
        owed = cost(tokens, WEI_PRICE)
        assert settled.owed == owed
        assert await coins(rpc, WALLET.address) == spent + deposit - owed
        assert await world.owed(HOST_KEY.address, ZERO_ADDRESS) == owed - fee_of(owed)
        assert await world.held(ZERO_ADDRESS) == before + owed
        poor = Address(b"\x77" * 20)
        await world.chain.clients[HOST_KEY.address].withdraw("withdraw", ZERO_ADDRESS, poor)
        assert await coins(rpc, poor) == owed - fee_of(owed)
        assert await world.held(ZERO_ADDRESS) == before + fee_of(owed)


async def test_a_renter_without_a_wei_rents_through_the_host(chain: Chain, rpc: JsonRpc) -> None:
    """Opened and topped up by the host; the renter never sent a transaction, and pays in USDC what it signed for."""
    async with real_market(chain, rpc, 0, relayed_from=BaseUnits(1)) as world:
        async with world.market(relays=world, relay=True, budget=BaseUnits(200)) as market:
            async with market.session(chain.model) as session:
                assert await gather(session.prompt("count 60")) == counting(60)
                tokens = session.jobs[0].ledger.signed
            await world.settle(world.hosts[0])
            [settled] = await market.settle()
        assert world.relayed[0].startswith("open") and len(world.relayed) > 1
        assert (await coins(rpc, WALLET.address), await nonce(rpc, WALLET.address)) == (0, 0)
        assert settled.owed == cost(tokens, PricePerMTok(1_000_000))
        assert await world.of(WALLET.address, chain.info.usdc) == 10_000_000 - settled.owed


async def test_a_delegate_spends_within_its_budget_and_not_beyond(chain: Chain, rpc: JsonRpc) -> None:
    """Opens and tops up for its principal, which gets the rest; above the budget, once it expired or was revoked, nothing."""
    usdc = chain.info.usdc
    delegated: dict[str, Any] = {"wallet": STRANGER, "principal": WALLET.address}
    async with real_market(chain, rpc, 10**18) as world:
        wallet = world.chain.clients[WALLET.address]
        mine = Delegates(wallet, MemoryJournal(), world.clock)
        until, _ = await mine.name(STRANGER.address, usdc, BaseUnits(120), DAY)
        async with world.market(MemoryJournal(), budget=BaseUnits(200), **delegated) as market:
            async with market.session(chain.model) as session:
                assert await gather(session.prompt("count 60")) == counting(60)
                [job] = session.jobs
                assert job.ledger.terms.renter == WALLET.address and job.ledger.deposit == 100, "50, and 50 more"
            left = await wallet.delegate_budget(WALLET.address, STRANGER.address, usdc)
            assert (left.left, left.until) == (20, until)
            await world.settle(world.hosts[0])
            [settled] = await market.settle()
        assert await world.of(WALLET.address, usdc) == 10_000_000 - settled.owed

        assert "OverBudget" in await refusal(world, chain, delegated)
        await mine.name(STRANGER.address, usdc, BaseUnits(1_000), DAY)
        await mine.revoke(STRANGER.address, usdc)
        assert "OverBudget" in await refusal(world, chain, delegated)
        await mine.name(STRANGER.address, usdc, BaseUnits(1_000), DAY)
        await DevnetControl(rpc).advance(DAY)
        assert "DelegationExpired" in await refusal(world, chain, delegated)
        assert await world.of(WALLET.address, usdc) == 10_000_000 - settled.owed


async def refusal(world: RealWorld, chain: Chain, delegated: dict[str, Any]) -> str:
    """What the contract says to a delegate that wants to open a job of 50 base units."""
    async with world.market(MemoryJournal(), budget=BaseUnits(200), **delegated) as market:
        session = await market.start_session(chain.model)
        with pytest.raises(FabstirError, match="chain_reverted") as refused:
            await session.connect()
        return refused.value.detail
