"""The WebSocket as a transport: whatever the server below does, the host sees one of two things."""

from __future__ import annotations

from typing import Any

import pytest

from fabstir.api.websocket import WebSocketTransport
from fabstir.domain.errors import Interrupted, PeerFault


def _transport(*events: dict[str, Any], fault: Exception | None = None) -> tuple[WebSocketTransport, list[Any]]:
    """Over a server that delivers `events` and answers every send with `fault`."""
    coming, sent = iter(events), []

    async def receive() -> dict[str, Any]:
        return next(coming)

    async def send(event: dict[str, Any]) -> None:
        if fault:
            raise fault
        sent.append(event)

    return WebSocketTransport(receive, send, lambda: None), sent


@pytest.mark.parametrize("fault", [OSError("gone"), RuntimeError("Unexpected ASGI message after 'websocket.close'")])
async def test_a_server_that_cannot_send_is_a_connection_that_is_gone(fault: Exception) -> None:
    """Whether the client left or the server has closed because of a bad frame; closing it once more is no fault."""
    transport, _ = _transport(fault=fault)
    with pytest.raises(Interrupted, match="host_unreachable"):
        await transport.send(b"{}")
    await transport.close("ended")


async def test_a_binary_frame_leaves_the_connection_as_it_is() -> None:
    """It is the peer's fault; the next message is read."""
    transport, _ = _transport(
        {"type": "websocket.receive", "bytes": b"{}"}, {"type": "websocket.receive", "text": "next"}
    )
    with pytest.raises(PeerFault, match="message_malformed"):
        await transport.receive()
    assert await transport.receive() == "next"


async def test_frames_of_a_channel_travel_as_binary() -> None:
    """In both directions, as they are."""
    frame = b"\x01" + bytes(40)
    transport, sent = _transport({"type": "websocket.receive", "bytes": frame})
    assert await transport.receive() == frame
    await transport.send(frame)
    assert sent == [{"type": "websocket.send", "bytes": frame}]


async def test_a_connection_that_is_gone_stays_gone() -> None:
    """With the code of its end; the server is not asked again."""
    transport, _ = _transport({"type": "websocket.disconnect", "code": 1009})
    for _ in range(2):
        with pytest.raises(Interrupted, match="closed with 1009"):
            await transport.receive()


@pytest.mark.parametrize(
    ("code", "number"), [("ended", 1000), ("draining", 1001), ("journal_failed", 1011), ("rate_limited", 1008)]
)
async def test_the_close_frame_names_the_reason(code: str, number: int) -> None:
    """Text frames out, and our code as the reason of the last one."""
    transport, sent = _transport()
    await transport.send(b'{"type":"pong"}')
    await transport.close(code)
    assert sent == [
        {"type": "websocket.send", "text": '{"type":"pong"}'},
        {"type": "websocket.close", "code": number, "reason": code},
    ]
