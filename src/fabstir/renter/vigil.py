"""What one connection needs in the background: an end to waiting, a question to a host that says nothing, and a reader between two
answers.

It decides nothing about the session: when to ask and when to give up is the core's heartbeat, what is read is the link's business. It
reads only while nobody else does, and never an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from fabstir.domain.errors import FabstirError
from fabstir.ports.clock import Clock
from fabstir.ports.transport import Transport
from fabstir.protocol.messages import FromRenter
from fabstir.protocol.renter_items import DropConnection, SendHost
from fabstir.protocol.renter_session import RenterSession

WATCH_SECONDS: Final = 1.0


class Vigil:
    """Over one connection. Memory: three tasks."""

    def __init__(
        self,
        clock: Clock,
        core: RenterSession,
        transport: Transport,
        send: Callable[[FromRenter], Awaitable[None]],
        idle: Callable[[], Awaitable[None]],
        may_idle: Callable[[], bool],
    ) -> None:
        """`idle` reads until something has to be done; it is called where `may_idle`, and may raise FabstirError."""
        self._clock = clock
        self._core = core
        self._transport = transport
        self._send = send
        self._idle = idle
        self._may_idle = may_idle
        self._due_at: float | None = None
        """When the host must have said something; None while nobody waits for it."""
        self._pinging: asyncio.Task[None] | None = None
        self._idling: asyncio.Task[None] | None = None
        self._watcher = asyncio.create_task(self._watch(), name="renter link watch")

    def __repr__(self) -> str:
        return f"<Vigil {'listening' if self._due_at is not None else 'quiet'}{', idling' if self._idling else ''}>"

    @contextlib.contextmanager
    def listening(self, patience: float) -> Iterator[None]:
        """While somebody waits for the host's next message, at most `patience` seconds."""
        now = self._clock.monotonic()
        self._due_at = now + patience
        self._core.listen(now)
        try:
            yield
        finally:
            self._due_at = None

    async def stop_idling(self, *, finishing: bool) -> None:
        """Whoever asks for something reads for itself. `finishing`: let what is being said be said to its end."""
        idling, self._idling = self._idling, None
        if idling is None or idling is asyncio.current_task():
            return
        if not finishing:
            idling.cancel()
        await asyncio.wait((idling,))
        if not idling.cancelled() and (fault := idling.exception()) is not None:
            raise fault

    def end(self) -> None:
        """Nothing more in the background."""
        self._watcher.cancel()
        if self._pinging is not None:
            self._pinging.cancel()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(WATCH_SECONDS)
            now = self._clock.monotonic()
            if self._due_at is None:
                if self._idling is None and self._may_idle():
                    self._idling = asyncio.create_task(self._read(), name="renter link idle")
            elif now > self._due_at:
                self._transport.abort()
                return
            else:
                self._beat(now)

    async def _read(self) -> None:
        with contextlib.suppress(FabstirError):  # whoever asks next is told
            await self._idle()

    def _beat(self, now: float) -> None:
        for effect in self._core.tick(now):
            if isinstance(effect, DropConnection):
                self._transport.abort()
            elif isinstance(effect, SendHost) and (self._pinging is None or self._pinging.done()):
                self._pinging = asyncio.ensure_future(self._send_ping(effect.message))

    async def _send_ping(self, message: FromRenter) -> None:
        await self._send(message)
