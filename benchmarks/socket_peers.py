"""What the servers of `sockets` share, and the two that ours is compared with: `python benchmarks/socket_peers.py NAME`.

All of them do the same work for a connection: after its first message they send a `stream_chunk` ten times a second, encoded anew, until
it is gone. `uvicorn` and `uvicorn-deflate` are uvicorn with the smallest application that can do it; `picows` is that library's own server.
Each prints its port, then for each line that it reads the CPU seconds that it used and the chunks that it sent. It ends with its standard
input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from fabstir.api.server import listen, settle_garbage_collector
from fabstir.ops.config import LogSection
from fabstir.ops.logging import configure
from fabstir.protocol.messages import FromRenter, Ping, StreamChunk, decode_from_renter, encode
from fabstir.protocol.transcript import TokenRecord

INTERVAL: Final = 0.1
WORDS: Final = """
the of and to in a is that it was for on are as with his they at be this from have or by one had not but what all were when we there can an
your which their said if will each how do about out many then them these so some her would make like him into time has look two
""".split()  # noqa: SIM905 - prose
SENT = [0]


def chunks(seed: int, alternatives: int) -> Callable[[], StreamChunk]:
    """The next token of an answer: a word and its record, with so many alternatives."""
    chance, index = random.Random(seed), [0]

    def make() -> StreamChunk:
        index[0] += 1
        place = chance.randrange(len(WORDS))
        own = (7 * place + 1_000, -chance.randrange(2_000_000))
        others = [(chance.randrange(32_000), -chance.randrange(2_000_000, 9_000_000)) for _ in range(alternatives - 1)]
        record = TokenRecord(*own, (own, *others) if alternatives else ())
        return StreamChunk(
            session_id="chat", message_index=0, index=index[0], content=" " + WORDS[place], tokens=(record,)
        )

    return make


async def paced(send: Callable[[StreamChunk], Awaitable[Any]], first: FromRenter) -> None:
    """Ten tokens a second, begun at any time within the first interval; the id of the first message is the number of alternatives."""
    alternatives = first.id if isinstance(first, Ping) else 0
    make, loop = chunks(int(time.monotonic_ns() % 1_000_000), alternatives), asyncio.get_running_loop()
    await asyncio.sleep(random.random() * INTERVAL)
    due = loop.time()
    while True:
        await send(make())
        SENT[0] += 1
        due += INTERVAL
        await asyncio.sleep(max(0.0, due - loop.time()))


async def bare(deflate: bool) -> None:
    """uvicorn, and nothing that is not needed."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        event = await receive()
        if event["type"] != "websocket.receive":
            return

        async def text(message: StreamChunk) -> None:
            await send({"type": "websocket.send", "text": encode(message).decode()})

        streaming = asyncio.create_task(paced(text, decode_from_renter(event["text"])))
        try:
            while (await receive())["type"] == "websocket.receive":
                pass
        finally:
            streaming.cancel()

    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        app, ws="websockets-sansio", ws_per_message_deflate=deflate, lifespan="off", log_level="error", access_log=False
    )
    await asyncio.gather(uvicorn.Server(config).serve([listener]), told(listener.getsockname()[1]))


async def lean() -> None:
    """picows: a protocol in C, no ASGI and no compression."""

    class Streaming(WSListener):
        task: asyncio.Task[None] | None = None

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type is not WSMsgType.TEXT or self.task is not None:
                return
            first = decode_from_renter(frame.get_payload_as_bytes())

            async def text(message: StreamChunk) -> None:
                transport.send(WSMsgType.TEXT, encode(message))

            self.task = asyncio.create_task(paced(text, first))

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            if self.task is not None:
                self.task.cancel()

    server = await ws_create_server(lambda _request: Streaming(), "127.0.0.1", 0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve_forever())
        tasks.create_task(told(server.sockets[0].getsockname()[1]))


async def told(port: int) -> None:
    """Say where we are, then answer each line."""
    settle_garbage_collector()
    _say({"port": port})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        _say({"cpu_s": time.process_time(), "chunks": SENT[0]})
    raise SystemExit


def _say(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def run(servers: dict[str, Callable[[], Awaitable[None]]]) -> None:
    """The one that the command line names."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    configure(LogSection(level="error"))

    async def serve() -> None:
        await servers[sys.argv[1]]()

    with contextlib.suppress(SystemExit):
        uvloop.run(serve())


if __name__ == "__main__":
    run({"uvicorn": lambda: bare(False), "uvicorn-deflate": lambda: bare(True), "picows": lean})
