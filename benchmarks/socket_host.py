"""Ours among the servers of `sockets`: `python benchmarks/socket_host.py NAME`; what it prints is told in `socket_peers`.

`ours` is a host's whole application (guard, Litestar, door, link, tuned compression) that streams in place of a session, so that the same
is compared; `idle` is the same with real sessions, of which none begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any, cast

from socket_peers import paced, run, told

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.host.world import World

from fabstir.api.app import host_app
from fabstir.api.server import listen, serve
from fabstir.domain.errors import FabstirError
from fabstir.host.link import Link
from fabstir.host.node import HostNode
from fabstir.ops.clock import SystemClock
from fabstir.ports.transport import Transport


class StreamingNode(HostNode):
    """A host that streams to whoever says anything."""

    async def connect(self, transport: Transport) -> None:
        """As a session does: through a link."""
        link = Link(transport, self.clock)
        with contextlib.suppress(FabstirError):
            streaming = asyncio.create_task(paced(link.send, await link.receive()))
            try:
                while True:
                    await link.receive()
            finally:
                streaming.cancel()


async def ours(*, idle: bool) -> None:
    """The whole application."""
    world = World(clock=cast(Any, SystemClock()), hello_timeout=1e6)
    if not idle:
        world.node.__class__ = StreamingNode
    listener = listen("127.0.0.1", 0)
    async with world.running():
        app = host_app(world.node, max_connections=20_000)
        await asyncio.gather(
            serve(app, listener, max_message_bytes=1 << 20, stop=asyncio.Event(), drain=world.node.drain),
            told(listener.getsockname()[1]),
        )


if __name__ == "__main__":
    run({"ours": lambda: ours(idle=False), "idle": lambda: ours(idle=True)})
