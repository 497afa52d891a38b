"""A connection to a host's `/v1/ws`, as `fabstir.ports.transport.Transport`.

Text is compressed with context takeover (permessage-deflate: 85 % of a token stream), bounded in message size, pinged by the
library. What the network or the library says is translated here, once. Never reads a message's content.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from fabstir.domain.errors import error
from fabstir.ops.compression import ClientTextDeflate
from fabstir.ports.transport import Transport
from fabstir.protocol.channel import is_frame

Dial = Callable[[str], Awaitable[Transport]]
"""Opens a connection to the host whose API has this base URL. Raises Interrupted (`host_unreachable`)."""

OPEN_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
MAX_MESSAGE_BYTES: Final = 1 << 22
"""Largest message of a host that is read. A host streams tokens; what is larger is no chunk."""
MAX_QUEUE: Final = 64
"""Frames that may wait here while nobody reads; then the socket is not read either, and the host waits."""
_REASON_BYTES: Final = 100


async def dial(url: str) -> Transport:
    """Open the WebSocket of the host at base `url`."""
    try:
        connection = await _Connect(
            websocket_url(url),
            compression=None,
            extensions=[ClientTextDeflate(client_max_window_bits=True, compress_settings={"memLevel": 5})],
            max_size=MAX_MESSAGE_BYTES,
            max_queue=MAX_QUEUE,
            open_timeout=OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            user_agent_header=None,
            proxy=None,
        )
    except (OSError, ValueError, WebSocketException) as refused:  # the URL is whatever a stranger registered
        raise error("host_unreachable", f"{url}: {refused}"[:200]) from refused
    return WebSocketTransport(connection)


class _Connect(connect):
    """Never goes where a host sends it: a redirect would make the renter call any address."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def websocket_url(url: str) -> str:
    """`https://host/base` -> `wss://host/base/v1/ws`. Raises Interrupted (`host_unreachable`) for any other scheme."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme)
    if scheme is None:
        raise error("host_unreachable", f"{url!r} is no http(s) URL")
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/v1/ws", "", ""))


class WebSocketTransport:
    """One WebSocket. Memory: MAX_QUEUE frames of at most MAX_MESSAGE_BYTES, and the deflate window."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"<WebSocketTransport {self._connection.state.name.lower()}>"

    async def send(self, message: bytes) -> None:
        """As a text frame; a frame of an encrypted channel as a binary one, which is not compressed."""
        try:
            await self._connection.send(message, text=not is_frame(message))
        except ConnectionClosed as gone:
            raise error("host_unreachable", _told(gone)) from gone

    async def receive(self) -> bytes | str:
        """The next message, undecoded."""
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as gone:
            raise error("host_unreachable", _told(gone)) from gone

    async def close(self, code: str) -> None:
        """With a close handshake of at most CLOSE_SECONDS."""
        await self._connection.close(reason=code[:_REASON_BYTES])

    def abort(self) -> None:
        """Without one."""
        self._connection.transport.abort()


def _told(gone: ConnectionClosed) -> str:
    """What the host said when it closed, if it did."""
    return f"closed with {gone.rcvd.code} {gone.rcvd.reason}".rstrip() if gone.rcvd else "the connection broke"
