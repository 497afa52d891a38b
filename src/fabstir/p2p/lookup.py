"""Who provides a key: our own walk through the DHT, and the question to each provider.

The library's look-up answers from its cache and never refreshes it, so that a second host of a model would not be found for two days. This
one asks the closest nodes, a few at a time, until nobody closer is left or time is up, and the local store too.
"""

from __future__ import annotations

from typing import Any, Final

import trio
from libp2p.kad_dht.utils import sort_peer_ids_by_distance

from fabstir.domain.errors import FabstirError
from fabstir.p2p.frames import MAX_FOUND
from fabstir.protocol.p2p.wire import ANNOUNCE, Announced, Ask, Fault, announce_reader, encode

WALK_SECONDS: Final = 8.0
QUESTION_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0
"""For dialling a provider and hearing what it announces."""
CLOSEST: Final = 20
AT_ONCE: Final = 8
ASKED_AT_ONCE: Final = 16
ADDRESS_SECONDS: Final = 600


async def providers(dht: Any, key: bytes) -> dict[Any, set[Any]]:
    """Peer id -> addresses of whoever provides `key`, ourselves left out."""
    store, me = dht.provider_store, dht.local_peer_id
    found: dict[Any, set[Any]] = {}
    known = set(dht.routing_table.find_local_closest_peers(key, CLOSEST))
    asked: set[Any] = set()

    async def ask(peer: Any) -> None:
        with trio.move_on_after(QUESTION_SECONDS):
            told, closer = await store._get_providers_from_peer_with_closers(peer, key)
            for provider in told[:CLOSEST]:
                found.setdefault(provider.peer_id, set()).update(provider.addrs[:8])
            known.update(closer[:CLOSEST])

    for provider in store.get_providers(key):
        found.setdefault(provider.peer_id, set()).update(provider.addrs)
    with trio.move_on_after(WALK_SECONDS):
        while True:
            closest = sort_peer_ids_by_distance(key, list(known - {me}))[:CLOSEST]
            if not (next_ones := [peer for peer in closest if peer not in asked][:AT_ONCE]):
                break
            asked.update(next_ones)
            async with trio.open_nursery() as nursery:
                for peer in next_ones:
                    nursery.start_soon(ask, peer)
    found.pop(me, None)
    return found


async def announcements(host: Any, dht: Any, keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """What the providers of `keys` announce, as it arrived."""
    everyone: dict[Any, set[Any]] = {}

    async def walk(key: bytes) -> None:
        for peer, addresses in (await providers(dht, key)).items():
            everyone.setdefault(peer, set()).update(addresses)

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(walk, key)
    said: dict[bytes, None] = {}
    places = trio.CapacityLimiter(ASKED_AT_ONCE)

    async def hear(peer: Any, addresses: set[Any]) -> None:
        async with places:
            if answer := await _ask(host, peer, addresses):
                said[answer] = None

    async with trio.open_nursery() as nursery:
        for peer, addresses in list(everyone.items())[:MAX_FOUND]:
            nursery.start_soon(hear, peer, addresses)
    return tuple(said)


async def _ask(host: Any, peer: Any, addresses: set[Any]) -> bytes:
    """Empty where it does not answer; the reason is the peer's own affair."""
    with trio.move_on_after(ANSWER_SECONDS):
        try:
            host.get_peerstore().add_addrs(peer, list(addresses), ADDRESS_SECONDS)
            stream = await host.new_stream(peer, [ANNOUNCE])
        except Exception:
            return b""
        try:
            await stream.write(encode(Ask()))
            reader = announce_reader()
            while chunk := await stream.read(8_192):
                for message in reader.feed(chunk):
                    return message.announcement if isinstance(message, Announced) else b""
        except Exception:
            return b""
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await _close(stream)
    return b""


async def answer(stream: Any, announcement: bytes) -> None:
    """One question of a stranger on `/fabstir/announce/1`. Whatever it raises resets the stream (`fabstir.p2p.hardening`)."""
    reader = announce_reader()
    try:
        while chunk := await stream.read(512):
            if any(isinstance(message, Ask) for message in reader.feed(chunk)):
                break
        else:
            return
    except FabstirError as fault:
        await stream.write(encode(Fault(fault.code)))
    else:
        await stream.write(encode(Announced(announcement) if announcement else Fault("host_not_running")))
    await stream.close()


async def _close(stream: Any) -> None:
    try:
        await stream.close()
    except Exception:
        await stream.reset()
