"""Watches the chain for what happens to this host's jobs, and wakes the settler at once: a close that is requested, a claim that is
disputed, a job that somebody else closed or topped up.

The settler looks at every job now and then by itself (`host.settle_interval_s`); the watchtower only makes it look sooner,
so nothing depends on its seeing everything. It begins at the block of its start, and wakes the settler there, at each
beginning anew: what happened before, or while nothing was seen, is not waited for. Decides nothing, sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import JobId
from fabstir.ports.chain import JobEvent, JobNews, MarketChain, MarketEvents
from fabstir.ports.clock import Clock

log = structlog.get_logger("fabstir.watchtower")

RETRY_SECONDS: Final = 15.0
URGENT: Final = (JobNews.CLOSE_REQUESTED, JobNews.DISPUTED)
"""Silence costs the host money."""


class Watchtower:
    """Of one host."""

    def __init__(
        self,
        chain: MarketChain,
        events: MarketEvents,
        *,
        clock: Clock,
        ours: Callable[[JobId], bool],
        wake: Callable[[], None],
    ) -> None:
        """`ours` says whether a job is in the book; `wake` makes the settler look."""
        self._chain = chain
        self._events = events
        self._clock = clock
        self._ours = ours
        self._wake = wake
        self.seen = 0
        """Events about our jobs."""
        self.block = 0
        """Of the last one."""
        self.problem = ""
        """Why nothing is seen; empty while it works."""

    def __repr__(self) -> str:
        return f"<Watchtower {self.seen} events, the last in block {self.block}>"

    async def run(self) -> None:
        """Until cancelled. Where the chain cannot be followed, it is tried again; the settler's own rounds go on."""
        while True:
            try:
                start = await self._chain.block_number()
                self.problem = ""
                self._wake()
                await self._events.watch(start, self._take)
            except ChainFault as fault:
                self.problem = str(fault)
                log.warning("watchtower_blind", code=fault.code, detail=fault.detail, retry_in_s=RETRY_SECONDS)
                await self._clock.sleep(RETRY_SECONDS)

    def _take(self, event: JobEvent) -> None:
        if not self._ours(event.job):
            return
        self.seen += 1
        self.block = event.block
        if event.news in URGENT and not event.removed:
            log.warning("job_needs_care", job_id=event.job, state=event.news.value, height=event.block)
        self._wake()
