"""Host and renter over real libp2p: what a host announces is what a renter's cache says of it. Off and refused where it should be."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest
from nacl.signing import SigningKey as NodeSecret

from fabstir.bootstrap import p2p as bootstrap
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ModelId
from fabstir.host.announcing import Announcer, Place
from fabstir.host.node import HostNode
from fabstir.market.discovery import Discovery
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config, HostSection
from fabstir.ops.config_p2p import P2PSection
from fabstir.p2p.identity import NodeIdentity
from fabstir.p2p.network import Libp2pNetwork, NetworkSettings
from fabstir.ports.chain import HostEntry
from fabstir.protocol.offer import Offer
from tests.market.test_choice import candidate
from tests.protocol.p2p.announcing import ACCOUNT, HOST, MARKET

pytestmark = pytest.mark.real


class Registry:
    """Knows one host."""

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        return [msgspec.structs.replace(candidate(1).entry, address=HOST)]


async def test_announced_and_found() -> None:
    """The renter's cache has the host's URL, price and places from the network."""
    identity, clock = NodeIdentity(bytes([5]) * 32), SystemClock()
    host = Libp2pNetwork(identity, NetworkSettings())
    await host.start()
    settings = NetworkSettings(bootstrap=host.condition().addresses, server=False)
    renter = Libp2pNetwork(NodeIdentity(bytes([6]) * 32), settings)
    try:
        await renter.start()
        offer = msgspec.structs.replace(cast(Offer, candidate(1).offer), host=HOST, market=MARKET)
        place = Place(url="http://127.0.0.1:9", slots=4)
        announcer = Announcer(host, (ACCOUNT, identity.secret), clock, place, lambda: offer, lambda: 3)
        await announcer.announce()
        discovery = Discovery(Registry(), renter, MARKET, clock)
        while not discovery.online(HOST):
            await discovery.refresh()
        (one,) = discovery.registered()
        model = offer.models[0]
        assert one.url == "http://127.0.0.1:9" and one.announcement is not None and one.announcement.free == 3
        assert one.price_in(model.model_id, model.prices[0].token) == model.prices[0].price
        assert bytes(NodeSecret(bytes([5]) * 32).verify_key) == one.announcement.node
    finally:
        await asyncio.gather(host.stop(), renter.stop())


@pytest.mark.parametrize(
    "listen", ["/ip4/0.0.0.0/tcp/4001", "/ip4/192.0.2.1/tcp/4001", "/dns4/localhost/tcp/4001", "/ip6/::/tcp/4001"]
)
async def test_only_this_machine_unless_allowed(listen: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A node that would be reachable from outside is refused before anything is made, until the operator allows it."""
    folder = tmp_path_factory.mktemp("keys")
    config = Config(host=HostSection(key_file=folder / "host.key"), p2p=P2PSection(enabled=True, listen=(listen,)))
    with pytest.raises(FabstirError, match="bind_refused"):
        async with bootstrap.announced(config, cast(HostNode, None), ACCOUNT, "http://127.0.0.1:9"):
            raise AssertionError("it started")
    assert list(folder.iterdir()) == []


async def test_off_is_off() -> None:
    """Without `p2p.enabled` no process is started and the registry is asked as before."""
    async with bootstrap.announced(Config(), cast(HostNode, None), ACCOUNT, ""):
        pass
    async with bootstrap.discovery(Config(), cast(MarketClient, None)) as found:
        assert found is None
