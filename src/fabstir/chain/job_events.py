"""The market's events as those who must act see them. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fabstir.chain import bindings
from fabstir.chain.follower import Followed
from fabstir.chain.market import MarketClient
from fabstir.domain.ids import JobId
from fabstir.ports.chain import JobEvent, JobNews

_NEWS: Final[dict[type, JobNews]] = {
    bindings.CloseRequested: JobNews.CLOSE_REQUESTED,
    bindings.JobClosed: JobNews.CLOSED,
    bindings.JobToppedUp: JobNews.TOPPED_UP,
    bindings.ClaimHeld: JobNews.CLAIMED,
    bindings.ClaimDisputed: JobNews.DISPUTED,
    bindings.ClaimAnswered: JobNews.ANSWERED,
    bindings.ClaimPaid: JobNews.DECIDED,
    bindings.ClaimLost: JobNews.DECIDED,
}
POLL_SECONDS: Final = 6.0
"""Three requests each. The shortest window to act in is 900 s, so that every block of Base (2 s) would cost more than it gives."""


class JobEvents:
    """`fabstir.ports.chain.MarketEvents` of one market."""

    def __init__(self, client: MarketClient, poll: float = POLL_SECONDS) -> None:
        self._client = client
        self._poll = poll

    def __repr__(self) -> str:
        return f"<JobEvents of {self._client!r}>"

    async def watch(self, start: int, take: Callable[[JobEvent], None]) -> None:
        """See the port."""

        async def consume(batch: list[Followed[Any]]) -> None:
            for followed in batch:
                news = _NEWS.get(type(followed.event))
                if news is not None:
                    job = JobId(bytes(followed.event.id))
                    take(JobEvent(job, news, followed.block, followed.removed))

        await self._client.follow(start, poll=self._poll).run(consume)
