"""Gives each request of a llama.cpp server a slot, and moves what was computed out of the way and back. See `slots` and `spill`.

At most as many requests are at the server as it has slots; others wait here in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from fabstir.domain.errors import FabstirError
from fabstir.engines.server_session import ServerSession
from fabstir.engines.slots import ALONE, SlotTable
from fabstir.engines.spill import SpillFolder

log = structlog.get_logger()


class Placing:
    """One request in its slot."""

    def __init__(self, slot: int, reuse: bool) -> None:
        self.slot = slot
        self.reuse = reuse
        """What lies in the slot is this session's own."""
        self.tokens = 0
        """Prompt and answer, once they are known."""
        self.whole = False
        """What lies there at the end is known to be this session's."""

    def fields(self) -> dict[str, Any]:
        """Of a request to the server."""
        return {"id_slot": self.slot, "cache_prompt": self.reuse}

    def begun(self) -> None:
        """The server works on the request: from now on, what lies in the slot is this session's. Not before: a request that was refused
        left there what somebody else said."""
        self.reuse = self.whole = True


class Places:
    """The slots of one server."""

    def __init__(self, server: ServerSession, count: int, spill: SpillFolder | None = None) -> None:
        self._server = server
        self._free = asyncio.Semaphore(count)
        self._table = SlotTable(count)
        self._spill = spill

    def __repr__(self) -> str:
        return f"<Places {self._table!r} {self._spill!r}>"

    @asynccontextmanager
    async def place(self, session: str) -> AsyncIterator[Placing]:
        """For one request of `session`; ALONE shares with nobody, not even with itself."""
        async with self._free:
            taken = self._table.take(session)
            placing = Placing(taken.slot.number, taken.own)
            try:
                if taken.displaced != ALONE:
                    await self._save(taken.slot.number, taken.displaced, taken.displaced_tokens)
                if not taken.own:
                    placing.reuse = await self._restore(taken.slot.number, session)
                yield placing
            finally:
                self._table.leave(taken.slot, placing.tokens, whole=placing.whole)

    async def _save(self, slot: int, session: str, tokens: int) -> None:
        if self._spill is None or tokens == 0 or (name := self._spill.name_for(session, tokens)) is None:
            return
        try:
            await self._act(slot, "save", name)
        except FabstirError as fault:
            self._spill.drop(session)
            log.warning("kv_spill_failed", code=fault.code)
        else:
            self._spill.written(session, tokens)

    async def _restore(self, slot: int, session: str) -> bool:
        if self._spill is None or (name := self._spill.name_of(session)) is None:
            return False
        try:
            await self._act(slot, "restore", name)
        except FabstirError as fault:
            log.warning("kv_restore_failed", code=fault.code)
            return False
        finally:
            self._spill.drop(session)
        return True

    async def _act(self, slot: int, action: str, name: str) -> None:
        await self._server.ask(f"/slots/{slot}?action={action}", {"filename": name}, dict[str, Any])
