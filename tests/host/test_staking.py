"""A host's stake by hand: raised to what is wanted, asked back, withdrawn; what stands against it is named before anything is sent."""

from __future__ import annotations

import msgspec
import pytest
from tests.host.table_chain import HOST

from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import Address
from fabstir.domain.money import BaseUnits
from fabstir.host.staking import Staking, utc
from fabstir.testing.chain import MIN_STAKE, MemoryChain
from fabstir.testing.clock import ManualClock

DELAY = 14 * 86_400


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def chain(clock: ManualClock) -> MemoryChain:
    """The host holds twice the minimum."""
    made = MemoryChain(clock)
    made.mint(HOST.address, 2 * MIN_STAKE)
    return made


@pytest.fixture
def staking(chain: MemoryChain) -> Staking:
    return Staking(chain.connect(HOST.address))


async def test_without_an_amount_the_minimum_is_staked(staking: Staking) -> None:
    """And it is enough afterwards; the rest stays with the account."""
    assert not (await staking.report()).enough
    assert await staking.raise_to(None) is not None
    found = await staking.report()
    assert (found.staked, found.kept, found.holds, found.enough) == (MIN_STAKE, MIN_STAKE, MIN_STAKE, True)


async def test_staking_again_stakes_nothing(staking: Staking) -> None:
    """An amount is what shall be staked altogether: a command that is repeated after a crash does not pay twice."""
    await staking.raise_to(BaseUnits(150_000_000))
    assert await staking.raise_to(BaseUnits(150_000_000)) is None
    assert await staking.raise_to(None) is None
    assert (await staking.report()).staked == 150_000_000


async def test_what_was_withdrawn_can_be_staked_again(staking: Staking, clock: ManualClock) -> None:
    """The same amounts a second time are a new intent, not the answer of the first."""
    for _ in range(2):
        assert await staking.raise_to(None) is not None
        await staking.ask_back(MIN_STAKE)
        await clock.advance(DELAY)
        assert (await staking.withdraw())[0] == MIN_STAKE
    assert (await staking.report()).holds == 2 * MIN_STAKE


async def test_too_little_balance_is_named(staking: Staking, chain: MemoryChain) -> None:
    """With what is missing and what is there; no allowance is given."""
    with pytest.raises(ChainFault) as refused:
        await staking.raise_to(BaseUnits(201_000_000))
    assert refused.value.code == "funds_insufficient"
    assert "201.000000 USDC are missing" in refused.value.detail and "200.000000 USDC" in refused.value.detail
    assert chain.ledger.allowances == {}


async def test_more_than_is_staked_cannot_be_asked_back(staking: Staking) -> None:
    """`stake_exceeded`, with both amounts."""
    await staking.raise_to(None)
    with pytest.raises(ChainFault, match="stake_exceeded"):
        await staking.ask_back(BaseUnits(MIN_STAKE + 1))


async def test_asking_the_same_again_does_not_begin_the_delay_anew(staking: Staking, clock: ManualClock) -> None:
    """Another amount does; 0 takes the request back."""
    await staking.raise_to(None)
    assert await staking.ask_back(BaseUnits(50_000_000)) is not None
    first = (await staking.report()).withdrawable_from
    await clock.advance(100)
    assert await staking.ask_back(BaseUnits(50_000_000)) is None
    assert (await staking.report()).withdrawable_from == first
    await staking.ask_back(BaseUnits(60_000_000))
    assert (await staking.report()).withdrawable_from == first + 100
    await staking.ask_back(BaseUnits(0))
    found = await staking.report()
    assert (found.asked_back, found.withdrawable_from, found.enough) == (0, 0, True)


async def test_nothing_leaves_before_the_delay(staking: Staking, clock: ManualClock) -> None:
    """`stake_locked` tells until when, to the second at which it works."""
    await staking.raise_to(None)
    await staking.ask_back(MIN_STAKE)
    allowed = (await staking.report()).withdrawable_from
    await clock.advance(DELAY - 1)
    with pytest.raises(ChainFault) as refused:
        await staking.withdraw()
    assert refused.value.code == "stake_locked"
    assert utc(allowed) in refused.value.detail and "delay" in refused.value.detail
    await clock.advance(1)
    somebody = Address(b"\x77" * 20)
    assert (await staking.withdraw(somebody))[0] == MIN_STAKE
    assert (await staking.report()).staked == 0


async def test_a_claim_that_can_be_disputed_holds_the_stake(
    staking: Staking, chain: MemoryChain, clock: ManualClock
) -> None:
    """The later of delay and lock counts."""
    await staking.raise_to(None)
    await staking.ask_back(MIN_STAKE)
    until = int(clock.now()) + DELAY + 500
    market = msgspec.structs.replace(chain.ledger.market, locked={HOST.address: until})
    chain.ledger = msgspec.structs.replace(chain.ledger, market=market)
    await clock.advance(DELAY)
    for seconds in (0, 500):  # the last second of the lock is the second one
        await clock.advance(seconds)
        with pytest.raises(ChainFault, match="stake_locked.*a claim can be disputed"):
            await staking.withdraw()
    await clock.advance(1)
    assert (await staking.withdraw())[0] == MIN_STAKE


async def test_without_a_request_nothing_can_be_withdrawn(staking: Staking) -> None:
    """`stake_not_requested`, and nothing is sent."""
    await staking.raise_to(None)
    with pytest.raises(ChainFault, match="stake_not_requested"):
        await staking.withdraw()
