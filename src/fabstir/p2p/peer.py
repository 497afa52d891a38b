"""The node inside the libp2p process: joins, answers, announces itself again and again, drops the dead, and does what it is asked.

Everything that it does for others is bounded by `fabstir.p2p.hardening` and `fabstir.p2p.host`. Believes nothing and decides nothing
about the market: announcements pass through it as bytes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from libp2p.host.ping import PingService
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from fabstir.p2p import lookup
from fabstir.p2p.frames import Ready, Setup, Standing
from fabstir.p2p.host import make_dht, make_host
from fabstir.protocol.p2p.wire import ANNOUNCE

RENEW_SECONDS: Final = 600.0
"""A third of the time that a provider is remembered."""
RETRY_SECONDS: Final = 5.0
"""Between attempts to reach the bootstrap peers while nobody is connected."""
LOOK_SECONDS: Final = 1.0
"""Between looks at whether a key is still to be announced."""
REFRESH_SECONDS: Final = 300.0
"""Between look-ups of our own place, which fill the routing table."""
KEYS_AT_ONCE: Final = 8
PAUSE_SECONDS: Final = 11.0
"""Servers take ten announcements in ten seconds from one peer, and drop the rest without a word."""
JOIN_SECONDS: Final = 15.0
PULSE_SECONDS: Final = 30.0
PULSE_ANSWER_SECONDS: Final = 10.0
"""A connection whose peer answers no ping for so long is closed: TCP alone would keep it for hours."""


class Peer:
    """Memory: the library's routing table and records, what is announced."""

    def __init__(self, host: Any, dht: Any, setup: Setup) -> None:
        self._host = host
        self._dht = dht
        self._setup = setup
        self._announcement = b""
        self._keys: tuple[bytes, ...] = ()
        self._announced: set[bytes] = set()
        self._announced_at = 0.0
        self._changed = trio.Event()

    @property
    def ready(self) -> Ready:
        """Who it is and where it listens."""
        key = self._host.get_public_key().to_bytes()
        return Ready(key, tuple(str(address) for address in self._host.get_addrs()))

    @property
    def standing(self) -> Standing:
        """How it stands now."""
        peers = len(self._host.get_connected_peers())
        return Standing(peers, self._dht.routing_table.size(), len(self._announced), self._announced_at)

    def publish(self, announcement: bytes, keys: tuple[bytes, ...]) -> None:
        """Given from now on, also to whoever asks this node who provides a key; keys that are new are announced to others at once."""
        self._announcement = announcement
        here = PeerInfo(self._host.get_id(), self._host.get_addrs())
        for key in keys:
            self._dht.provider_store.add_provider(key, here)
        if keys != self._keys:
            self._keys = keys
            self._announced &= set(keys)
            self._dht.provider_store.providing_keys.intersection_update(keys)
            self._changed.set()

    async def find(self, keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """What the providers of `keys` announce."""
        return await lookup.announcements(self._host, self._dht, keys)

    async def answer(self, stream: Any) -> None:
        """`/fabstir/announce/1`."""
        await lookup.answer(stream, self._announcement)

    # -- the background ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stay_joined)
            nursery.start_soon(self._stay_announced)
            nursery.start_soon(self._drop_the_dead)

    async def _stay_joined(self) -> None:
        refreshed = -REFRESH_SECONDS
        while True:
            if not self._host.get_connected_peers() or self._dht.routing_table.size() == 0:
                await self._bootstrap()
                refreshed = -REFRESH_SECONDS
            if trio.current_time() - refreshed >= REFRESH_SECONDS and self._dht.routing_table.size():
                with trio.move_on_after(JOIN_SECONDS):
                    await self._dht.peer_routing.find_closest_peers_network(self._host.get_id().to_bytes())
                refreshed = trio.current_time()
            await trio.sleep(RETRY_SECONDS)

    async def _bootstrap(self) -> None:
        async with trio.open_nursery() as nursery:
            for address in self._setup.bootstrap:
                nursery.start_soon(self._greet, address)

    async def _greet(self, address: str) -> None:
        with trio.move_on_after(JOIN_SECONDS):
            try:
                peer = info_from_p2p_addr(Multiaddr(address))
                await self._host.connect(peer)
                await self._dht.routing_table.add_peer(peer)
            except Exception:
                return  # it is tried again; the condition tells that nobody is connected

    async def _stay_announced(self) -> None:
        renewed = trio.current_time()
        while True:
            if trio.current_time() - renewed >= RENEW_SECONDS:
                self._announced.clear()
                renewed = trio.current_time()
            if self._dht.routing_table.size():
                await self._announce([key for key in self._keys if key not in self._announced])
            self._changed = trio.Event()
            with trio.move_on_after(LOOK_SECONDS):
                await self._changed.wait()

    async def _announce(self, keys: list[bytes]) -> None:
        for number, key in enumerate(keys):
            if number and number % KEYS_AT_ONCE == 0:
                await trio.sleep(PAUSE_SECONDS)
            told = False
            with contextlib.suppress(Exception):  # tried again in a moment
                told = await self._dht.provider_store.provide(key)
            if told and key in self._keys:
                self._announced.add(key)
                self._announced_at = time.time()

    async def _drop_the_dead(self) -> None:
        while True:
            await trio.sleep(PULSE_SECONDS)
            async with trio.open_nursery() as nursery:
                for peer in self._host.get_connected_peers():
                    nursery.start_soon(self.feel_pulse, peer, PULSE_ANSWER_SECONDS)

    async def feel_pulse(self, peer: Any, seconds: float) -> None:
        """Close the connections of a peer that does not answer a ping."""
        with trio.move_on_after(seconds):
            try:
                await PingService(self._host).ping(peer, 1)
            except Exception:
                await trio.lowlevel.checkpoint()
            else:
                return
        for connection in self._host.get_network().get_connections(peer):
            with trio.move_on_after(seconds):
                await connection.close()


@asynccontextmanager
async def running_peer(setup: Setup) -> AsyncIterator[Peer]:
    """A node that listens, until the block ends. Its background work is `Peer.run`."""
    listen = [Multiaddr(address) for address in setup.listen]
    host = make_host(setup.seed, setup.listen, setup.announce, setup.max_connections)
    async with host.run(listen):
        if len(host.get_transport_addrs()) < len(listen):  # the library says nothing where it cannot listen
            raise OSError(f"cannot listen on {' or '.join(setup.listen)}")
        dht = make_dht(host, setup.server)
        peer = Peer(host, dht, setup)
        host.set_stream_handler(ANNOUNCE, peer.answer)
        async with background_trio_service(dht):
            yield peer
            with trio.CancelScope(shield=True), trio.move_on_after(3.0):
                await host.close()  # else peers notice only when the process ends
