"""The market's hosts as a renter sees them: asked at the same time, remembered for a while, named with care."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from tests.market.test_choice import MODEL, ORDER, OTHER, USDC, account, candidate

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ModelId, to_hex
from fabstir.domain.money import PricePerMTok
from fabstir.market.hosts import Directory
from fabstir.ports.chain import HostEntry, MarketChain
from fabstir.protocol.offer import ModelOffer, Offer, TokenPrice
from fabstir.testing.clock import ManualClock


class Registry:
    """Of the chain its list of hosts; of each host its offer."""

    def __init__(self, count: int) -> None:
        self.offers = {f"http://{n}.example": cast(Offer, candidate(n).offer) for n in range(1, count + 1)}
        self.entries = [candidate(n).entry for n in range(1, count + 1)]
        self.asked: list[str] = []
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        self.reads += 1
        return list(self.entries)

    async def fetch(self, url: str) -> Offer:
        self.asked.append(url)
        await self.open.wait()
        if url not in self.offers:
            raise error("host_unreachable", "GET /v1/offer: ClientConnectorError")
        return self.offers[url]

    def directory(self, clock: ManualClock) -> Directory:
        return Directory(cast(MarketChain, self), self, clock)


async def test_all_hosts_are_asked_at_the_same_time() -> None:
    """One that does not answer delays nobody but itself, and is in the list with its reason."""
    registry = Registry(20)
    del registry.offers["http://7.example"]
    registry.open.clear()
    asking = asyncio.create_task(registry.directory(ManualClock()).candidates())
    while len(registry.asked) < 20:  # noqa: ASYNC110 - all of them, before one has answered
        await asyncio.sleep(0)
    registry.open.set()
    found = await asking
    assert [one.fault is None for one in found] == [n != 7 for n in range(1, 21)]


async def test_answers_are_remembered_for_a_while() -> None:
    """Choosing again asks nobody; after thirty seconds, or when told to, everybody is asked again."""
    registry, clock = Registry(2), ManualClock()
    directory = registry.directory(clock)
    for _ in range(3):
        assert len((await directory.choose(ORDER)).ranked) == 2
    assert (registry.reads, len(registry.asked)) == (1, 2)
    await directory.candidates(refresh=True)
    assert registry.reads == 2
    await clock.advance(30)
    await directory.candidates()
    assert registry.reads == 3


async def test_who_asks_while_others_are_being_asked_waits_for_the_same_answers() -> None:
    """One round for everybody."""
    registry = Registry(3)
    directory = registry.directory(ManualClock())
    await asyncio.gather(*(directory.choose(ORDER) for _ in range(5)))
    assert registry.reads == 1


async def test_a_failure_is_remembered_until_the_next_success() -> None:
    """The host goes to the end, and back."""
    directory = Registry(2).directory(ManualClock())
    first = (await directory.choose(ORDER)).ranked[0].offer.host
    directory.failed(first)
    assert (await directory.choose(ORDER)).ranked[-1].offer.host == first
    directory.worked(first)
    assert (await directory.choose(ORDER)).ranked[0].offer.host == first


async def test_a_model_is_found_by_its_name_and_by_its_id() -> None:
    """x"""
    registry = Registry(1)
    directory = registry.directory(ManualClock())
    assert await directory.resolve("m") == MODEL
    assert await directory.resolve(to_hex(OTHER)) == OTHER
    with pytest.raises(FabstirError, match="model_unavailable.*0x12"):
        await directory.resolve("0x12")


async def test_a_name_that_nobody_uses_is_looked_for_once_more() -> None:
    """A host may have come up since; then the names that there are help."""
    registry = Registry(1)
    directory = registry.directory(ManualClock())
    await directory.candidates()
    with pytest.raises(FabstirError, match="model_unavailable.*'n'; there is m"):
        await directory.resolve("n")
    assert registry.reads == 2
    registry.offers.clear()
    with pytest.raises(FabstirError, match="no_host"):
        await directory.resolve("n")


async def test_a_name_that_stands_for_two_models_is_refused() -> None:
    """A name is only a host's word: a cheap model must not be sold under the name of a good one."""
    registry = Registry(2)
    impostor = ModelOffer(name="m", model_id=OTHER, prices=(TokenPrice(USDC, PricePerMTok(1)),), context_size=4096)
    registry.offers["http://2.example"] = cast(Offer, candidate(2, models=(impostor,)).offer)
    with pytest.raises(FabstirError, match="request_invalid.*several models.*0x0101.*0x0202"):
        await registry.directory(ManualClock()).resolve("m")


async def test_repr_counts() -> None:
    """For whoever debugs a renter."""
    directory = Registry(2).directory(ManualClock())
    await directory.candidates()
    directory.failed(account(1))
    assert repr(directory) == "<Directory 2 hosts, 1 failed lately>"
