"""Real libp2p nodes as processes on this machine: they find each other, survive garbage and death, and forget what has expired."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.errors import FabstirError
from fabstir.p2p import network as module
from fabstir.p2p.identity import NodeIdentity
from fabstir.p2p.network import Libp2pNetwork, NetworkSettings
from fabstir.protocol.p2p.book import AnnouncementBook
from fabstir.protocol.p2p.provider_keys import model_key, model_keys, shard_of
from tests.protocol.p2p.announcing import HOST, MARKET, MODEL, NOW, sealed

pytestmark = pytest.mark.real

KEYS = model_keys(MARKET, MODEL)


@asynccontextmanager
async def market(count: int) -> AsyncIterator[list[Libp2pNetwork]]:
    """`count` nodes; all but the first know the first one only."""
    nodes = [Libp2pNetwork(NodeIdentity(bytes([1]) * 32), NetworkSettings())]
    try:
        await nodes[0].start()
        settings = NetworkSettings(bootstrap=nodes[0].condition().addresses)
        nodes += [Libp2pNetwork(NodeIdentity(bytes([number]) * 32), settings) for number in range(2, count + 1)]
        await asyncio.gather(*(node.start() for node in nodes[1:]))
        yield nodes
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it holds; the test's own bound ends what never will."""
    while not await check():  # noqa: ASYNC110 - each look is a question to another process
        await asyncio.sleep(0.1)


def finds(node: Libp2pNetwork, *wanted: bytes) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return set(await node.find(KEYS)) == set(wanted)

    return check


def well(node: Libp2pNetwork) -> Callable[[], Awaitable[bool]]:
    """The process tells how it stands every two seconds."""

    async def check() -> bool:
        return node.condition().status == "ok"

    return check


async def publish(node: Libp2pNetwork, announcement: bytes) -> None:
    await node.publish(announcement, (model_key(MARKET, MODEL, shard_of(node.node)),))


def port_of(node: Libp2pNetwork) -> int:
    return int(node.condition().addresses[0].split("/")[4])


async def test_find_each_other() -> None:
    """Four nodes that know one of them announce themselves; each finds the other ones, not itself, and the latest word of each."""
    async with market(4) as nodes:
        for node in nodes:
            await publish(node, b"old " + node.node)
        for node in nodes:
            await publish(node, node.node)
        for node in nodes:
            await until(finds(node, *(other.node for other in nodes if other is not node)))
            await until(well(node))
        assert await nodes[0].find((b"\x12\x20" + bytes(32),)) == ()


async def test_a_lone_server_is_found() -> None:
    """A host that is alone in the network answers a renter, which holds nothing for others, at its first question."""
    async with market(1) as nodes:
        await publish(nodes[0], b"here")
        settings = NetworkSettings(bootstrap=nodes[0].condition().addresses, server=False)
        renter = Libp2pNetwork(NodeIdentity(bytes([7]) * 32), settings)
        try:
            await renter.start()

            async def joined() -> bool:
                return renter.condition().known > 0

            await until(joined)
            assert await renter.find(KEYS) == (b"here",)
        finally:
            await renter.stop()


async def test_a_node_that_dies() -> None:
    """Whoever is gone is not found any more, though others still remember it; the rest is."""
    async with market(3) as nodes:
        await publish(nodes[1], b"one")
        await publish(nodes[2], b"two")
        await until(finds(nodes[0], b"one", b"two"))
        await nodes[2].stop()
        await until(finds(nodes[0], b"one"))
        with pytest.raises(FabstirError, match="p2p_unavailable"):
            await nodes[2].find(KEYS)


async def test_a_crash_is_repaired() -> None:
    """A process that is killed is started again with the same identity, and announces again what was published."""
    async with market(3) as nodes:
        await publish(nodes[1], b"still here")
        await until(finds(nodes[2], b"still here"))
        before = nodes[1].pid
        assert before is not None
        os.kill(before, signal.SIGKILL)

        async def back() -> bool:
            return nodes[1].condition().restarts == 1 and nodes[1].condition().providing == 1

        await until(back)
        assert nodes[1].pid != before
        await until(finds(nodes[2], b"still here"))


async def test_whoever_waits_hears_of_a_crash() -> None:
    """A request whose process dies ends with an error at once."""
    async with market(1) as nodes:
        pid = nodes[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        looking = asyncio.create_task(nodes[0].find(KEYS))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(FabstirError, match="p2p_unavailable"):
            await looking


async def test_garbage() -> None:
    """Whatever is sent to the port, the process goes on."""
    async with market(2) as nodes:
        await publish(nodes[1], b"here")
        for garbage in (
            b"\x05\xff\xfe\xfd\xfc\n",
            b"\x13/multistream/1.0.0\n\x05\xff\xfe\xfd\xfc\n",
            bytes(70_000),
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            for node in nodes:
                _, writer = await asyncio.open_connection("127.0.0.1", port_of(node))
                writer.write(garbage)
                writer.close()
        await until(finds(nodes[0], b"here"))
        assert [node.condition().restarts for node in nodes] == [0, 0]


async def test_what_has_expired_is_not_believed() -> None:
    """An announcement that a node goes on giving after its end arrives, and the book refuses it."""
    async with market(2) as nodes:
        secret = NodeSecret(bytes([2]) * 32)
        await publish(nodes[1], sealed(secret))

        async def found() -> bool:
            return len(await nodes[0].find(KEYS)) == 1

        await until(found)
        (raw,) = await nodes[0].find(KEYS)
        assert AnnouncementBook(MARKET).take(raw, NOW + 1, {HOST}).node == nodes[1].node
        with pytest.raises(FabstirError, match="announcement_stale"):
            AnnouncementBook(MARKET).take(raw, NOW + 900, {HOST})


async def test_a_port_that_is_taken() -> None:
    """A node that cannot listen says so at the start."""
    async with market(1) as nodes:
        listen = (f"/ip4/127.0.0.1/tcp/{port_of(nodes[0])}",)
        second = Libp2pNetwork(NodeIdentity(bytes([9]) * 32), NetworkSettings(listen=listen))
        with pytest.raises(FabstirError, match="p2p_unavailable"):
            await second.start()
        assert second.condition().status == "stopped"


async def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another libp2p than the one that was hardened is not started."""
    monkeypatch.setattr(module, "VERSION", "0.0.0")
    with pytest.raises(FabstirError, match="p2p_missing"):
        await Libp2pNetwork(NodeIdentity(bytes([1]) * 32), NetworkSettings()).start()
