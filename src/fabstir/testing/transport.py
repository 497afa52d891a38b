"""Two ends of a connection in memory: what one sends the other receives, in order, and nothing is ever lost on the way.

Each end keeps the contract of `fabstir.ports.transport.Transport`. A test holds the renter's end and sees what a socket
cannot show: with which code it was closed, and what an end that is not read does to the other. Never opens a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from fabstir.domain.errors import error

T = TypeVar("T")

CAPACITY: Final = 64
"""Messages under way in each direction; `send` waits for more, as it does on a socket whose peer does not read."""


class TransportEnd:
    """One end. Memory: CAPACITY messages on the way here."""

    def __init__(self, capacity: int) -> None:
        self._arriving: asyncio.Queue[bytes | str] = asyncio.Queue(capacity)
        self._filled = asyncio.Event()
        self._gone = asyncio.Event()
        self._peer: TransportEnd
        self.code: str | None = None
        """With which code this end was closed; None while it is open."""

    def __repr__(self) -> str:
        return f"<TransportEnd {self.code or 'open'}, {self._arriving.qsize()} unread>"

    async def send(self, message: bytes | str) -> None:
        """Hand over one message; waits while the other end does not read."""
        await self._unless_gone(self._peer._arrive(message))

    async def receive(self) -> bytes | str:
        """The next message; what was sent before a close still arrives. A caller that is cancelled takes none away."""
        while self._arriving.empty():
            self._filled.clear()
            await self._unless_gone(self._filled.wait())
        return self._arriving.get_nowait()

    async def close(self, code: str) -> None:
        """Close both ends; the other one may still read what was sent."""
        for end in (self, self._peer):
            end.code = end.code or code
            end._gone.set()

    def abort(self) -> None:
        """Close both ends at once, whoever waits."""
        for end in (self, self._peer):
            end.code = end.code or "aborted"
            end._gone.set()

    async def _arrive(self, message: bytes | str) -> None:
        await self._arriving.put(message)
        self._filled.set()

    async def _unless_gone(self, step: Coroutine[Any, Any, T]) -> T:
        """The result of `step`; raises where this end is closed, or is closed before that."""
        if self._gone.is_set():
            step.close()
            raise error("host_unreachable", self.code or "")
        work = asyncio.ensure_future(step)
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise error("host_unreachable", self.code or "")
        finally:
            work.cancel()
            gone.cancel()


def transport_pair(capacity: int = CAPACITY) -> tuple[TransportEnd, TransportEnd]:
    """Both ends of a new connection: the host's, the renter's."""
    host, renter = TransportEnd(capacity), TransportEnd(capacity)
    host._peer, renter._peer = renter, host
    return host, renter
