"""The WebSocket `/v1/ws`: raw ASGI, one transport for each connection, refused with 503 before the handshake where there
is no room.

Carries messages as text frames, those of an encrypted channel as binary ones, and knows nothing of what they say. Any other
binary frame is answered with `message_malformed`; a frame above the bound is closed with 1009 and one that is not UTF-8 with
1007 by the server below (`fabstir.api.server`): to the host, a client that left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import structlog
from litestar import asgi
from litestar.enums import ScopeType
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from fabstir.domain.errors import FabstirError, error
from fabstir.host.node import HostNode
from fabstir.protocol.channel import is_frame
from fabstir.protocol.messages import Error, encode

PATH: Final = "/v1/ws"
ABORT_EXTENSION: Final = "fabstir.abort"
"""In the scope's extensions: a call that cuts the connection off. `fabstir.api.server.TunedWebSocket` puts it there."""
CLOSE_CODES: Final = {"ended": 1000, "draining": 1001, "journal_failed": 1011, "capacity": 1013}
"""What the close frame says; its reason is our code. Everything else is 1008, a violation of policy (RFC 6455, 7.4.1)."""
POLICY_VIOLATION: Final = 1008

Event = dict[str, Any]
log = structlog.get_logger()


class WebSocketTransport:
    """`fabstir.ports.transport.Transport` over one accepted ASGI WebSocket. Memory: none of its own."""

    def __init__(
        self,
        receive: Callable[[], Awaitable[Event]],
        send: Callable[[Event], Awaitable[None]],
        abort: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._send = send
        self.abort = abort
        self._gone: FabstirError | None = None

    async def send(self, message: bytes) -> None:
        try:
            content = {"bytes": message} if is_frame(message) else {"text": message.decode()}
            await self._send({"type": "websocket.send", **content})
        except (OSError, RuntimeError) as gone:  # RuntimeError: the server has sent a close frame of its own before
            raise error("host_unreachable", "the connection is closed") from gone

    async def receive(self) -> bytes | str:
        if self._gone is not None:
            raise self._gone
        event = await self._receive()
        if event["type"] != "websocket.receive":
            self._gone = error("host_unreachable", f"closed with {event.get('code', 1005)}")
            raise self._gone
        text: str | None = event.get("text")
        if text is not None:
            return text
        if not is_frame(frame := cast(bytes, event["bytes"])):
            raise error("message_malformed", "a binary frame; messages are text")
        return frame

    async def close(self, code: str) -> None:
        event = {"type": "websocket.close", "code": CLOSE_CODES.get(code, POLICY_VIOLATION), "reason": code}
        with contextlib.suppress(OSError, RuntimeError):
            await self._send(event)


class Door:
    """Counts connections and hands them to the node. Memory: a number; each connection's memory is the server's and the node's."""

    def __init__(self, node: HostNode, max_connections: int) -> None:
        self._node = node
        self._max = max_connections
        self._open = 0

    def __repr__(self) -> str:
        return f"<Door {self._open} connections of {self._max}>"

    async def enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, from handshake to end."""
        events, reply = cast(Callable[[], Awaitable[Event]], receive), cast(Callable[[Event], Awaitable[None]], send)
        if scope["type"] != ScopeType.WEBSOCKET:
            return await _answer(reply, "http", error("request_invalid", "this is a WebSocket"), 426)
        await events()
        if (fault := self._refusal()) is not None:
            self._node.metrics.failure(fault.code)
            return await _answer(reply, "websocket.http", fault, fault.http_status)
        self._open += 1
        self._node.metrics.connections_open.inc()
        try:
            await reply({"type": "websocket.accept"})
            abort = cast(Event, scope["extensions"])[ABORT_EXTENSION]["abort"]
            return await self._node.connect(WebSocketTransport(events, reply, abort))
        except Exception as unforeseen:  # the framework would swallow it
            log.error("connection_failed", exc_info=unforeseen)
            self._node.metrics.failure("node_failed")
        finally:
            self._open -= 1
            self._node.metrics.connections_open.dec()

    def _refusal(self) -> FabstirError | None:
        if self._node.draining:
            return error("draining")
        if self._open >= self._max:
            return error("capacity", f"{self._open} connections of {self._max}")
        return None


def websocket_route(door: Door) -> ASGIRouteHandler:
    """`door` at PATH."""

    async def enter(scope: Scope, receive: Receive, send: Send) -> None:
        await door.enter(scope, receive, send)

    return asgi(PATH, copy_scope=False)(enter)


async def _answer(send: Callable[[Event], Awaitable[None]], kind: str, fault: FabstirError, status: int) -> None:
    """An HTTP answer instead of a connection."""
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"5")]
    if status == 426:
        headers[1] = (b"upgrade", b"websocket")
    await send({"type": f"{kind}.response.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": encode(Error.of(fault))})
