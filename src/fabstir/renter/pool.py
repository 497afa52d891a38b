"""Sessions that are kept for whoever asks next: what the gateway serves its requests with.

One session, and so one job and one connection, serves many requests one after the other; several serve them at the same
time, up to a limit. Each request brings its whole conversation; it gets the idle session that holds that conversation
already, else any idle one, else a new one. All of them pay from one purse. Never mixes two conversations: whatever a
session held before is replaced before the question is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import ModelId
from fabstir.domain.money import BaseUnits
from fabstir.renter.access import Context
from fabstir.renter.market import Market
from fabstir.renter.purse import PARTS, Purse
from fabstir.renter.session import Session

DEFAULT_LIMIT: Final = 8


class Pool:
    """The sessions of one gateway. Memory: `limit` sessions with their conversations."""

    def __init__(self, market: Market, budget: BaseUnits | None = None, limit: int = DEFAULT_LIMIT) -> None:
        self.market: Final = market
        parts = limit + PARTS - 1  # room for a job of each session, and to move on with
        self.purse: Final = Purse(market.settings.budget if budget is None else budget, parts)
        self._limit = limit
        self._idle: list[Session] = []
        """The one that was used last comes last."""
        self._busy: set[Session] = set()
        self._at_work = 0
        """Requests that have a place, those that are still looking for a session included."""
        self._places = asyncio.Semaphore(limit)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Pool {len(self._busy)} busy, {len(self._idle)} idle of {self._limit}, {self.purse!r}>"

    @property
    def busy(self) -> int:
        """Requests at work."""
        return len(self._busy)

    @property
    def idle(self) -> int:
        """Sessions that wait for a request."""
        return len(self._idle)

    @asynccontextmanager
    async def session(self, model: str, conversation: Context) -> AsyncIterator[Session]:
        """A session that holds `conversation`, for one request; waits while `limit` of them are at work.

        Raises as `Market.start_session`.
        """
        async with self._places:
            if self._closed:
                raise error("draining", "the gateway shuts down")
            self._at_work += 1
            try:
                session = await self._find(await self.market.resolve(model), conversation)
                self._busy.add(session)
                try:
                    yield session
                finally:
                    self._busy.discard(session)
                    self._idle.append(session)
            finally:
                self._at_work -= 1

    async def close(self) -> None:
        """End every session and let the hosts settle. Requests at work are cut off. Idempotent."""
        self._closed = True
        sessions, self._idle = [*self._idle, *self._busy], []
        await asyncio.gather(*(session.close() for session in sessions))

    async def _find(self, model: ModelId, conversation: Context) -> Session:
        session = next(
            (one for one in reversed(self._idle) if (one.model, one.conversation) == (model, conversation)), None
        )
        session = session or next((one for one in reversed(self._idle) if one.model == model), None)
        if session is None:
            if len(self._idle) + self._at_work > self._limit:
                await self._idle.pop(0).close()  # the one of another model that has waited longest
            return await self.market.start_session(model, context=conversation, purse=self.purse)
        self._idle.remove(session)
        if session.conversation != conversation:
            await session.rebase(conversation)
        return session
