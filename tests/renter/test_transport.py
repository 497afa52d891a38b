"""The renter's WebSocket, against servers that may be anything; and the whole path over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.renter.world import WALLET, World, counting
from websockets.asyncio.server import ServerConnection, serve

from fabstir.api.app import host_app
from fabstir.api.server import listen, url_of
from fabstir.api.server import serve as serve_host
from fabstir.domain.errors import FabstirError
from fabstir.domain.terms import ProofPolicy
from fabstir.ports.transport import Transport
from fabstir.renter import Market, RenterSettings
from fabstir.renter.transport import MAX_MESSAGE_BYTES, WebSocketTransport, dial, websocket_url

Handler = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def dialled(handler: Handler) -> AsyncIterator[Transport]:
    """A connection to a server that does `handler`."""
    async with serve(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = await dial(f"http://127.0.0.1:{port}")
        try:
            yield transport
        finally:
            transport.abort()


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def test_messages_go_both_ways_as_text() -> None:
    """Bytes of JSON in, bytes out; on the wire they are text frames, as browsers expect."""
    kinds: list[type] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None and socket.request.path == "/v1/ws"
        async for message in socket:
            kinds.append(type(message))
            await socket.send(message)

    async with dialled(handler) as transport:
        await transport.send('{"say":"grüß"}'.encode())
        assert await transport.receive() == '{"say":"grüß"}'.encode()
        assert kinds == [str]


async def test_the_stream_is_compressed() -> None:
    """permessage-deflate with context takeover is agreed on."""
    async with dialled(echo) as transport:
        assert isinstance(transport, WebSocketTransport)
        [extension] = transport._connection.protocol.extensions
        assert extension.name == "permessage-deflate"
        assert not extension.remote_no_context_takeover  # type: ignore[attr-defined]


async def test_a_receive_that_is_cancelled_takes_no_message_away() -> None:
    """The next one gets it."""
    said = asyncio.Event()

    async def handler(socket: ServerConnection) -> None:
        await said.wait()
        await socket.send("one")
        await socket.wait_closed()

    async with dialled(handler) as transport:
        waiting = asyncio.ensure_future(transport.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
        said.set()
        assert await transport.receive() == b"one"


async def test_a_host_that_closes_is_told_with_its_words() -> None:
    """What was sent before still arrives; sending fails as well."""

    async def handler(socket: ServerConnection) -> None:
        await socket.send("last")
        await socket.close(1013, "draining")

    async with dialled(handler) as transport:
        assert await transport.receive() == b"last"
        for _ in range(2):
            with pytest.raises(FabstirError, match="host_unreachable.*closed with 1013 draining"):
                await transport.receive()
        with pytest.raises(FabstirError, match="host_unreachable"):
            await transport.send(b"x")


async def test_a_connection_that_breaks_is_told() -> None:
    """No close frame, just gone."""

    async def handler(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with dialled(handler) as transport:
        with pytest.raises(FabstirError, match="host_unreachable.*broke"):
            await transport.receive()


async def test_a_message_larger_than_any_chunk_ends_the_connection() -> None:
    """It is not read into memory."""

    async def handler(socket: ServerConnection) -> None:
        await socket.send("x" * (MAX_MESSAGE_BYTES + 1))
        await socket.wait_closed()

    async with dialled(handler) as transport:
        with pytest.raises(FabstirError, match="host_unreachable"):
            await transport.receive()


async def test_closing_says_why_and_aborting_does_not_wait() -> None:
    """Both can be done twice."""
    reasons: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        await socket.wait_closed()
        reasons.append(socket.close_reason or "")

    async with dialled(handler) as transport:
        await transport.close("ended")
        await transport.close("ended")
    async with dialled(handler) as transport:
        transport.abort()
        transport.abort()
        with pytest.raises(FabstirError, match="host_unreachable"):
            await transport.receive()
    assert reasons[0] == "ended"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "ftp://x", "", "http://", "http://[::", "http://no.such.host.invalid"]
)
async def test_what_cannot_be_dialled_is_a_named_error(url: str) -> None:
    """Any text may stand in the registry."""
    with pytest.raises(FabstirError, match="host_unreachable"):
        await dial(url)


async def test_a_server_that_is_no_websocket_is_a_named_error() -> None:
    """It answers, but not that."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        with pytest.raises(FabstirError, match="host_unreachable"):
            await dial(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_host_cannot_send_the_renter_elsewhere() -> None:
    """A redirect is a refusal."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode())
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        with pytest.raises(FabstirError, match="host_unreachable"):
            await dial(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1", "ws://h:1/v1/ws"),
        ("https://h/base/", "wss://h/base/v1/ws"),
        ("https://h/?x=1#y", "wss://h/v1/ws"),
    ],
)
def test_the_address_of_the_websocket(url: str, expected: str) -> None:
    """Under the base URL of the registry, encrypted where that is."""
    assert websocket_url(url) == expected


# -- the whole path --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(world: World, price: int) -> AsyncIterator[None]:
    """One more host of `world`, behind its real server on loopback."""
    listener, stop = listen("127.0.0.1", 0), asyncio.Event()
    host = await world.host(price)
    host.url = url_of(listener)
    await host.register()
    app = host_app(host.node, max_connections=16)
    running = asyncio.create_task(
        serve_host(app, listener, max_message_bytes=1 << 20, stop=stop, drain=host.node.drain)
    )
    try:
        yield
    finally:
        stop.set()
        await running
        await host.stop()


async def test_a_session_over_real_sockets() -> None:
    """Offer, deposit, WebSocket, three turns, a cancel, the end: as in memory."""
    world = World()
    async with served(world, 300_000), served(world, 200_000):
        settings = RenterSettings(policy=ProofPolicy.FALLBACK)
        async with Market(world.chain.view(WALLET.address), world.journal, world.clock, settings=settings) as market:
            async with market.session("scripted") as session:
                assert "".join([piece async for piece in session.prompt("count 300", max_tokens=400)]) == counting(300)
                assert "".join([piece async for piece in session.prompt("hi")]) == "You said: hi"
                async for piece in session.prompt("count 3000", max_tokens=4000):
                    if piece == " 100":
                        break
                assert "".join([piece async for piece in session.prompt("bye")]) == "You said: bye"
            cheap = world.hosts[1]
            [job] = session.jobs
            assert job.host == cheap.key.address
            [ledger] = cheap.ledgers
            assert ledger.acknowledged == ledger.served == job.ledger.signed
            assert job.ledger.released is not None
