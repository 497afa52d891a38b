"""An internet in memory: dozens of nodes that announce and find each other, with delay, loss, partitions and nodes that die.

Every node is a server of the DHT and holds what it was told; so what only the dead or the far side of a partition knew is gone, as
in the real one. Chance comes from a seed and time from an injected clock: a scenario runs the same way each time. Never opens a socket.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Final

from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.errors import error
from fabstir.ports.clock import Clock
from fabstir.ports.network import NetworkCondition

PROVIDER_SECONDS: Final = 1_800.0
"""How long a node remembers who provides a key."""
RENEW_SECONDS: Final = 600.0
"""After so long a node tells the others its keys again."""


class MemoryInternet:
    """What lies between the nodes. Memory: all that every node was told."""

    def __init__(self, clock: Clock, *, delay: float = 0.0, loss: float = 0.0, seed: int = 0) -> None:
        """`delay`: seconds that a question and its answer take; `loss`: share of the questions that nobody answers."""
        self.clock: Final = clock
        self.delay = delay
        self.loss = loss
        self.nodes: Final[dict[bytes, MemoryNetwork]] = {}
        self._chance = random.Random(seed)  # noqa: S311 - a scenario, to be repeated
        self._sides: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"<MemoryInternet {len(self.nodes)} nodes, delay={self.delay:g} loss={self.loss:g}>"

    def join(self, secret: bytes) -> MemoryNetwork:
        """A node that is not started yet."""
        return MemoryNetwork(self, NodeSecret(secret))

    def split(self, *sides: Iterable[MemoryNetwork]) -> None:
        """From now on nodes hear only those of their own side; who is on none hears the others that are on none."""
        self._sides = {node.node: number for number, side in enumerate(sides, 1) for node in side}

    def heal(self) -> None:
        """Everybody hears everybody."""
        self._sides = {}

    def within_reach(self, node: bytes) -> list[MemoryNetwork]:
        """Running nodes on the same side, without itself."""
        side = self._sides.get(node, 0)
        return [other for key, other in self.nodes.items() if key != node and self._sides.get(key, 0) == side]

    async def travel(self) -> bool:
        """One question and its answer; False where it was lost, which takes as long."""
        lost = self._chance.random() < self.loss
        await self.clock.sleep(self.delay)
        return not lost


class MemoryNetwork:
    """One node: `fabstir.ports.network.Network`. Memory: the providers that it was told of, until they expire."""

    def __init__(self, internet: MemoryInternet, secret: NodeSecret) -> None:
        self._internet = internet
        self._node = bytes(secret.verify_key)
        self._told: dict[tuple[bytes, bytes], float] = {}
        """(key, provider) -> when it is forgotten."""
        self._announcement = b""
        self._keys: tuple[bytes, ...] = ()
        self._announced_at = 0.0
        self._renewing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<MemoryNetwork {self._node.hex()[:8]} {self.condition().status}, told of {len(self._told)}>"

    @property
    def node(self) -> bytes:
        return self._node

    @property
    def running(self) -> bool:
        """It is part of the internet."""
        return self._internet.nodes.get(self._node) is self

    async def start(self) -> None:
        if not self.running:
            self._internet.nodes[self._node] = self
            self._renewing = asyncio.create_task(self._renew())

    async def stop(self) -> None:
        self.crash()

    def crash(self) -> None:
        """Vanish without a word, and forget everything but what was published."""
        if self.running:
            del self._internet.nodes[self._node]
        self._told.clear()
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    async def publish(self, announcement: bytes, keys: tuple[bytes, ...]) -> None:
        self._require_running()
        self._announcement, self._keys = announcement, keys
        await self._tell()

    async def find(self, keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
        self._require_running()
        now, near = self._internet.clock.now(), self._internet.within_reach(self._node)
        answers = await asyncio.gather(*(self._ask_for_providers(other, keys, now) for other in near))
        providers = sorted(set().union(self._providers(keys, now), *answers) - {self._node})
        said = await asyncio.gather(*(self._ask_for_announcement(provider) for provider in providers))
        return tuple(dict.fromkeys(one for one in said if one))

    def condition(self) -> NetworkCondition:
        near = len(self._internet.within_reach(self._node)) if self.running else 0
        return NetworkCondition(
            status=("ok" if near else "alone") if self.running else "stopped",
            peers=near,
            known=near,
            addresses=(f"/memory/{self._node.hex()}",) if self.running else (),
            providing=len(self._keys),
            announced_at=self._announced_at,
        )

    async def _renew(self) -> None:
        while True:
            await self._internet.clock.sleep(RENEW_SECONDS)
            await self._tell()

    async def _tell(self) -> None:
        near = self._internet.within_reach(self._node)
        heard = await asyncio.gather(*(self._internet.travel() for _ in near))
        for other in [other for other, arrived in zip(near, heard, strict=True) if arrived and other.running]:
            forgotten = self._internet.clock.now() + PROVIDER_SECONDS
            other._told.update({(key, self._node): forgotten for key in self._keys})
            self._announced_at = self._internet.clock.now()

    def _providers(self, keys: tuple[bytes, ...], now: float) -> set[bytes]:
        self._told = {row: until for row, until in self._told.items() if now < until}
        return {provider for key, provider in self._told if key in keys}

    async def _ask_for_providers(self, other: MemoryNetwork, keys: tuple[bytes, ...], now: float) -> set[bytes]:
        return other._providers(keys, now) if await self._internet.travel() and other.running else set()

    async def _ask_for_announcement(self, provider: bytes) -> bytes:
        arrived = await self._internet.travel()
        near = {other.node: other for other in self._internet.within_reach(self._node)}
        return near[provider]._announcement if arrived and provider in near else b""

    def _require_running(self) -> None:
        if not self.running:
            raise error("p2p_unavailable", "this node is not started")
