"""The watchtower: only our jobs, whatever happens to them; a chain that cannot be followed is tried again; and a running host that is
waked by the chain does not wait for its own round."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs
from tests.host.settler_world import World
from tests.host.world import eventually

from fabstir.domain.errors import ChainFault, error
from fabstir.domain.ids import JobId
from fabstir.domain.money import Tokens
from fabstir.domain.terms import ClaimStage, ProofPolicy
from fabstir.host.watchtower import RETRY_SECONDS, Watchtower
from fabstir.ports.chain import JobEvent, JobNews
from fabstir.testing.chain import MemoryChain
from fabstir.testing.clock import ManualClock

OURS, THEIRS = JobId(b"\x01" * 32), JobId(b"\x02" * 32)


class Feed:
    """`MarketEvents` that a test speaks through; can be broken."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.fault: ChainFault | None = None
        self._take: Callable[[JobEvent], None] | None = None
        self._broken = asyncio.Event()

    async def watch(self, start: int, take: Callable[[JobEvent], None]) -> None:
        self.starts.append(start)
        if self.fault is not None:
            raise self.fault
        self._take, self._broken = take, asyncio.Event()
        await self._broken.wait()
        raise error("chain_failed", "the endpoint lost its logs")

    def say(self, job: JobId, news: JobNews, *, removed: bool = False) -> None:
        assert self._take is not None
        self._take(JobEvent(job, news, 12, removed))

    def break_off(self) -> None:
        self._broken.set()


class Tower:
    """A watchtower at work over a feed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.chain = MemoryChain(self.clock)
        self.feed = Feed()
        self.wakes = 0
        self.watchtower = Watchtower(
            self.chain.connect(self.chain.info.market),
            self.feed,
            clock=self.clock,
            ours=lambda job: job == OURS,
            wake=self._wake,
        )

    def _wake(self) -> None:
        self.wakes += 1

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[Tower]:
        task = asyncio.create_task(self.watchtower.run())
        try:
            await eventually(lambda: bool(self.feed.starts) or self.clock.sleepers > 0)
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_it_begins_at_the_newest_block_and_wakes_the_settler_there() -> None:
    """What happened between the settler's first look and that block is looked at, too."""
    tower = Tower()
    tower.chain.mine(6)
    async with tower.at_work():
        assert (tower.feed.starts, tower.wakes) == ([7], 1)


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("news", JobNews)
async def test_whatever_happens_to_our_jobs_wakes_the_settler(news: JobNews, removed: bool) -> None:
    """A reorganisation that takes it back, too: the contract says something else then."""
    async with Tower().at_work() as tower:
        with capture_logs() as logged:
            tower.feed.say(OURS, news, removed=removed)
        assert (tower.wakes, tower.watchtower.seen, tower.watchtower.block) == (2, 1, 12)
        urgent = news in (JobNews.CLOSE_REQUESTED, JobNews.DISPUTED) and not removed
        assert [told["event"] for told in logged] == ["job_needs_care"] * urgent


async def test_other_hosts_jobs_are_nothing_to_us() -> None:
    """The market has one log for all of them."""
    async with Tower().at_work() as tower:
        for news in JobNews:
            tower.feed.say(THEIRS, news)
        assert (tower.wakes, tower.watchtower.seen) == (1, 0)


async def test_a_chain_that_cannot_be_followed_is_tried_again_and_told() -> None:
    """Each time; and when it is back the settler looks, because nothing was seen meanwhile."""
    tower = Tower()
    tower.chain.unreachable = True
    with capture_logs() as logged:
        async with tower.at_work():
            assert (tower.wakes, tower.feed.starts) == (0, [])
            assert "chain_unreachable" in tower.watchtower.problem
            await tower.clock.advance(RETRY_SECONDS)
            await eventually(lambda: len(logged) == 2)
            tower.chain.unreachable = False
            await tower.clock.advance(RETRY_SECONDS)
            await eventually(lambda: bool(tower.feed.starts))
            assert (tower.wakes, tower.watchtower.problem) == (1, "")
    assert [(told["event"], told["code"]) for told in logged] == [("watchtower_blind", "chain_unreachable")] * 2


async def test_a_feed_that_breaks_off_begins_anew() -> None:
    """At the block of then."""
    async with Tower().at_work() as tower:
        tower.feed.break_off()
        await eventually(lambda: tower.clock.sleepers > 0)
        assert "chain_failed" in tower.watchtower.problem
        tower.chain.mine(4)
        await tower.clock.advance(RETRY_SECONDS)
        await eventually(lambda: len(tower.feed.starts) == 2)
        assert (tower.feed.starts, tower.wakes, tower.watchtower.problem) == ([1, 5], 2, "")


# -- a running host ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(market: World) -> AsyncIterator[None]:
    """Settler and watchtower as a host runs them, when their first looks are done. The clock stands still: no round comes by itself."""
    tower = Watchtower(
        market.host,
        market.chain.events,
        clock=market.clock,
        ours=lambda job: market.book.get(job) is not None,
        wake=market.settler.wake,
    )
    tasks = [asyncio.create_task(market.settler.run()), asyncio.create_task(tower.run())]
    try:
        await eventually(lambda: market.settler.passes >= 2 and market.clock.sleepers > 0)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_close_that_is_requested_is_answered_within_one_event(restarted: bool) -> None:
    """The signed money is there and the job closed before any round of the settler: also by a process that has only the journal."""
    market = World()
    ledger = await market.job(served=100, signed=100, policy=ProofPolicy.FALLBACK, finished=False)
    if restarted:
        await market.restart()
    async with running(market):
        begun = market.clock.now()
        assert market.earned() == 0
        await market.renter.request_close("request", ledger.terms)
        await eventually(lambda: market.book.get(ledger.job) is None)
        assert (market.earned(), market.clock.now()) == (ledger.amount(Tokens(100)), begun)
        assert market.told[-1] == ledger.job


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_dispute_is_answered_within_one_event(restarted: bool) -> None:
    """Silence would cost the tail and a part of the stake."""
    market = World()
    ledger = await market.job(served=140, signed=100, policy=ProofPolicy.FALLBACK)
    await market.settle()
    assert (await market.state(ledger)).stage is ClaimStage.CLAIMED
    if restarted:
        await market.restart()
    async with running(market):
        begun = market.clock.now()
        await market.dispute(ledger)
        await eventually(lambda: market.book.get(ledger.job) is None)
        assert (market.earned(), market.clock.now()) == (ledger.amount(Tokens(140)), begun)


async def test_a_dispute_while_the_host_was_down_is_answered_at_its_start() -> None:
    """No event tells it: the settler's first look does."""
    market = World()
    ledger = await market.job(served=140, signed=100, policy=ProofPolicy.FALLBACK)
    await market.settle()
    await market.dispute(ledger)
    await market.restart()
    async with running(market):
        assert market.book.get(ledger.job) is None
        assert market.earned() == ledger.amount(Tokens(140))
