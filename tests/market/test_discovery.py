"""The cache of hosts: the registry decides who and how dear, announcements say where and whether now, and no question waits for either."""

from __future__ import annotations

import asyncio

from nacl.signing import SigningKey as NodeSecret
from tests.protocol.p2p.announcing import ETH, MARKET, MODEL, NOW, USDC, sealed

from fabstir.domain.errors import error
from fabstir.domain.ids import ModelId
from fabstir.domain.money import PricePerMTok
from fabstir.market.discovery import MODELS_AT_ONCE, REFRESH_SECONDS, Discovery
from fabstir.market.hosts import Directory
from fabstir.ports.chain import HostEntry, RegisteredOffer
from fabstir.protocol.offer import Offer
from fabstir.protocol.p2p.announcement import AnnouncedModel, AnnouncedPrice
from fabstir.protocol.p2p.provider_keys import model_key, shard_of
from fabstir.protocol.signing import SigningKey
from fabstir.testing.clock import ManualClock
from fabstir.testing.network import MemoryInternet, MemoryNetwork

REGISTERED = "http://registered.example"


def account(number: int) -> SigningKey:
    return SigningKey(bytes([0x10 + number]) * 32)


def entry(number: int, model: ModelId = MODEL, price: int = 200_000, *, active: bool = True) -> HostEntry:
    offers = (RegisteredOffer(model, USDC, PricePerMTok(price)),)
    return HostEntry(address=account(number).address, url=REGISTERED, offers=offers, active=active)


def model_at(price: int, model: ModelId = MODEL) -> tuple[AnnouncedModel, ...]:
    return (AnnouncedModel(model, "tiny-chat", "", 4096, (AnnouncedPrice.of(USDC, PricePerMTok(price)),)),)


class World:
    """A registry, an internet, hosts in it, and a renter that looks around."""

    def __init__(self, *entries: HostEntry) -> None:
        self.clock = ManualClock(NOW + 1)
        self.internet = MemoryInternet(self.clock)
        self.entries = list(entries)
        self.reads = 0
        self.down = False
        self.renter = self.internet.join(bytes([0xEE]) * 32)
        self.discovery = Discovery(self, self.renter, MARKET, self.clock)

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        self.reads += 1
        if self.down:
            raise error("chain_unreachable", "")
        return self.entries

    async def announce(self, number: int, keys_of: ModelId = MODEL, **changes: object) -> MemoryNetwork:
        """A host that announces itself under the key of a model."""
        secret = NodeSecret(bytes([number]) * 32)
        network = self.internet.join(bytes(secret))
        await self.renter.start()
        await network.start()
        await self.say(network, number, keys_of, **changes)
        return network

    async def say(self, network: MemoryNetwork, number: int, keys_of: ModelId = MODEL, **changes: object) -> None:
        raw = sealed(NodeSecret(bytes([number]) * 32), account(number), **changes)
        await network.publish(raw, (model_key(MARKET, keys_of, shard_of(network.node)),))


async def test_registry_and_announcements_are_one_list() -> None:
    """A host that announces itself is online, at its announced URL, price and places; another one stands as it is registered."""
    world = World(entry(1), entry(2))
    await world.announce(1, models=model_at(150_000), free=0)
    await world.discovery.refresh()
    by_address = {one.entry.address: one for one in world.discovery.registered()}
    one, two = by_address[account(1).address], by_address[account(2).address]
    assert (one.online, one.available, one.url) == (True, False, "https://host.example:8443")
    assert (two.online, two.available, two.url) == (False, False, REGISTERED)
    assert (one.price_in(MODEL, USDC), two.price_in(MODEL, USDC)) == (150_000, 200_000)
    assert one.price_in(MODEL, ETH) is None
    assert world.discovery.online(account(1).address) and not world.discovery.online(account(2).address)
    assert {one.url for one in await world.discovery.hosts()} == {REGISTERED, "https://host.example:8443"}


async def test_the_registered_price_is_the_ceiling() -> None:
    """Whoever announces more than it registered does not serve that model, as far as this renter is concerned."""
    world = World(entry(1), entry(2))
    await world.announce(1, models=model_at(200_001))
    await world.announce(2, models=model_at(200_000))
    await world.discovery.refresh()
    assert [one.entry.address for one in world.discovery.by_model(MODEL)] == [account(2).address]


async def test_what_is_not_registered_is_not_served() -> None:
    """A model that is announced and not registered, and one that is registered and no longer announced, are not listed."""
    other = ModelId(bytes([6]) * 32)
    world = World(entry(1))
    await world.announce(1, models=model_at(1, other))
    await world.discovery.refresh()
    assert world.discovery.by_model(other) == () and world.discovery.by_model(MODEL) == ()


async def test_strangers_take_no_place() -> None:
    """A thousand identities without an entry change nothing but a counter."""
    world = World(entry(1))
    for number in range(2, 12):
        await world.announce(number)
    await world.discovery.refresh()
    assert (len(world.discovery.registered()), world.discovery.refused) == (1, 10)
    assert not world.discovery.online(account(1).address)


async def test_expiry() -> None:
    """An announcement ends by itself, between two rounds too; the registry's word stands again."""
    world = World(entry(1))
    await world.announce(1, expires_at=NOW + 10)
    await world.discovery.refresh()
    assert world.discovery.by_capability("scores") and world.discovery.available()
    await world.clock.advance(9)
    (one,) = world.discovery.registered()
    assert not one.online and one.url == REGISTERED and world.discovery.by_model(MODEL) == (one,)


async def test_unregistered_hosts_leave() -> None:
    """Who is no longer in the registry, or no longer active, is gone in the next round, announced or not."""
    world = World(entry(1), entry(2))
    await world.announce(1)
    await world.discovery.refresh()
    world.entries = [entry(2), entry(1, active=False)]
    await world.discovery.refresh()
    assert [one.entry.address for one in world.discovery.registered()] == [account(2).address]


async def test_capabilities() -> None:
    """Features and regions are found; a country includes its parts."""
    world = World(entry(1), entry(2))
    await world.announce(1, region="DE-BY")
    await world.announce(2, region="FR", features=())
    await world.discovery.refresh()
    counts = {
        what: len(world.discovery.by_capability(what)) for what in ("scores", "region:DE", "region:DE-BY", "region:D")
    }
    assert counts == {"scores": 1, "region:DE": 1, "region:DE-BY": 1, "region:D": 0}


async def test_questions_wait_for_nobody() -> None:
    """With a network that takes for ever and a chain that is down every question is answered from memory."""
    world = World(entry(1))
    await world.announce(1)
    await world.discovery.refresh()
    world.down, world.internet.delay = True, 1e6
    looking = asyncio.create_task(world.discovery.refresh())
    await world.clock.advance(1)
    reads = world.reads
    assert world.discovery.by_model(MODEL) and await world.discovery.hosts(MODEL) and world.reads == reads
    looking.cancel()


async def test_faults_are_waited_out() -> None:
    """While chain and network fail the last answers stand; afterwards it goes on by itself."""
    world = World(entry(1))
    await world.discovery.start()
    running = asyncio.create_task(world.discovery.run())
    await world.clock.advance(REFRESH_SECONDS)
    assert len(world.discovery.registered()) == 1 and not world.discovery.online(account(1).address)
    world.down = True
    await world.announce(1)  # which starts the renter's node, too
    await world.clock.advance(REFRESH_SECONDS)
    assert world.discovery.online(account(1).address)
    running.cancel()


async def test_every_model_has_its_turn() -> None:
    """More models than one round looks for are looked for in turn."""
    models = [ModelId(bytes([0x80 + number]) * 32) for number in range(MODELS_AT_ONCE + 3)]
    world = World(*(entry(number + 1, model) for number, model in enumerate(models)))
    for number, model in enumerate(models):
        await world.announce(number + 1, model, models=model_at(1, model))
    await world.discovery.refresh()
    assert len(world.discovery.available()) == MODELS_AT_ONCE
    await world.discovery.refresh()
    assert len(world.discovery.available()) == len(models)


async def test_the_directory_takes_its_hosts_from_it() -> None:
    """What a renter asks for offers is the announced URL, and the chain is not read for it."""
    world = World(entry(1))
    await world.announce(1)
    await world.discovery.refresh()
    asked = []

    class Offers:
        async def fetch(self, url: str) -> Offer:
            asked.append(url)
            raise error("host_unreachable", "")

    reads = world.reads
    await Directory(world.discovery, Offers(), world.clock).candidates()
    assert asked == ["https://host.example:8443"] and world.reads == reads
