"""Sieges of a libp2p host, one for each hardening: `python -m tests.p2p.siege SIEGE [WITHOUT]` prints `holds` where the host stood it.

A process of its own each: the library is changed for good, and a siege that is not stood may end everything. `WITHOUT` names the hardening
that is left out. Attackers are hosts of the same library, in the same process, or bare sockets.
"""

from __future__ import annotations

import contextlib
import random
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from fabstir.p2p.no_p256 import stand_in

stand_in()

from libp2p import new_host  # noqa: E402
from libp2p.host.ping import ID as PING  # noqa: E402
from libp2p.host.ping import PingService  # noqa: E402
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT  # noqa: E402
from libp2p.peer.peerinfo import info_from_p2p_addr  # noqa: E402
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport  # noqa: E402
from libp2p.tools.anyio_service import background_trio_service  # noqa: E402
from multiaddr import Multiaddr  # noqa: E402

from fabstir.p2p.frames import Setup  # noqa: E402
from fabstir.p2p.hardening import KAD, Bounds, harden  # noqa: E402
from fabstir.p2p.host import make_dht, make_host  # noqa: E402
from fabstir.p2p.peer import Peer  # noqa: E402
from fabstir.protocol.p2p.wire import ANNOUNCE, Ask, encode  # noqa: E402

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
BOUNDS = Bounds(stream_seconds=1.0, per_address=6, unread_bytes=1 << 20)


@asynccontextmanager
async def running(host: Any, *listen: str) -> AsyncIterator[Any]:
    async with host.run([Multiaddr(address) for address in listen]):
        yield host
        await host.close()


def defender(max_connections: int = 64) -> Any:
    return make_host(bytes([1]) * 32, (LOOPBACK,), (), max_connections)


@asynccontextmanager
async def attacker(number: int = 2) -> AsyncIterator[Any]:
    async with running(make_host(bytes([number]) * 32, (), (), 64)) as host:
        yield host


def whereabouts(host: Any) -> Any:
    return info_from_p2p_addr(host.get_addrs()[0])


async def can_connect(host: Any, number: int) -> bool:
    async with attacker(number) as other:
        with trio.move_on_after(8.0):
            try:
                await other.connect(whereabouts(host))
            except Exception:
                return False
            return True
    return False


async def until(check: Callable[[], bool]) -> None:
    while not check():  # noqa: ASYNC110 - the library tells nobody
        await trio.sleep(0.02)


async def say_nothing(_: Any) -> None:
    await trio.sleep(30)


async def six_bytes(_: str) -> bool:
    """Something that is no UTF-8 where the name of a protocol should be."""
    async with running(defender(), LOOPBACK) as host:
        make_dht(host, server=True)
        async with attacker() as other:
            await other.connect(whereabouts(host))
            muxed = other.get_network().get_connections(host.get_id())[0].muxed_conn
            stream = await muxed.open_stream()
            await stream.write(b"\x05\xff\xfe\xfd\xfc\n")
            await trio.sleep(0.5)
        return await can_connect(host, 3)


async def idle_streams(_: str) -> bool:
    """Streams that are opened and never used hold no place of the DHT for ever."""
    async with running(defender(), LOOPBACK) as host:
        dht = make_dht(host, server=True)
        async with background_trio_service(dht), attacker() as other:
            await other.connect(whereabouts(host))
            for _place in range(8):
                await other.new_stream(host.get_id(), [KAD])
            with trio.move_on_after(5.0):
                await until(lambda: dht._inbound_limiter.borrowed_tokens > 0)
                await until(lambda: dht._inbound_limiter.borrowed_tokens == 0)
                return True
    return False


async def many_lives(_: str) -> bool:
    """More connections in the life of a process than it has places, one after the other."""
    async with running(defender(max_connections=4), LOOPBACK) as host:
        return all([await can_connect(host, number) for number in range(2, 10)])


async def cut_writes(_: str) -> bool:
    """Writes that are cancelled leave the connection readable."""
    async with running(defender(), LOOPBACK) as host:

        async def drain(stream: Any) -> None:
            while await stream.read(65_536):
                pass

        host.set_stream_handler("/drain", drain)
        make_dht(host, server=False)
        async with attacker() as other:
            await other.connect(whereabouts(host))
            for number in range(60):
                with trio.move_on_after(0.0005 * (number % 12)):
                    stream = await other.new_stream(host.get_id(), ["/drain"])
                    await stream.write(bytes(400_000))
            with trio.move_on_after(10.0):
                await PingService(other).ping(host.get_id(), 1)
                return True
    return False


async def full_buffers(_: str) -> bool:
    """Eight MiB for a stream that is not read, whatever the window allows."""
    async with running(defender(), LOOPBACK) as host:
        host.set_stream_handler("/deaf", say_nothing)
        async with attacker() as other:
            await other.connect(whereabouts(host))
            stream = await other.new_stream(host.get_id(), ["/deaf"])
            theirs, muxed = host.get_network().get_connections()[0].muxed_conn, stream.muxed_stream.conn
            held = 0
            with trio.move_on_after(10.0), contextlib.suppress(Exception):
                for _frame in range(128):
                    data = bytes(65_536)
                    header = struct.pack("!BBHII", 0, 0, 0, stream.muxed_stream.stream_id, len(data))
                    await muxed._write_frame(header + data)
                    await trio.sleep(0.005)
                    held = max(held, sum(map(len, theirs.stream_buffers.values())))
            return 0 < held <= BOUNDS.unread_bytes


async def one_address(_: str) -> bool:
    """Bare connections from one IP address that say nothing: the seventh is closed at once."""
    async with running(defender(), LOOPBACK) as host:
        port = int(host.get_addrs()[0].value_for_protocol("tcp"))
        sockets = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(BOUNDS.per_address + 2)]
        with trio.move_on_after(3.0):
            try:
                return await sockets[-1].receive_some(1) == b""
            except trio.BrokenResourceError:
                return True
    return False


async def plaintext(without: str) -> bool:
    """A peer that offers plaintext, in which any identity can be claimed, is refused."""
    host = new_host(listen_addrs=[Multiaddr(LOOPBACK)]) if without == "make_host" else defender()
    async with running(host, LOOPBACK):
        key = make_host(bytes([2]) * 32, (), (), 8).get_private_key()
        from libp2p.crypto.keys import KeyPair  # noqa: PLC0415

        naked = new_host(sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(KeyPair(key, key.get_public_key()))})
        async with running(naked) as other:
            with trio.move_on_after(5.0):
                try:
                    await other.connect(whereabouts(host))
                except Exception:
                    return True
    return False


async def foreign_values(without: str) -> bool:
    """Nobody stores values here; the DHT has its own name."""
    async with running(defender(), LOOPBACK) as host:
        dht = KadDHT(host, DHTMode.SERVER) if without == "make_dht" else make_dht(host, server=True)
        names = set(host.multiselect.handlers)
        async with background_trio_service(dht), attacker() as other:
            await other.connect(whereabouts(host))
            theirs = KadDHT(other, DHTMode.CLIENT)
            async with background_trio_service(theirs):
                await theirs.routing_table.add_peer(whereabouts(host))
                with trio.move_on_after(5.0):
                    try:
                        await theirs.put_value("plain", b"value")
                    except Exception:
                        await trio.lowlevel.checkpoint()
        return KAD in names and "/ipfs/kad/1.0.0" not in names and not dht.value_store.store


async def same_port(_: str) -> bool:
    """A second node on the same port gets nothing."""
    async with running(defender(), LOOPBACK) as host:
        port = host.get_addrs()[0].value_for_protocol("tcp")
        async with running(make_host(bytes([2]) * 32, (), (), 8), f"/ip4/127.0.0.1/tcp/{port}") as second:
            return not second.get_transport_addrs()


async def random_bytes(_: str) -> bool:
    """Chance on every protocol, in the frames of the DHT, in the frames of the multiplexer, and more streams than there is room for."""
    chance = random.Random(1)
    async with running(defender(), LOOPBACK) as host:
        dht = make_dht(host, server=True)
        peer = Peer(host, dht, Setup(bytes(32), (), (), (), True, 8, 8))
        host.set_stream_handler(ANNOUNCE, peer.answer)
        async with background_trio_service(dht):
            for number in range(2, 6):
                async with attacker(number) as other:
                    await other.connect(whereabouts(host))
                    with contextlib.suppress(Exception), trio.move_on_after(6.0):
                        await _storm(other, host, chance)
                    await trio.sleep(0.1)
            peer.publish(b"still here", ())
            async with attacker(9) as other:
                await other.connect(whereabouts(host))
                stream = await other.new_stream(host.get_id(), [ANNOUNCE])
                await stream.write(encode(Ask()))
                return b"still here" in await stream.read(100)


async def _storm(other: Any, host: Any, chance: random.Random) -> None:
    names = [name for name in host.multiselect.handlers if name]
    for name in names:
        for _round in range(6):
            with contextlib.suppress(Exception), trio.move_on_after(0.5):
                stream = await other.new_stream(host.get_id(), [name])
                data = chance.randbytes(chance.randrange(1, 400))
                await stream.write((bytes((min(len(data), 127),)) if chance.random() < 0.5 else b"") + data)
                if chance.random() < 0.5:
                    await stream.close()
    muxed = other.get_network().get_connections(host.get_id())[0].muxed_conn
    for _name in range(12):
        stream, data = await muxed.open_stream(), chance.randbytes(chance.randrange(1, 100))
        await stream.write(bytes((len(data) + 1,)) + data + b"\n")
    await trio.sleep(0.2)
    for _stream in range(300):
        await muxed._write_frame(struct.pack("!BBHII", 0, 1, 1, 2 * chance.randrange(1, 1 << 20) + 1, 0))
    for _frame in range(40):
        frame = struct.pack(
            "!BBHII", 0, chance.randrange(5), chance.randrange(16), chance.randrange(400), chance.randrange(99)
        )
        await muxed._write_frame(frame + chance.randbytes(chance.randrange(99)))


async def no_pulse(without: str) -> bool:
    """A peer that is connected and answers nothing is dropped."""
    async with running(defender(), LOOPBACK) as host:
        peer = Peer(host, make_dht(host, server=True), Setup(bytes(32), (), (), (), True, 8, 8))
        async with attacker() as other:
            other.set_stream_handler(PING, say_nothing)
            await other.connect(whereabouts(host))
            await until(lambda: bool(host.get_connected_peers()))
            if without != "feel_pulse":
                await peer.feel_pulse(other.get_id(), 0.5)
            return not host.get_connected_peers()


SIEGES: dict[str, Callable[[str], Awaitable[bool]]] = {
    siege.__name__: siege
    for siege in (
        six_bytes,
        idle_streams,
        many_lives,
        cut_writes,
        full_buffers,
        one_address,
        plaintext,
        foreign_values,
        same_port,
        random_bytes,
        no_pulse,
    )
}


async def main(name: str, without: str) -> bool:
    harden(BOUNDS, without)
    with trio.move_on_after(60.0):
        return await SIEGES[name](without)
    return False


if __name__ == "__main__":
    sys.exit(0 if trio.run(main, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "") else 1)
