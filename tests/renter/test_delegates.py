"""Jobs that a delegate opens out of a renter's wallet: within its budget, no longer than it runs, and never the renter's rights."""

from __future__ import annotations

from typing import Any

import pytest
from tests.renter.money_world import MoneyWorld, money_world
from tests.renter.test_failover import gather
from tests.renter.world import MODEL, STRANGER, WALLET, counting

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.money import BaseUnits, cost
from fabstir.protocol.signing import SigningKey
from fabstir.renter.delegates import Delegates
from fabstir.renter.settling import Stage
from fabstir.testing.chain import INFO
from fabstir.testing.journal import MemoryJournal

DELEGATE, OTHER = STRANGER, SigningKey(b"\x23" * 32)
DAY = 86_400
DELEGATED: dict[str, Any] = {"wallet": DELEGATE, "principal": WALLET.address}


def delegates(world: MoneyWorld, journal: MemoryJournal | None = None) -> Delegates:
    return Delegates(world.memory.connect(WALLET.address), journal or world.journal, world.clock)


def budget(world: MoneyWorld, account: SigningKey = DELEGATE) -> int:
    left, until = world.memory.ledger.budgets.get((WALLET.address, account.address, INFO.usdc), (0, 0))
    return left if until > world.clock.now() else 0


def allowance(world: MoneyWorld) -> int:
    return world.memory.ledger.allowances.get((INFO.usdc, WALLET.address, INFO.delegation), 0)


async def test_a_delegate_spends_its_principals_money_and_the_rest_goes_back_to_it() -> None:
    """Opened and topped up by `Delegation`; the delegate holds nothing before and after."""
    async with money_world(1_000_000, min_deposit=BaseUnits(1)) as world:
        await delegates(world).name(DELEGATE.address, INFO.usdc, BaseUnits(500), DAY)
        before = world.memory.supply()
        journal = MemoryJournal()
        async with world.market(journal, budget=BaseUnits(200), **DELEGATED) as market:
            async with market.session(MODEL) as session:
                assert await gather(session.prompt("count 60")) == counting(60)
                [job] = session.jobs
                assert (job.ledger.terms.renter, job.ledger.terms.opener) == (WALLET.address, INFO.delegation)
                assert job.ledger.deposit > 50, "topped up"
                assert budget(world) == 500 - job.ledger.deposit
                tokens = job.ledger.signed
            await world.settle(world.hosts[0])
            [settled] = await market.settle()
        assert settled.owed == cost(tokens, world.hosts[0].settings.price)
        assert world.holds(WALLET.address) == 10_000_000 - settled.owed
        assert world.holds(DELEGATE.address) == 0
        assert world.memory.supply() == before


@pytest.mark.parametrize("case", ["above", "expired", "revoked", "never named"])
async def test_a_delegate_cannot_spend_what_it_was_not_given(case: str) -> None:
    """More than the budget, later than it runs, after it was taken back: refused by the contract, named, nothing is taken."""
    words = {"expired": "DelegationExpired"}.get(case, "OverBudget")
    async with money_world(200_000) as world:
        mine = delegates(world)
        if case != "never named":
            await mine.name(DELEGATE.address, INFO.usdc, BaseUnits(20_000 if case == "above" else 500_000), DAY)
        if case == "expired":
            await world.clock.advance(DAY)
        if case == "revoked":
            await mine.revoke(DELEGATE.address, INFO.usdc)
        async with world.market(MemoryJournal(), budget=BaseUnits(100_000), **DELEGATED) as market:
            session = await market.start_session(MODEL)
            with pytest.raises(FabstirError, match=f"chain_reverted.*{words}.*Ask the principal"):
                await session.connect()
            assert session.budget_left == 100_000
        assert world.holds(WALLET.address) == 10_000_000


async def test_what_is_the_principals_alone_is_named() -> None:
    """A delegate may not ask to close: its principal does, with its own key. With the host's consent it closes at once."""
    async with money_world(200_000) as world:
        await delegates(world).name(DELEGATE.address, INFO.usdc, BaseUnits(500_000), DAY)
        async with world.market(MemoryJournal(), budget=BaseUnits(100_000), **DELEGATED) as market:
            session = await market.start_session(MODEL)
            assert await gather(session.prompt("hi")) == "You said: hi"
            with pytest.raises(FabstirError, match="principal_only"):
                await session.settlements(reclaim=True)
            await session.close()
            [settled] = await session.settlements(reclaim=True)
            assert settled.stage is Stage.SETTLED
            assert world.holds(WALLET.address) == 10_000_000 - settled.owed


async def test_one_job_that_is_the_principals_holds_up_no_other() -> None:
    """A wallet that was a delegate once: its own deposit comes back, and then it is told about the other one."""
    async with money_world(200_000) as world:
        await delegates(world).name(DELEGATE.address, INFO.usdc, BaseUnits(500_000), DAY)
        world.memory.mint(DELEGATE.address, 1_000_000)
        journal = MemoryJournal()
        for settings in (DELEGATED, {"wallet": DELEGATE}):
            async with world.market(journal, budget=BaseUnits(100_000), **settings) as market:
                await (await market.start_session(MODEL)).connect()
        async with world.market(journal, wallet=DELEGATE) as market:
            ours = [job for job in market.unsettled if job.ledger.terms.renter == DELEGATE.address]
            with pytest.raises(FabstirError, match="principal_only"):
                await market.settle(reclaim=True)
            assert len(market.unsettled) == 2
            state = await world.memory.connect(DELEGATE.address).job(ours[0].id)
            assert state.closing_at > 0


async def test_the_allowance_is_what_all_live_budgets_leave() -> None:
    """So a budget can be used, and the contract can take nothing beyond all of them."""
    async with money_world(200_000) as world:
        mine = delegates(world)
        await mine.name(DELEGATE.address, INFO.usdc, BaseUnits(500_000), DAY)
        await mine.name(OTHER.address, INFO.usdc, BaseUnits(300_000), 2 * DAY)
        assert allowance(world) == 800_000
        await mine.name(DELEGATE.address, INFO.usdc, BaseUnits(100_000), DAY)
        assert allowance(world) == 400_000
        await world.clock.advance(DAY)
        assert [(one.account, one.left, one.live) for one in await mine.known()] == [
            (DELEGATE.address, 100_000, False),
            (OTHER.address, 300_000, True),
        ]
        await mine.name(DELEGATE.address, INFO.usdc, BaseUnits(50_000), DAY)
        assert allowance(world) == 350_000
        await mine.revoke(OTHER.address, INFO.usdc)
        assert (allowance(world), budget(world), budget(world, OTHER)) == (50_000, 50_000, 0)
        await mine.name(OTHER.address, INFO.usdc, BaseUnits(1_000), 3 * DAY)
        await world.clock.advance(DAY)
        await mine.revoke(OTHER.address, INFO.usdc)
        assert allowance(world) == 0, "what is over is not counted, spent or not"


async def test_a_budget_that_means_nothing_is_refused() -> None:
    """Nobody, oneself, ETH, nothing, no time: before a transaction is sent."""
    async with money_world(200_000) as world:
        mine = delegates(world)
        for who, token, amount, seconds in (
            (ZERO_ADDRESS, INFO.usdc, 1, DAY),
            (WALLET.address, INFO.usdc, 1, DAY),
            (DELEGATE.address, ZERO_ADDRESS, 1, DAY),
            (DELEGATE.address, INFO.usdc, 0, DAY),
            (DELEGATE.address, INFO.usdc, 2**96, DAY),
            (DELEGATE.address, INFO.usdc, 1, 0),
        ):
            with pytest.raises(FabstirError, match="request_invalid"):
                await mine.name(who, token, BaseUnits(amount), seconds)
        assert await mine.known() == ()


async def test_a_delegate_pays_with_tokens_and_without_signed_transfers() -> None:
    """ETH cannot be pulled from anybody, and only the owner's key signs a transfer: `config_invalid` at once."""
    async with money_world(200_000) as world:
        for wrong in ({"token": ZERO_ADDRESS}, {"authorize": True}):
            with pytest.raises(FabstirError, match="config_invalid"):
                world.market(**DELEGATED, **wrong)
