"""A session's connection where the renter speaks HTTP: what its requests say goes in, what the host says is kept for the request
that asked.

The session core, its meter and its patience are those of every connection; here is only the place where both meet. Decides
nothing, keeps no text beyond the answer that is being read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from fabstir.domain.errors import FabstirError, error
from fabstir.protocol.messages import FromHost, FromRenter, decode_from_host, encode

UNREAD: Final = 64
"""Messages of an answer that wait for their reader; then the host waits."""
SAID: Final = 64
"""Messages of the renter that wait for the session; each is a request that is held open meanwhile."""


class HttpTransport:
    """`fabstir.ports.transport.Transport`. Memory: SAID and UNREAD messages."""

    def __init__(self, take: Callable[[FromHost], bool]) -> None:
        """`take` sees each message of the host first; True: it goes into the answer that is being read."""
        self._take = take
        self._said: deque[bytes] = deque()
        self._answer: deque[FromHost] = deque()
        self._moved = asyncio.Event()
        self.gone: FabstirError | None = None
        """Why nothing moves any more."""

    def __repr__(self) -> str:
        return f"<HttpTransport {self.gone.detail if self.gone else 'open'}, {len(self._answer)} unread>"

    # -- the host's side -------------------------------------------------------------------------------------------------------

    async def send(self, message: bytes) -> None:
        """Waits while the answer's reader is UNREAD messages behind."""
        if self.gone is None and self._take(heard := decode_from_host(message)):
            while len(self._answer) >= UNREAD and self.gone is None:
                await self._wait()
            self._answer.append(heard)
            self.wake()
        if self.gone is not None:
            raise self.gone

    async def receive(self) -> bytes | str:
        """What a request said."""
        while not self._said:
            if self.gone is not None:
                raise self.gone
            await self._wait()
        said = self._said.popleft()
        self.wake()
        return said

    async def close(self, code: str) -> None:
        """What was sent before is still read."""
        self.gone = self.gone or error("host_unreachable", f"closed with {code}")
        self.wake()

    def abort(self) -> None:
        """At once."""
        self._answer.clear()
        self.gone = self.gone or error("host_unreachable", "cut off by the host")
        self.wake()

    # -- the requests' side ------------------------------------------------------------------------------------------------------

    def say(self, message: FromRenter) -> None:
        """To the session. Raises Interrupted (`host_unreachable`), Refused (`rate_limited`)."""
        if self.gone is not None:
            raise self.gone
        if len(self._said) >= SAID:
            raise error("rate_limited", f"{SAID} requests of this session wait")
        self._said.append(encode(message))
        self.wake()

    async def heard(self) -> FromHost:
        """The next message of the answer. Raises Interrupted (`host_unreachable`) once there is none any more."""
        while not self._answer:
            if self.gone is not None:
                raise self.gone
            await self._wait()
        message = self._answer.popleft()
        self.wake()
        return message

    @property
    def empty(self) -> bool:
        """Nothing of the answer is unread."""
        return not self._answer

    def discard(self) -> None:
        """Nobody reads the rest of the answer."""
        self._answer.clear()
        self.wake()

    async def moved(self) -> None:
        """Until something is said, heard, or over."""
        await self._wait()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def wake(self) -> None:
        """Whoever waits looks again."""
        self._moved.set()
