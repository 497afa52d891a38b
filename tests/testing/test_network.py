"""The internet in memory: what it promises to the scenarios that run in it."""

from __future__ import annotations

import asyncio

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.testing.clock import ManualClock
from fabstir.testing.network import PROVIDER_SECONDS, RENEW_SECONDS, MemoryInternet, MemoryNetwork

KEY = (b"key",)


async def market(internet: MemoryInternet, count: int) -> list[MemoryNetwork]:
    nodes = [internet.join(bytes((number,)) * 32) for number in range(1, count + 1)]
    for node in nodes:
        await node.start()
    return nodes


async def test_found_by_all() -> None:
    """Each of thirty nodes finds every other one, and not itself."""
    nodes = await market(MemoryInternet(ManualClock()), 30)
    for node in nodes:
        await node.publish(node.node, KEY)
    for node in nodes:
        assert set(await node.find(KEY)) == {other.node for other in nodes} - {node.node}
        assert await node.find((b"another",)) == ()


async def test_latest_word() -> None:
    """What is published later is what others get."""
    first, second = await market(MemoryInternet(ManualClock()), 2)
    await first.publish(b"old", KEY)
    await first.publish(b"new", KEY)
    assert await second.find(KEY) == (b"new",)


async def test_the_dead_are_not_found() -> None:
    """A node that vanished answers nobody; one that comes back is found once it has told its keys again."""
    clock = ManualClock()
    first, second, third = await market(MemoryInternet(clock), 3)
    await first.publish(b"here", KEY)
    first.crash()
    assert await second.find(KEY) == () and first.condition().status == "stopped"
    with pytest.raises(FabstirError, match="p2p_unavailable"):
        await first.find(KEY)
    second.crash()
    third.crash()
    for node in (first, second):
        await node.start()
    assert await second.find(KEY) == ()  # whoever knew is gone
    await clock.advance(RENEW_SECONDS)
    assert await second.find(KEY) == (b"here",)


async def test_partitions() -> None:
    """Nobody hears across a partition; once it heals what one side was told is found from the other."""
    internet = MemoryInternet(ManualClock())
    left, right, both = await market(internet, 3)
    internet.split((left, both), (right,))
    await left.publish(b"left", KEY)
    assert await right.find(KEY) == () and right.condition().status == "alone"
    assert await both.find(KEY) == (b"left",)
    internet.heal()
    assert await right.find(KEY) == (b"left",)


async def test_memory_of_providers_ends() -> None:
    """A provider that does not renew is forgotten."""
    clock = ManualClock()
    internet = MemoryInternet(clock)
    first, second = await market(internet, 2)
    await first.publish(b"here", KEY)
    internet.split((first,), (second,))
    await clock.advance(PROVIDER_SECONDS)
    internet.heal()
    internet.loss = 1.0  # so that no renewal arrives
    assert second._providers(KEY, clock.now()) == set()


async def test_loss_is_repeatable() -> None:
    """With the same seed the same questions are lost."""

    async def run(seed: int) -> list[int]:
        internet = MemoryInternet(ManualClock(), loss=0.4, seed=seed)
        nodes = await market(internet, 10)
        for node in nodes:
            await node.publish(node.node, KEY)
        return [len(await node.find(KEY)) for node in nodes]

    assert await run(1) == await run(1) != await run(2)
    assert 0 < sum(await run(1)) < 90


async def test_delay_is_of_the_clock() -> None:
    """A look-up takes the time of two questions, by the injected clock."""
    clock = ManualClock()
    internet = MemoryInternet(clock)
    first, second = await market(internet, 2)
    await first.publish(b"here", KEY)
    internet.delay = 0.5
    looking = asyncio.create_task(second.find(KEY))
    await clock.advance(0.9)
    assert not looking.done()
    await clock.advance(0.1)
    assert looking.done() and looking.result() == (b"here",)
