"""`fabstir doctor p2p`: what a stranger finds of this host, said with what was measured."""

from __future__ import annotations

import asyncio

from fabstir.bootstrap.doctor_p2p import PATIENCE_SECONDS, Sought, examine_network, examine_p2p
from fabstir.chain.checks import Check
from fabstir.ops.config import Config
from fabstir.ops.config_p2p import P2PSection
from fabstir.protocol.p2p.provider_keys import model_key, shard_of
from fabstir.testing.clock import ManualClock
from fabstir.testing.network import MemoryInternet, MemoryNetwork
from tests.protocol.p2p.announcing import HOST, MARKET, MODEL, NODE, NOW, sealed

SOUGHT = Sought(MARKET, MODEL, HOST)


class World:
    """A host, and a stranger that looks for it."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW + 1)
        internet = MemoryInternet(self.clock)
        self.host, self.stranger = internet.join(bytes(NODE)), internet.join(bytes([9]) * 32)

    async def announce(self, raw: bytes) -> None:
        await self.host.publish(raw, (model_key(MARKET, MODEL, shard_of(self.host.node)),))

    async def examine(self) -> list[Check]:
        looking = asyncio.create_task(examine_network(self.stranger, SOUGHT, self.clock))
        while not looking.done():
            await self.clock.advance(1.0)
        return await looking


async def started(*nodes: MemoryNetwork) -> None:
    for node in nodes:
        await node.start()


async def test_found() -> None:
    """A host that is announced is found, with its place and for how long."""
    world = World()
    await started(world.host, world.stranger)
    await world.announce(sealed())
    joined, found = await world.examine()
    assert (joined.verdict, found.verdict) == ("ok", "ok")
    assert "https://host.example:8443, 3 of 8 places free" in found.measured


async def test_nobody_there() -> None:
    """Without a peer it says so and looks for nothing, after a bounded time."""
    world = World()
    await started(world.stranger)
    (joined,) = await world.examine()
    assert joined.verdict == "fail" and "p2p.bootstrap" in joined.next_step
    assert PATIENCE_SECONDS <= world.clock.monotonic() < 2 * PATIENCE_SECONDS


async def test_not_announced() -> None:
    """A host that nobody hears of, and one whose announcement is not believed, are told apart."""
    world = World()
    await started(world.host, world.stranger)
    assert (await world.examine())[1].measured.startswith("0 announcements of the model")
    await world.announce(sealed(expires_at=NOW + 2))
    found = (await world.examine())[1]
    assert found.verdict == "fail" and "announcement_stale" in found.measured


async def test_off_and_alone() -> None:
    """Where it is off nothing is looked at; without anybody to join by the next step is named."""
    assert [check.verdict for check in await examine_p2p(Config())] == ["skipped"]
    (bootstrap,) = await examine_p2p(Config(p2p=P2PSection(enabled=True)))
    assert bootstrap.verdict == "fail" and "part p2p" in bootstrap.next_step
