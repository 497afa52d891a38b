"""A host announces what it offers, again and again, and says in health how that goes."""

from __future__ import annotations

import asyncio

import msgspec
from nacl.signing import SigningKey as NodeSecret
from tests.market.test_choice import candidate
from tests.protocol.p2p.announcing import ACCOUNT, HOST, MARKET, NODE, NOW

from fabstir.host.announcing import LIFE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, Announcer, Place
from fabstir.protocol.offer import Offer
from fabstir.protocol.p2p.announcement import MAX_BYTES, read
from fabstir.protocol.p2p.book import AnnouncementBook
from fabstir.protocol.p2p.provider_keys import capability_key, model_keys
from fabstir.testing.clock import ManualClock
from fabstir.testing.network import MemoryInternet


class World:
    """A host that announces itself, and a peer that listens."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.internet = MemoryInternet(self.clock)
        self.network, self.peer = self.internet.join(bytes(NODE)), self.internet.join(bytes([7]) * 32)
        offer = candidate(1).offer
        assert offer is not None
        self.offer: Offer = msgspec.structs.replace(offer, host=HOST, market=MARKET)
        self.free = 5
        place = Place(url="https://host.example", region="DE-BY", slots=8)
        keys = (ACCOUNT, NODE)
        self.announcer = Announcer(self.network, keys, self.clock, place, lambda: self.offer, lambda: self.free)
        self.keys = model_keys(MARKET, self.offer.models[0].model_id)

    async def heard(self) -> bytes:
        (raw,) = await self.peer.find(self.keys)
        return raw


async def test_others_believe_it() -> None:
    """What a host announces is found under its model and its region, and is stored by whoever knows its entry."""
    world = World()
    await world.network.start()
    await world.peer.start()
    await world.announcer.announce()
    said = AnnouncementBook(MARKET).take(await world.heard(), NOW, {HOST})
    assert (said.slots, said.free, said.url, said.expires_at) == (8, 5, "https://host.example", NOW + LIFE_SECONDS)
    model = world.offer.models[0]
    assert [(row.token, row.price) for row in said.models[0].prices] == [(row.token, row.price) for row in model.prices]
    assert await world.peer.find(tuple(capability_key(MARKET, "region:DE", shard) for shard in range(8)))


async def test_it_is_renewed_before_it_ends() -> None:
    """Each renewal is later than the one before, also where the clock has not moved, and says what is free then."""
    world = World()
    await world.network.start()
    await world.peer.start()
    running = asyncio.create_task(world.announcer.run())
    book = AnnouncementBook(MARKET)
    await world.clock.advance(1)
    book.take(await world.heard(), world.clock.now(), {HOST})
    world.free = 0
    await world.clock.advance(RENEW_SECONDS)
    assert book.take(await world.heard(), world.clock.now(), {HOST}).free == 0
    before = read(await world.heard()).announcement.issued_ms
    await world.announcer.announce()
    await world.announcer.announce()
    assert read(await world.heard()).announcement.issued_ms > before
    running.cancel()


async def test_faults_are_shown_and_waited_out() -> None:
    """While the network is away health says so; once it is back the host is announced without anybody's doing."""
    world = World()
    running = asyncio.create_task(world.announcer.run())
    await world.clock.advance(1)
    part = world.announcer.part()
    assert (part.status, part.works, part.announced_s) == ("stopped", False, None) and "p2p_unavailable" in part.reason
    await world.network.start()
    assert world.announcer.part().status == "alone"
    await world.peer.start()
    await world.clock.advance(RETRY_SECONDS)
    part = world.announcer.part()
    assert (part.status, part.reason, part.peers, part.announced_s) == ("ok", "", 1, 1)
    assert part.node == bytes(NodeSecret(bytes(NODE)).verify_key).hex()
    running.cancel()


async def test_a_large_offer_fits() -> None:
    """Of more models than fit the first dozen are announced, within the bound."""
    world = World()
    model = world.offer.models[0]
    many = tuple(msgspec.structs.replace(model, name="m" * 64, model_id=bytes([n]) * 32) for n in range(20))
    world.offer = msgspec.structs.replace(world.offer, models=many)
    world.keys = model_keys(MARKET, many[0].model_id)
    await world.network.start()
    await world.peer.start()
    await world.announcer.announce()
    raw = await world.heard()
    assert len(read(raw).announcement.models) == 12 and len(raw) <= MAX_BYTES
