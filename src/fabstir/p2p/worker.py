"""The libp2p process: `python -m fabstir.p2p.worker`, started by `fabstir.p2p.child` and by nobody else.

Reads Setup, listens, says Ready, then answers requests over the socket that it inherited until the other end closes. Writes nothing to
stdout; what the library says goes to stderr, which the supervisor reads. Dies with its parent. Frames: `fabstir.p2p.frames`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

import trio

from fabstir.p2p.frames import (
    LENGTH,
    Done,
    Failed,
    Find,
    Found,
    Publish,
    Report,
    Request,
    Setup,
    body_length,
    decode_request,
    frame,
)
from fabstir.p2p.no_p256 import stand_in
from fabstir.ports.private_process import end_with_parent

if TYPE_CHECKING:
    from fabstir.p2p.peer import Peer

STANDING_SECONDS: Final = 2.0
LOOKUPS: Final = 4
"""At the same time; further ones wait."""


class Wire:
    """Whole frames over the socket; one reader, any number of writers."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        self._writing = trio.Lock()

    async def send(self, report: Report) -> None:
        """Raises trio.BrokenResourceError once the node is gone."""
        async with self._writing:
            await self._stream.send_all(frame(report))

    async def receive(self) -> Request | None:
        """The next request; None where the node closed. Raises ValueError, msgspec.DecodeError."""
        header = await self._exactly(LENGTH.size)
        return decode_request.decode(await self._exactly(body_length(header))) if header else None

    async def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = await self._stream.receive_some(size - len(data))
            if not chunk:
                return b""
            data += chunk
        return bytes(data)


def main() -> int:
    """Serve until the node is gone. Exit code 0, or 1 where the start failed (the reason was sent)."""
    options = _options()
    end_with_parent(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which then ends this process in order
    os.dup2(2, 1)
    stand_in()
    with socket.socket(fileno=options.socket) as connection:
        return trio.run(_serve, connection)


async def _serve(connection: socket.socket) -> int:
    wire = Wire(connection)
    setup = await wire.receive()
    if not isinstance(setup, Setup):
        return 1
    try:
        from fabstir.p2p.hardening import Bounds, harden  # noqa: PLC0415 - libp2p only after `stand_in`
        from fabstir.p2p.peer import running_peer  # noqa: PLC0415
    except ImportError as missing:
        await wire.send(Failed(0, "p2p_missing", str(missing)[:200]))
        return 1
    logging.getLogger("libp2p").setLevel(logging.ERROR)  # its warnings are written by strangers
    harden(Bounds(per_address=setup.per_address))
    code = 0
    try:
        async with running_peer(setup) as peer, trio.open_nursery() as nursery:
            await wire.send(peer.ready)
            nursery.start_soon(peer.run)
            nursery.start_soon(_tell, wire, peer)
            await _obey(wire, peer, nursery)
            nursery.cancel_scope.cancel()
    except* OSError as problem:
        reason = problem.exceptions[0]
        await wire.send(Failed(0, "p2p_unavailable", f"{type(reason).__name__}: {reason}"[:200]))
        code = 1
    return code


async def _obey(wire: Wire, peer: Peer, nursery: trio.Nursery) -> None:
    places = trio.CapacityLimiter(LOOKUPS)

    async def find(request: Find) -> None:
        async with places:
            await wire.send(Found(request.number, await peer.find(request.keys)))

    while (request := await wire.receive()) is not None:
        if isinstance(request, Find):
            nursery.start_soon(find, request)
        elif isinstance(request, Publish):
            peer.publish(request.announcement, request.keys)
            await wire.send(Done(request.number))


async def _tell(wire: Wire, peer: Peer) -> None:
    while True:
        await wire.send(peer.standing)
        await trio.sleep(STANDING_SECONDS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The libp2p process of a Fabstir node; started by the node itself.")
    parser.add_argument("--socket", type=int, required=True, help="inherited file descriptor")
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
