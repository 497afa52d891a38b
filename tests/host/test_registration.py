"""Registration: stake and registry say what they should, at the price of one transaction, and of none where they do already."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest
from tests.host.table_chain import HOST, MIN_STAKE, USDC, TableChain
from tests.host.world import MODEL

from fabstir.domain.ids import ZERO_ADDRESS, Hash32
from fabstir.domain.money import BaseUnits, PricePerMTok
from fabstir.host.registration import Registration
from fabstir.ports.chain import NO_KEY, MarketChain, RegisteredOffer, StakeState
from fabstir.testing.chain import MemoryChain
from fabstir.testing.clock import ManualClock

ONE, TWO = "http://127.0.0.1:1", "http://127.0.0.1:2"
KEY = Hash32(b"\x5e" * 32)


def _offers(price: int = 5) -> tuple[RegisteredOffer, ...]:
    return (RegisteredOffer(MODEL, USDC, PricePerMTok(price)),)


def _registration(
    chain: object,
    url: str = ONE,
    offers: tuple[RegisteredOffer, ...] | None = None,
    *,
    clock: ManualClock | None = None,
    stake: int = 0,
    key: Hash32 = NO_KEY,
) -> Registration:
    return Registration(
        cast(MarketChain, chain),
        clock or ManualClock(),
        url,
        _offers() if offers is None else offers,
        stake=BaseUnits(stake),
        encryption_key=key,
    )


def _bare(staked: int = 0, unstaking: int = 0) -> TableChain:
    chain = TableChain()
    chain.held = StakeState(staked=BaseUnits(staked), unstaking=BaseUnits(unstaking))
    return chain


async def _until_it_waits(registration: Registration, clock: ManualClock) -> None:
    """Run until it says what is wrong, then stop it, as a process that is ended."""
    running = asyncio.create_task(registration.run())
    await clock.advance(0.5)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# -- the entry -------------------------------------------------------------------------------------------------------------


async def test_a_restart_with_the_same_values_sends_nothing() -> None:
    """The registry is read first."""
    chain = TableChain()
    for _ in range(3):
        registration = _registration(chain)
        await registration.run()
        assert registration.state == "ok"
    assert len(chain.sent) == 1


IN_COINS = RegisteredOffer(MODEL, ZERO_ADDRESS, PricePerMTok(9))


@pytest.mark.parametrize(
    "values",
    [
        [(ONE, _offers(), NO_KEY), (TWO, _offers(), NO_KEY)],
        [(ONE, _offers(5), NO_KEY), (ONE, _offers(6), NO_KEY)],
        [(ONE, _offers(), NO_KEY), (ONE, (*_offers(), IN_COINS), NO_KEY)],
        [(ONE, _offers(), NO_KEY), (ONE, _offers(), KEY)],
    ],
    ids=["url", "price", "currency", "encryption key"],
)
async def test_every_change_is_sent_also_the_way_back(
    values: list[tuple[str, tuple[RegisteredOffer, ...], Hash32]],
) -> None:
    """Back and forth, three times: what is asked for last stands in the registry."""
    chain = TableChain()
    for url, offers, key in values * 3:
        await _registration(chain, url, offers, key=key).run()
        entry = chain.entries[HOST.address]
        assert (entry.url, entry.offers, entry.encryption_key) == (url, offers, key)
    assert len(chain.sent) == 6


async def test_a_host_that_was_unregistered_registers_again() -> None:
    """An inactive entry is as good as none."""
    chain = TableChain()
    await _registration(chain).run()
    chain.entries[HOST.address] = msgspec.structs.replace(chain.entries[HOST.address], active=False)
    await _registration(chain).run()
    assert chain.entries[HOST.address].active and len(chain.sent) == 2


async def test_a_crash_between_sending_and_seeing_repeats_the_same_intent() -> None:
    """The key is the same, so the outbox sends nothing twice."""
    chain = TableChain()
    await _registration(chain).run()
    (key,) = chain.sent
    del chain.entries[HOST.address]  # sent, but not mined when the next process reads the registry
    registration = _registration(chain)
    assert await registration._entry() is None
    assert registration._key(None, 0) == key


async def test_an_unreachable_chain_is_waited_out() -> None:
    """The reason stands in `state` meanwhile; it works as soon as the chain does."""
    chain, clock = TableChain(), ManualClock()
    chain.reachable = False
    registration = _registration(chain, clock=clock)
    running = asyncio.create_task(registration.run())
    await clock.advance(30)
    assert "chain_unreachable" in registration.state and not running.done()
    chain.reachable = True
    await clock.advance(60)
    await running
    assert registration.state == "ok"


# -- the stake -------------------------------------------------------------------------------------------------------------


async def test_the_stake_is_topped_up_once_also_across_restarts() -> None:
    """What is missing to the setting, and no more; a process that starts again finds it there."""
    chain = _bare(staked=30_000_000)
    for _ in range(3):
        await _registration(chain, stake=MIN_STAKE + 5).run()
        assert (chain.held.staked, chain.allowed) == (MIN_STAKE + 5, 0)
    assert sum(key.startswith("stake:") for key in chain.sent) == 2  # an approval and a stake


@pytest.mark.parametrize("survives", ["nothing", "approval", "stake"])
async def test_a_death_while_staking_does_not_stake_twice(survives: str) -> None:
    """Whichever of the two transactions was mined before, the next process sends what is missing."""
    chain, clock = _bare(), ManualClock()
    registration = _registration(chain, clock=clock, stake=MIN_STAKE)
    if survives == "approval":
        await chain.approve_stake(f"stake:0:{MIN_STAKE}:0:approve", MIN_STAKE)
    if survives == "stake":
        await chain.approve_stake(f"stake:0:{MIN_STAKE}:0:approve", MIN_STAKE)
        await chain.add_stake(f"stake:0:{MIN_STAKE}:0", MIN_STAKE)
    await registration.run()
    assert (chain.held.staked, chain.allowed, registration.state) == (MIN_STAKE, 0, "ok")


async def test_the_same_loss_twice_is_replaced_twice() -> None:
    """The second top-up of the same amount is an intent of its own."""
    chain = _bare(staked=MIN_STAKE)
    for _ in range(2):
        chain.held = StakeState(staked=BaseUnits(MIN_STAKE - 10))
        await _registration(chain, stake=MIN_STAKE).run()
        assert chain.held.staked == MIN_STAKE


@pytest.mark.parametrize("setting", [0, MIN_STAKE - 1], ids=["left alone", "set too low"])
async def test_a_missing_stake_is_named(setting: int) -> None:
    """`stake_missing` with both figures, and nothing is registered."""
    chain, clock = _bare(staked=setting), ManualClock()
    registration = _registration(chain, clock=clock, stake=setting)
    await _until_it_waits(registration, clock)
    assert "stake_missing" in registration.state
    assert str(setting) in registration.state and str(MIN_STAKE) in registration.state
    assert chain.entries == {} and chain.sent == {}


async def test_a_stake_that_is_asked_back_does_not_count() -> None:
    """The registry does not count it either."""
    chain, clock = _bare(staked=MIN_STAKE, unstaking=1), ManualClock()
    registration = _registration(chain, clock=clock)
    await _until_it_waits(registration, clock)
    assert "stake_missing" in registration.state and chain.sent == {}
    await _registration(chain, stake=MIN_STAKE).run()
    assert chain.held.staked == MIN_STAKE + 1


async def test_a_stake_that_comes_later_is_taken_up() -> None:
    """Somebody else staked for the host: it registers without a restart."""
    chain, clock = _bare(), ManualClock()
    registration = _registration(chain, clock=clock)
    running = asyncio.create_task(registration.run())
    await clock.advance(5)
    assert "stake_missing" in registration.state
    chain.held = StakeState(staked=MIN_STAKE)
    await clock.advance(60)
    await running
    assert registration.state == "ok" and HOST.address in chain.entries


async def test_a_host_that_lost_stake_is_listed_again_after_it_topped_up() -> None:
    """On the whole market in memory: without the stake nobody finds it, its next start makes up for the loss."""
    chain = MemoryChain()
    chain.approve_model(MODEL)
    chain.mint(HOST.address, 2 * MIN_STAKE)
    host = chain.connect(HOST.address)
    await _registration(host, stake=MIN_STAKE).run()
    assert [entry.address for entry in await host.hosts(MODEL)] == [HOST.address]
    chain.give_stake(HOST.address, -10_000_000)
    assert await host.hosts(MODEL) == []
    await _registration(host, stake=MIN_STAKE).run()
    assert [entry.address for entry in await host.hosts(MODEL)] == [HOST.address]
    assert (await host.stake(HOST.address)).staked == MIN_STAKE
    assert await host.balance(chain.info.usdc, HOST.address) == MIN_STAKE - 10_000_000
