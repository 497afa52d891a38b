"""A transport in an encrypted channel: the same contract, over another transport that only carries frames.

It decides nothing about cryptography (`fabstir.protocol.channel` does); it closes the connection at the first frame that is not
the next one, and tells an end that the peer sealed from one that somebody cut.
"""

from __future__ import annotations

import contextlib

from fabstir.domain.errors import FabstirError, Interrupted, PeerFault, error
from fabstir.ports.transport import Transport
from fabstir.protocol.channel import INTEGRITY_FAULTS, Channel, Ended


class SealedTransport:
    """`fabstir.ports.transport.Transport` in a channel. Memory: the channel's."""

    def __init__(self, transport: Transport, channel: Channel) -> None:
        self._transport = transport
        self._channel = channel
        self._over: FabstirError | None = None
        """Why nothing more is read."""
        self._left = False
        """Closed or dropped by this side."""

    def __repr__(self) -> str:
        return f"<SealedTransport {self._channel!r}>"

    async def send(self, message: bytes) -> None:
        """One frame. Raises Interrupted (`host_unreachable`, or why the channel is broken)."""
        if self._over is not None:
            raise self._over
        await self._transport.send(self._channel.seal(message))

    async def receive(self) -> bytes:
        """The next message. Raises Interrupted: `host_unreachable` where the peer ended the channel or this side left,
        `channel_truncated` where it was cut, `channel_tampered`, `channel_replayed`, `channel_gap`; then the connection is closed."""
        if self._over is not None:
            raise self._over
        try:
            opened = self._channel.open(await self._frame())
        except Interrupted as fault:
            self._over = fault
            if fault.code in INTEGRITY_FAULTS:
                await self._transport.close(fault.code)
            raise
        if isinstance(opened, Ended):
            self._over = error("host_unreachable", f"closed with {opened.code}")
            raise self._over
        return opened

    async def close(self, code: str) -> None:
        """The sealed end, then the transport's own."""
        if not self._left and self._over is None:
            self._left = True
            with contextlib.suppress(Interrupted):
                await self._transport.send(self._channel.end(code))
        self._left = True
        await self._transport.close(code)

    def abort(self) -> None:
        """Without an end: the peer will call it cut."""
        self._left = True
        self._transport.abort()

    async def _frame(self) -> bytes | str:
        try:
            return await self._transport.receive()
        except Interrupted as gone:
            if self._left:
                raise
            raise error("channel_truncated", gone.detail) from gone
        except PeerFault as fault:
            raise error("channel_tampered", fault.detail) from fault
