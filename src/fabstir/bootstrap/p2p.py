"""The network of peers in a host and in a renter, where `p2p.enabled`: identity, process, and what uses it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Final

import structlog

from fabstir.bootstrap.keys import key_file
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import error
from fabstir.domain.ids import Address
from fabstir.host.announcing import Announcer, Place
from fabstir.host.node import HostNode
from fabstir.market.discovery import Discovery
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config, Role
from fabstir.p2p.identity import NodeIdentity, identity_file, load_or_make
from fabstir.p2p.network import Libp2pNetwork, NetworkSettings
from fabstir.protocol.signing import Market, SigningKey

log = structlog.get_logger()

ANY_PORT: Final = "/ip4/127.0.0.1/tcp/0"
"""A renter dials and is not dialled."""


@asynccontextmanager
async def announced(config: Config, node: HostNode, key: SigningKey, url: str) -> AsyncIterator[None]:
    """The host announces itself while the block runs. Raises LocalFault (`p2p_missing`, `p2p_unavailable`, `identity_invalid`,
    `bind_refused`): a network that is asked for and cannot be had stops the start."""
    if not config.p2p.enabled:
        yield
        return
    identity, network = await _open(config, "host", key.address)
    section = config.p2p
    place = Place(url=url, region=section.region, addresses=section.announce, slots=config.host.max_sessions)
    keys = (key, identity.secret)
    announcer = Announcer(network, keys, SystemClock(), place, lambda: node.offer, lambda: node.free_places)
    node.p2p = announcer.part
    running = _in_background(announcer.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await network.stop()


@asynccontextmanager
async def discovery(config: Config, chain: MarketClient) -> AsyncIterator[Discovery | None]:
    """The renter's cache of hosts, kept fresh while the block runs; None where the registry alone is asked. Raises as `announced`, and
    ChainFault."""
    if not config.p2p.enabled:
        yield None
        return
    _, network = await _open(config, "renter", chain.account)
    running: asyncio.Task[None] | None = None
    try:
        contract = Market(chain.info.chain_id, chain.info.market)
        found = Discovery(chain, network, contract, SystemClock())
        await found.start()
        running = _in_background(found.run())
        yield found
    finally:
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await network.stop()


async def _open(config: Config, role: Role, account: Address) -> tuple[NodeIdentity, Libp2pNetwork]:
    section = config.p2p
    if not section.allow_remote:
        for address in section.listen:
            _require_loopback(address)
    identity = await asyncio.to_thread(load_or_make, identity_file(key_file(config, role)), account)
    serves = role == "host"
    network = Libp2pNetwork(
        identity,
        NetworkSettings(
            listen=section.listen if serves else (ANY_PORT,),
            announce=section.announce if serves else (),
            bootstrap=section.bootstrap,
            server=section.server and serves,
            max_connections=section.max_connections,
            per_address=section.max_per_address,
        ),
    )
    await network.start()
    return identity, network


def _in_background(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """A task that says so when it ends by itself: nobody waits for it before the node stops."""
    task = asyncio.create_task(work)

    def ended(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (fault := done.exception()) is not None:
            log.error("p2p_background_failed", exc_info=fault)

    task.add_done_callback(ended)
    return task


def _require_loopback(multiaddr: str) -> None:
    _, kind, host, *_ = [*multiaddr.split("/"), "", ""]
    try:
        if kind in ("ip4", "ip6") and ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise error(
        "bind_refused",
        f"p2p.listen names {multiaddr!r}, beyond this machine",
        "Set `p2p.allow_remote = true` for a public node.",
    )
