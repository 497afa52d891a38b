"""The market's news on a real chain and in memory: every kind, of the right job, and taken back where the chain takes it back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

import pytest
from tests.chain.playing import DEPOSIT, World, memory_world
from tests.chain.support import OTHER
from tests.chain.test_memory_claims import MANY, Claims

from fabstir.chain.devnet import DevnetControl
from fabstir.chain.job_events import JobEvents
from fabstir.chain.market import MarketClient
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import Terms
from fabstir.ports.chain import JobEvent, JobNews, MarketEvents
from fabstir.protocol.signing import job_id
from fabstir.testing.market import MemoryMarket

POLL = 0.05


class Watched:
    """What one watcher is told."""

    def __init__(self, events: MarketEvents, start: int) -> None:
        self._told: asyncio.Queue[JobEvent] = asyncio.Queue()
        self._task = asyncio.create_task(events.watch(start, self._told.put_nowait))

    async def next(self, count: int) -> list[JobEvent]:
        """The next so many."""
        async with asyncio.timeout(30):
            return [await self._told.get() for _ in range(count)]

    async def end(self) -> list[JobEvent]:
        """Stop; returns what was not asked for."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        return [self._told.get_nowait() for _ in range(self._told.qsize())]


async def _play(play: Claims) -> dict[str, Terms]:
    """Three jobs: ruled on by an arbiter after a top-up; answered without one, and closed after a request; contradicted."""
    renter, host, other = play.world.renter, play.world.host, play.world.other
    await play.note("approve", renter.approve(play.key(), renter.info.usdc, MANY))
    ruled = play.agree(b"events: ruled", arbiter=OTHER.address)
    await play.claimed("ruled", ruled)
    await play.note("top up", renter.top_up(play.key(), ruled, BaseUnits(5)))
    await play.note("dispute", renter.dispute(play.key(), ruled))
    await play.note("answer", host.answer_dispute(play.key(), ruled, play.opening(ruled)))
    await play.note("rule", other.rule(play.key(), ruled, True))
    closed = play.agree(b"events: closed")
    await play.claimed("closed", closed)
    await play.note("request close", renter.request_close(play.key(), closed))
    await play.note("close", host.close_by_host(play.key(), play.claim(0, terms=closed, by=None)))
    await play.note("dispute", renter.dispute(play.key(), closed))
    await play.note("answer", host.answer_dispute(play.key(), closed, play.opening(closed)))
    lost = play.agree(b"events: lost")
    await play.claimed("lost", lost)
    claim = play.claim(120, terms=lost)
    await play.note(
        "contradict", other.contradict(play.key(), lost, claim.amount, claim.tokens, play.host_signature(claim))
    )
    assert [event for event in play.events if ": ok |" not in event and "claim too early" not in event] == []
    return {"ruled": ruled, "closed": closed, "lost": lost}


EXPECTED = [
    *(("ruled", news) for news in (JobNews.CLAIMED, JobNews.TOPPED_UP, JobNews.DISPUTED, JobNews.ANSWERED, JobNews.DECIDED)),
    *(("closed", news) for news in (JobNews.CLAIMED, JobNews.CLOSE_REQUESTED, JobNews.CLOSED, JobNews.DISPUTED)),
    *(("closed", news) for news in (JobNews.ANSWERED, JobNews.DECIDED)),
    *(("lost", news) for news in (JobNews.CLAIMED, JobNews.DECIDED)),
]  # fmt: skip


def _named(told: list[JobEvent], jobs: dict[str, Terms]) -> list[tuple[str, JobNews]]:
    names: dict[JobId, str] = {job_id(terms): name for name, terms in jobs.items()}
    return [(names[event.job], event.news) for event in told]


def test_every_kind_of_news_is_expected() -> None:
    """A kind that is added is played here."""
    assert {news for _, news in EXPECTED} == set(JobNews)


@pytest.mark.real
async def test_every_kind_of_news_comes_from_the_contract(real_world: World) -> None:
    """In the chain's order, each once, in its block, and nothing of what the market says besides."""
    client = cast(MarketClient, real_world.host)
    start = await client.block_number() + 1
    jobs = await _play(Claims(real_world, await client.timestamp()))
    watched = Watched(JobEvents(client, poll=POLL), start)
    told = await watched.next(len(EXPECTED))
    assert _named(told, jobs) == EXPECTED
    assert [event.block for event in told] == sorted(event.block for event in told)
    assert start <= told[0].block and told[-1].block <= await client.block_number()
    assert not any(event.removed for event in told)
    assert await watched.end() == []


async def test_the_chain_in_memory_tells_the_same() -> None:
    """But for the answer that decides: there it is one piece of news."""
    world = memory_world()
    watched = Watched(cast(MemoryMarket, world.host)._chain.events, 0)
    await asyncio.sleep(0)
    jobs = await _play(Claims(world, await world.host.timestamp()))
    expected = [item for item in EXPECTED if item != ("closed", JobNews.ANSWERED)]
    assert _named(await watched.next(len(expected)), jobs) == expected
    again = Watched(cast(MemoryMarket, world.host)._chain.events, 0)
    assert _named(await again.next(len(expected)), jobs) == expected
    assert await watched.end() == await again.end() == []


@pytest.mark.real
async def test_what_a_reorganisation_takes_back_is_told(real_world: World, control: DevnetControl) -> None:
    """As removed: who acted on it must look again."""
    client = cast(MarketClient, real_world.host)
    play = Claims(real_world, await client.timestamp())
    terms = play.agree(b"events: orphaned")
    await play.note("approve", real_world.renter.approve(play.key(), client.info.usdc, MANY))
    await play.note("open", real_world.renter.open(play.key(), terms, DEPOSIT))
    await control.mine(3)
    watched = Watched(JobEvents(client, poll=POLL), await client.block_number() + 1)
    await play.note("request close", real_world.renter.request_close(play.key(), terms))
    (requested,) = await watched.next(1)
    assert requested == JobEvent(job_id(terms), JobNews.CLOSE_REQUESTED, requested.block)
    await control.reorg(1)
    (taken_back,) = await watched.next(1)
    assert taken_back == JobEvent(job_id(terms), JobNews.CLOSE_REQUESTED, requested.block, removed=True)
    await watched.end()
