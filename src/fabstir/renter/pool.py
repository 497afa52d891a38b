"""Sessions for a gateway: each request gets one for itself, and they are used again.

So one deposit and one connection serve many requests. One purse pays for all of them. A request whose conversation
some idle session holds already gets that one (its host then has the prefix in its cache); else the session that
rested longest. At most `limit` requests at the same time; more wait their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import ModelId
from fabstir.domain.money import BaseUnits
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.market import Market
from fabstir.renter.purse import Purse
from fabstir.renter.session import Session


class SessionPool:
    """Memory: at most `limit` sessions for each model that was asked for, each with its last conversation."""

    def __init__(self, market: Market, budget: BaseUnits, limit: int) -> None:
        self._market = market
        self._purse: Final = Purse(budget)
        self._places = asyncio.Semaphore(limit)
        self._idle: dict[ModelId, list[Session]] = {}
        self._closed = False
        self.busy = 0
        """Requests that are being answered."""

    def __repr__(self) -> str:
        return f"<SessionPool {self.busy} busy, {sum(map(len, self._idle.values()))} idle, {self._purse!r}>"

    @asynccontextmanager
    async def session(self, model: str, conversation: tuple[ChatMessage, ...]) -> AsyncIterator[Session]:
        """A session of `model` that stands at `conversation`. Raises Refused (`no_host`, `draining`), ChainFault."""
        async with self._places:
            if self._closed:
                raise error("draining", "the gateway is shutting down")
            model_id = await self._market.resolve(model)
            session = self._take(model_id, conversation)
            if session is None:
                session = await self._market.start_session(model_id, purse=self._purse)
            self.busy += 1
            try:
                if session.conversation != conversation:
                    await session.rebase(conversation)
                yield session
            finally:
                self.busy -= 1
                self._idle.setdefault(model_id, []).append(session)

    def _take(self, model: ModelId, conversation: tuple[ChatMessage, ...]) -> Session | None:
        idle = self._idle.get(model, [])
        for place, session in enumerate(idle):
            if session.conversation == conversation:
                return idle.pop(place)
        return idle.pop(0) if idle else None

    async def close(self) -> None:
        """End every session; their hosts settle. Requests that still run are not waited for."""
        self._closed = True
        idle = [session for sessions in self._idle.values() for session in sessions]
        self._idle.clear()
        await asyncio.gather(*(session.close() for session in idle), return_exceptions=True)
