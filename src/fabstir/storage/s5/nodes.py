"""Sealed blobs of directories, and the nodes of large ones: loaded where a walk asks for them, stored children first.

Carries out what `protocol.storage.hamt` yields. Nodes that were read or written lately are kept by their place, which names one
content for ever; memory is bounded by `CACHED` entries in all of them. Never decides what is in a directory.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Any, Final

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.ports.storage import BlobBackend
from fabstir.protocol.storage import hamt
from fabstir.protocol.storage.blob_id import hash_of
from fabstir.protocol.storage.hamt import Link, Node, Result, Walk
from fabstir.protocol.storage.sealing import NONCE, seal, unseal

CACHED: Final = 200_000
"""Entries and links in cached nodes, about 60 MB."""
AT_ONCE: Final = 16
"""Reads, or writes, that are under way for one walk."""
Random = Callable[[int], bytes]


class NodeStore:
    """On one backend, for any number of directories."""

    def __init__(self, blobs: BlobBackend, random: Random = os.urandom) -> None:
        """`random` gives nonces."""
        self._blobs = blobs
        self._random = random
        self._cache: OrderedDict[Hash32, Node] = OrderedDict()
        self._cached = 0

    def __repr__(self) -> str:
        return f"<NodeStore: {len(self._cache)} nodes, {self._cached} entries cached>"

    async def put(self, content: bytes, key: bytes) -> Hash32:
        """Sealed under `key`, with a nonce of its own: the place is new every time."""
        return await self._blobs.put(seal(content, key, self._random(NONCE)))

    async def get(self, place: Hash32, key: bytes) -> bytes:
        """Checked and opened."""
        return unseal(await self._blobs.get(place), key)

    async def walk(self, steps: Walk[Result], key: bytes, *, heavy: bool = False) -> Result:
        """Run a walk to its end. `heavy` steps run in a thread, so that the event loop goes on."""
        links, done = await _step(steps, None, heavy)
        while links is not None:
            nodes = await self._load(links, key)
            links, done = await _step(steps, nodes, heavy)
        result: Result = done
        return result

    async def store(self, root: Node, key: bytes) -> tuple[Node, list[Hash32]]:
        """`root`, stored with everything new below it, durable; and the places that were written."""
        steps, written, turn = hamt.store(root), list[Hash32](), asyncio.Semaphore(AT_ONCE)
        node, done = await _step(steps, None, heavy=False)
        try:
            async with asyncio.TaskGroup() as puts:
                while node is not None:
                    await turn.acquire()
                    sealed = seal(hamt.encode(node), key, self._random(NONCE))
                    place = hash_of(sealed)
                    written.append(place)
                    puts.create_task(self._blobs.put(sealed)).add_done_callback(lambda _: turn.release())
                    new = node
                    node, done = await _step(steps, place, heavy=False)
                    self._keep(new)
        except* FabstirError as failed:
            raise failed.exceptions[0] from None
        stored: Node = done
        return stored, written

    async def _load(self, links: tuple[Link, ...], key: bytes) -> list[Node]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(link: Link) -> Node:
            if (cached := self._cache.get(link.place)) is not None:
                self._cache.move_to_end(link.place)
                return cached
            async with turn:
                node = hamt.decode(await self.get(link.place, key), link)
            self._keep(node)
            return node

        if len(links) == 1:
            return [await one(links[0])]
        return list(await asyncio.gather(*(one(link) for link in links)))

    def _keep(self, node: Node) -> None:
        if node.link is None or node.link.place in self._cache:
            return
        self._cache[node.link.place] = node
        self._cached += _weight(node)
        while self._cached > CACHED and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached -= _weight(oldest)


def _weight(node: Node) -> int:
    return sum(len(child) if isinstance(child, tuple) else 1 for child in node.children)


async def _step(steps: Generator[Any, Any, Any], value: object, heavy: bool) -> tuple[Any, Any]:
    """What the generator yields, or None and what it returned."""

    def step() -> tuple[Any, Any]:
        try:
            return steps.send(value), None
        except StopIteration as done:
            return None, done.value

    return await asyncio.to_thread(step) if heavy else step()
