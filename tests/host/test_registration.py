"""Registration: the registry says what it should, at the price of one transaction, and of none where it does already."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest
from tests.host.world import HOST, MODEL, TableChain

from fabstir.domain.money import PricePerMTok
from fabstir.host.registration import Registration
from fabstir.ports.chain import MarketChain
from fabstir.testing.clock import ManualClock

ONE, TWO = "http://127.0.0.1:1", "http://127.0.0.1:2"


def _registration(chain: TableChain, url: str = ONE, price: int = 5, clock: ManualClock | None = None) -> Registration:
    return Registration(cast(MarketChain, chain), clock or ManualClock(), url, ((MODEL, PricePerMTok(price)),))


async def test_a_restart_with_the_same_values_sends_nothing() -> None:
    """The registry is read first."""
    chain = TableChain()
    for _ in range(3):
        registration = _registration(chain)
        await registration.run()
        assert registration.state == "ok"
    assert len(chain.sent) == 1


@pytest.mark.parametrize("values", [[(ONE, 5), (TWO, 5)], [(ONE, 5), (ONE, 6)]], ids=["url", "price"])
async def test_every_change_is_sent_also_the_way_back(values: list[tuple[str, int]]) -> None:
    """Back and forth, twice: what is asked for last stands in the registry."""
    chain = TableChain()
    for url, price in values * 3:
        await _registration(chain, url, price).run()
        entry = chain.entries[HOST.address]
        assert (entry.url, entry.models) == (url, ((MODEL, price),))
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
    assert registration._key(await registration._entry(), 0) == key


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
