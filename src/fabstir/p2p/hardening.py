"""What libp2p 0.8.1 needs before it may face strangers, each thing with the defect that it closes.

Found and measured in the library as it is published: six bytes end the process, 250 connections in its life exhaust it, windows are not
enforced. Each hardening works from outside, on one method, and tests/p2p/test_hardening.py has a siege for each that is lost without it;
after any change of the pinned version they say what still holds. Decides nothing else; imported by the worker alone.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IOException
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, value_store
from libp2p.network import swarm
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.tcp import tcp

KAD: Final = "/fabstir/kad/1.0.0"
"""Our own DHT, never the public one."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much of this node strangers may take."""

    stream_seconds: float = 60.0
    """For a whole inbound stream: all protocols that are served here ask once and are answered."""
    write_seconds: float = 20.0
    """For one write; a peer that does not read for so long is dropped."""
    unread_bytes: int = 1 << 20
    """Of all streams of one connection together, not yet read by us."""
    per_address: int = 64
    """Connections from one IP address at the same time."""
    query_seconds: float = 3.0
    """For one question of a look-up: a dead peer costs three of them."""
    provider_seconds: int = 1_800
    """How long a provider is remembered that does not renew."""


def guard_handlers(bounds: Bounds) -> None:
    """An exception in any stream handler ended the whole process: six bytes that are no UTF-8 were enough. A stream that stays open and
    says nothing held its place for ever."""
    handle = BasicHost._swarm_stream_handler

    async def guarded(self: Any, stream: Any) -> None:
        finished = False
        with contextlib.suppress(Exception), trio.move_on_after(bounds.stream_seconds):
            await handle(self, stream)
            finished = True
        if not finished:
            with contextlib.suppress(Exception):
                await stream.reset()

    BasicHost._swarm_stream_handler = guarded


def release_slots(_: Bounds) -> None:
    """The place of an inbound connection was only given back when the process ended: after 250 in its life it refused everybody."""
    upgrade = Swarm.upgrade_inbound_raw_conn

    async def until_closed(self: Any, raw: Any, address: Any) -> Any:
        muxed = await upgrade(self, raw, address)
        await muxed.event_closed.wait()
        raise SwarmException("the connection has ended")  # the caller gives the place back only when it fails

    Swarm.upgrade_inbound_raw_conn = until_closed


def finish_writes(bounds: Bounds) -> None:
    """A cancelled write left half a frame, and with it a connection that nobody could read any more."""
    write = SecureSession.write

    async def whole(self: Any, data: bytes) -> None:
        with trio.CancelScope(deadline=trio.current_time() + bounds.write_seconds, shield=True) as scope:
            await write(self, data)
        if scope.cancelled_caught:
            await self.close()
            raise IOException("the peer does not read")

    SecureSession.write = whole


def bound_unread(bounds: Bounds) -> None:
    """The receive window was granted and not enforced: a peer could push hundreds of megabytes into a stream that nobody reads."""
    read = Yamux._read_data_body

    async def bounded(self: Any, length: int) -> Any:
        if sum(map(len, self.stream_buffers.values())) + length > bounds.unread_bytes:
            await self._cleanup_on_error()
            raise IOException("more is sent than the window allows")
        return await read(self, length)

    Yamux._read_data_body = bounded


def bound_addresses(bounds: Bounds) -> None:
    """All places could be taken from one IP address by connections that say nothing."""
    handle = Swarm._handle_inbound_connection
    held: Counter[str] = Counter()

    async def counted(self: Any, connection: Any, address: Any) -> None:
        remote = (connection.get_remote_address() or ("",))[0]
        if held[remote] >= bounds.per_address:
            with contextlib.suppress(Exception):
                await connection.close()
            return
        held[remote] += 1
        try:
            await handle(self, connection, address)
        finally:
            held[remote] -= 1
            if not held[remote]:
                del held[remote]

    Swarm._handle_inbound_connection = counted


def hasten_dials(_: Bounds) -> None:
    """Every dial waited a quarter of a second for an alternative that does not exist where there is one transport."""
    swarm._HAPPY_EYEBALLS_DELAY = 0.02


def separate_dht(bounds: Bounds) -> None:
    """The option for a protocol prefix was ignored; providers were kept for two days, the dead included."""
    for module in (common, kad_dht, peer_routing, provider_store, value_store):
        module.PROTOCOL_ID = KAD
    for module in (common, kad_dht, peer_routing, provider_store):
        module.QUERY_TIMEOUT = bounds.query_seconds
    provider_store.PROVIDER_RECORD_EXPIRATION_INTERVAL = bounds.provider_seconds


def own_port(_: Bounds) -> None:
    """Listening sockets were opened for sharing, for a way through NATs that is not used here: a second node on the same port got half of
    the connections of the first, and neither of them knew."""

    def again_after_restart(sock: Any) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    tcp._set_reuse_flags = again_after_restart


HARDENINGS: Final[tuple[Callable[[Bounds], None], ...]] = (
    guard_handlers,
    release_slots,
    finish_writes,
    bound_unread,
    bound_addresses,
    hasten_dials,
    separate_dht,
    own_port,
)


def harden(bounds: Bounds, without: str = "") -> None:
    """Once in a process, before the first host is made. `without` names one to leave out, for the test that shows what it is for."""
    for hardening in HARDENINGS:
        if hardening.__name__ != without:
            hardening(bounds)
