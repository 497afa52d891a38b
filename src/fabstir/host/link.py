"""What a session sees of its connection: whole messages, and whether anybody is still there.

Encodes and decodes, remembers that the connection is gone and why, and knows since when the client has taken nothing.
Never decides what is said; never logs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fabstir.domain.errors import Interrupted
from fabstir.ports.clock import Clock
from fabstir.ports.transport import Transport
from fabstir.protocol.messages import FromHost, FromRenter, SessionReady, decode_from_renter, encode


class Link:
    """One connection. Memory: the message that is being sent."""

    def __init__(self, transport: Transport, clock: Clock, sealed: Callable[[], bool] = lambda: False) -> None:
        """`sealed`: whether it is an encrypted channel by now."""
        self.sealed: Final = sealed
        self.greet: Callable[[SessionReady], SessionReady] | None = None
        """What is added to a `session_ready`."""
        self._transport = transport
        self._now = clock.monotonic
        self._writing_since: float | None = None
        self.gone = False
        """Nothing can be sent any more."""
        self.code = ""
        """Why, where this side knows."""

    def __repr__(self) -> str:
        return f"<Link {self.code or 'gone' if self.gone else 'open'}>"

    async def send(self, message: FromHost) -> bool:
        """True once it is handed over; False where nobody is there."""
        if self.gone:
            return False
        if self.greet is not None and isinstance(message, SessionReady):
            message = self.greet(message)
        self._writing_since = self._now()
        try:
            await self._transport.send(encode(message))
        except Interrupted:
            self.gone = True
        finally:
            self._writing_since = None
        return not self.gone

    async def receive(self) -> FromRenter:
        """The next message. Raises Interrupted once the connection is gone, PeerFault (`message_*`) for what cannot be read."""
        return decode_from_renter(await self._transport.receive())

    async def close(self, code: str) -> None:
        """Close after what was sent."""
        if self.gone:
            return
        self.gone, self.code = True, self.code or code
        self._writing_since = self._now()
        try:
            await self._transport.close(code)
        finally:
            self._writing_since = None

    def drop(self, code: str) -> None:
        """Cut the connection off; whoever waits for it goes on."""
        self.code = self.code or code
        self._transport.abort()

    def stalled(self, now: float) -> float:
        """For how many seconds the client has taken nothing of what is being sent."""
        return 0.0 if self._writing_since is None else now - self._writing_since
