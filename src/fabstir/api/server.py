"""uvicorn, set up for long streams: tuned compression, bounded frames, connections that can be cut off, and a stop that
drains first.

Reaches into uvicorn in one class (`TunedWebSocket`), which is why its version is pinned; tests/api/test_server.py fails
where an upgrade changes what it relies on. Catches no signals: the command line does and sets `stop`. Measurements:
research of the server stack (compression 11/4 level 1: 83 % less traffic for 3 us a token; servers as they come cut
streams on SIGTERM).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from asyncio import TimerHandle
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from fabstir.api.websocket import ABORT_EXTENSION
from fabstir.domain.errors import error
from fabstir.ops.compression import ServerTextDeflate

WINDOW_BITS: Final = 11
MEMORY_LEVEL: Final = 4
COMPRESSION_LEVEL: Final = 1
PING_SECONDS: Final = 10.0
"""A dead peer is noticed after two of these; until then its job is `session_in_use`."""
LINGER_SECONDS: Final = 5.0
"""So long a closed connection may take to read the rest; a peer that never reads would hold its buffer for ever."""
BACKLOG: Final = 2048
"""Connections that the kernel keeps for us while we are busy."""
GRACE_SECONDS: Final = 5
"""After the drain: how long uvicorn waits for handlers that still run."""
DENIED: Final = "ASGI callable returned without completing handshake."
NOT_UTF8: Final = "Invalid UTF-8 sequence received from client."


class TunedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket with small compression windows, and an end for peers that do not read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn.debug = False  # at that level the library writes frames, and with them what is said, to the log
        self.conn.available_extensions = [
            ServerTextDeflate(
                server_max_window_bits=WINDOW_BITS,
                client_max_window_bits=WINDOW_BITS,
                compress_settings={"memLevel": MEMORY_LEVEL, "level": COMPRESSION_LEVEL},
            )
        ]
        self._linger: TimerHandle | None = None

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][ABORT_EXTENSION] = {"abort": self.transport.abort}

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if not self.disconnected:
            self._linger = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._linger is not None:
            self._linger.cancel()


class DrainingServer(uvicorn.Server):
    """Leaves signals to the command line."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections, which wait for `serve`; port 0 takes a free one. Raises LocalFault (`port_taken`)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as refused:
        listener.close()
        raise error("port_taken", f"{host}:{port}: {refused.strerror or refused}") from refused
    return listener


def url_of(listener: socket.socket) -> str:
    """Where `listener` is reached from this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: Any,
    listener: socket.socket,
    *,
    max_message_bytes: int,
    stop: asyncio.Event,
    drain: Callable[[], Awaitable[None]],
) -> None:
    """Serve `app` until `stop` is set and `drain` is done, which it calls then; new connections are answered meanwhile.

    Cancelling cuts everything off.
    """
    logging.getLogger("uvicorn.error").addFilter(_drop_strangers)
    config = uvicorn.Config(
        app,
        backlog=BACKLOG,
        http="httptools",
        ws=TunedWebSocket,
        ws_max_size=max_message_bytes,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    server = DrainingServer(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        await drain()
    except asyncio.CancelledError:
        server.force_exit = True
        raise
    finally:
        stopping.cancel()
        server.should_exit = True
        await running


def settle_garbage_collector() -> None:
    """For the whole process, once everything is loaded: what lives for ever is not walked again, young objects less often.

    At 9,500 connections this takes the slowest handshakes from 944 ms to 100 ms (research of the server stack, 1c).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _drop_strangers(record: logging.LogRecord) -> bool:
    """uvicorn reports each refused handshake as an error of ours, and each stranger's frame that is no text: anybody could fill the log."""
    return record.msg not in (DENIED, NOT_UTF8)
