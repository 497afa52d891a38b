"""A connection between two peers that carries whole messages: a WebSocket, later a libp2p stream, in tests a pair in
memory."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """One connection. At most one task sends and one receives at the same time."""

    async def send(self, message: bytes) -> None:
        """Hand over one message; waits while the peer does not read. Raises Interrupted (`host_unreachable`) once it is gone."""
        ...

    async def receive(self) -> bytes | str:
        """The next message; a caller that is cancelled while it waits takes none away. Raises Interrupted (its code says why) once the
        connection is gone, PeerFault for a message that cannot be one (the connection stands)."""
        ...

    async def close(self, code: str) -> None:
        """Close once what was sent is out; `code` is an error's code, or `ended`. Idempotent."""
        ...

    def abort(self) -> None:
        """Drop the connection now, with what is unsent: a pending `send`, `receive` or `close` ends. Idempotent."""
        ...
