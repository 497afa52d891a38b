"""The server around the host: compression, room, an end for every connection, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import socket
from typing import Any

import pytest
from tests.api.served import Served, named, serving
from tests.host.world import World, eventually
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fabstir.api import server
from fabstir.api.server import TunedWebSocket, listen, url_of
from fabstir.domain.errors import LocalFault
from fabstir.protocol.messages import Notice, Response


async def test_compression_keeps_its_context_in_small_windows(served: Served) -> None:
    """The windows that were measured are the ones that are negotiated, with context takeover: it is what saves 83 % on tokens."""
    socket = await served.socket()
    assert socket.response is not None
    offered = socket.response.headers["Sec-WebSocket-Extensions"]
    assert "server_max_window_bits=11" in offered and "no_context_takeover" not in offered
    assert (server.MEMORY_LEVEL, server.COMPRESSION_LEVEL) == (4, 1)


async def test_a_client_without_compression_is_served_too(served: Served) -> None:
    """Compression is an offer, not a demand."""
    renter = await served.stranger(compression=None)
    await renter.open()
    assert await renter.chat("plain") == "You said: plain"


async def test_no_room_for_another_connection_is_503_before_the_handshake(caplog: pytest.LogCaptureFixture) -> None:
    """With the error in the one shape, and nothing in the log that looks like a fault of ours."""
    async with serving(World(), max_connections=2) as served:
        first, _second = await served.socket(), await served.socket()
        with pytest.raises(InvalidStatus) as refused:
            await served.socket()
        answer = refused.value.response
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert b'"code":"capacity"' in bytes(answer.body or b"")
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        await first.close()
        await eventually(lambda: _can_connect(served))


async def _can_connect(served: Served) -> bool:
    try:
        await served.socket()
    except InvalidStatus:
        return False
    return True


async def test_a_stop_lets_the_running_answer_end_and_be_paid() -> None:
    """New connections get 503, `/health` says draining, the stream completes and is acknowledged, then the server ends by itself."""
    async with serving(World()) as served:
        gate = served.world.engine.gate(4)
        renter, idle = await served.renter(), await served.renter()
        await renter.ask("count 8")
        assert (await renter.hear(until=4))[0] == "1 2 3 4"
        await gate.reached.wait()
        served.stop.set()
        assert (await renter.until(Notice)).code == "draining"
        assert (await idle.until(Notice)).code == "draining"
        status, health = await served.get("/health")
        assert (status, health["status"], health["sessions"]["generating"]) == (503, "draining", 1)
        with pytest.raises(InvalidStatus) as refused:
            await served.socket()
        assert refused.value.response.status_code == 503
        gate.open.set()
        text, end = await renter.hear()
        assert text == " 5 6 7 8" and isinstance(end, Response)
        for gone in (renter, idle):
            with pytest.raises(ConnectionClosed) as closed:
                await gone.wire.receive()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "draining")
        assert served.world.ledger(renter).acknowledged == 9
        await served.ended()


async def test_a_stop_does_not_wait_for_ever() -> None:
    """An answer that does not end is cut off after `drain_timeout`, an acknowledgement that does not come after `ack_grace`."""
    async with serving(World(drain_timeout=60.0)) as served:
        world = served.world
        stuck, silent = await served.renter(), await served.renter()
        await silent.ask("hello")
        await silent.hear(ack=False)
        world.engine.gate(2)
        await stuck.ask("count 8")
        await stuck.hear(until=2)
        served.stop.set()
        await silent.until(Notice)
        named(await silent.refused(silent.prompt("one more")), "draining")
        await world.clock.advance(6)
        with pytest.raises(ConnectionClosed):
            await silent.wire.receive()
        assert served.connected(stuck)
        await world.clock.advance(55)
        await served.ended()
        ledger = world.ledger(stuck)
        assert not ledger.in_turn and ledger.served == 2 and world.engine.active == 0


async def test_a_port_that_is_taken_is_named() -> None:
    """`port_taken` with the address; port 0 takes a free one and its URL is the real one."""
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert port and url_of(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(LocalFault, match=f"port_taken.*127.0.0.1:{port}"):
            listen("127.0.0.1", port)


async def test_a_closed_connection_whose_peer_never_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unsent is thrown away after a while: a peer that reads nothing cannot keep its buffers alive."""
    lost = asyncio.Event()

    class Watched(TunedWebSocket):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async def flood(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):  # until nothing more goes out
                while True:
                    await send({"type": "websocket.send", "text": "x" * 65_536})

    monkeypatch.setattr(server, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(server, "TunedWebSocket", Watched)
    listener, stop = listen("127.0.0.1", 0), asyncio.Event()
    serving_flood = server.serve(flood, listener, max_message_bytes=1024, stop=stop, drain=_no_drain)
    running = asyncio.create_task(serving_flood)
    reader = await connect(url_of(listener).replace("http", "ws"), compression=None)
    reader.transport.pause_reading()
    await asyncio.wait_for(lost.wait(), 30)
    reader.transport.abort()
    stop.set()
    await running


async def _no_drain() -> None: ...


def _ask(port: int, request: bytes) -> http.client.HTTPResponse:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(request)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    connection.close()
    return answer


async def test_what_is_no_handshake_gets_a_status(served: Served) -> None:
    """A plain GET on the WebSocket's path is 426, a handshake without its key 400: neither reaches the node."""
    port = int(served.url.rpartition(":")[2])
    status, body = await served.get("/v1/ws")
    assert (status, body["code"]) == (426, "request_invalid")
    broken = b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    assert (await asyncio.to_thread(_ask, port, broken)).status == 400
    await served.sound()
