"""What happens to the jobs of a chain in memory, told as it happens: `fabstir.ports.chain.MarketEvents`.

Derived from the jobs before and after a transaction, so that it cannot say what did not happen. What the contract says
in two logs of one transaction (a dispute that is answered and thereby decided) is told once, as `decided`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from fabstir.domain.ids import JobId
from fabstir.domain.terms import ClaimStage, JobState
from fabstir.ports.chain import JobEvent, JobNews
from fabstir.protocol.settlement_disputes import UNDECIDED
from fabstir.protocol.settlement_state import Account

_STAGES = {
    ClaimStage.CLAIMED: JobNews.CLAIMED,
    ClaimStage.DISPUTED: JobNews.DISPUTED,
    ClaimStage.ANSWERED: JobNews.ANSWERED,
}


def news_between(before: Mapping[JobId, Account], after: Mapping[JobId, Account], block: int) -> list[JobEvent]:
    """What one transaction in `block` did to jobs that were there."""
    changed = [(job, account) for job, account in before.items() if after[job] is not account]
    return [JobEvent(job, news, block) for job, account in changed for news in _news(account.state, after[job].state)]


def _news(before: JobState, after: JobState) -> Iterable[JobNews]:
    if before.closing_at != after.closing_at:
        yield JobNews.CLOSE_REQUESTED
    if before.deposit != after.deposit:
        yield JobNews.TOPPED_UP
    if before.stage is not after.stage and before.stage in UNDECIDED and after.stage not in UNDECIDED:
        yield JobNews.DECIDED
    elif before.stage is not after.stage and after.stage in _STAGES:
        yield _STAGES[after.stage]
    if before.closed != after.closed:
        yield JobNews.CLOSED


class MemoryEvents:
    """Of one chain. Memory: every event, for ever."""

    def __init__(self, check_reachable: Callable[[], None]) -> None:
        self._check_reachable = check_reachable
        self._told: list[JobEvent] = []
        self._watchers: list[Callable[[JobEvent], None]] = []

    def __repr__(self) -> str:
        return f"<MemoryEvents {len(self._told)} told, {len(self._watchers)} watching>"

    def tell(self, events: Iterable[JobEvent]) -> None:
        """They happened."""
        for event in events:
            self._told.append(event)
            for take in self._watchers:
                take(event)

    async def watch(self, start: int, take: Callable[[JobEvent], None]) -> None:
        """See the port. Raises `chain_unreachable` at the beginning only."""
        self._check_reachable()
        for event in [event for event in self._told if event.block >= start]:
            take(event)
        self._watchers.append(take)
        try:
            await asyncio.Event().wait()
        finally:
            self._watchers.remove(take)
