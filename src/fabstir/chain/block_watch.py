"""Watches whether the blocks that hold our transactions stay on the chain, until they are buried.

Looks at the head every so often, while there is anything to watch. As long as the last head is still an ancestor,
nothing was reorganised and two requests are all; else each watched block is compared by its hash. What is orphaned or
buried is told by name, once; what then has to be done is decided by `outbox`. One look asks one endpoint; one that lags
proves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from fabstir.chain.account import HORIZON
from fabstir.chain.rpc import Endpoint, EndpointDown, JsonRpc, RpcError, quantity
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import Hash32
from fabstir.ports.clock import Clock

log = structlog.get_logger("fabstir.chain")

Told = Callable[[str], Awaitable[None]]


class BlockWatch:
    """Of one outbox. Memory: one line for each transaction in the newest `HORIZON` blocks."""

    def __init__(self, rpc: JsonRpc, clock: Clock, every: float, *, on_orphaned: Told, on_buried: Told) -> None:
        """Each callback takes the name out, or the next look tells it again."""
        self._rpc = rpc
        self._clock = clock
        self._every = every
        self._on_orphaned = on_orphaned
        self._on_buried = on_buried
        self._blocks: dict[str, tuple[int, Hash32]] = {}
        self._compared: set[str] = set()
        self._last: tuple[int, str] | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<BlockWatch {len(self._blocks)} transactions>"

    def add(self, name: str, block: int, block_hash: Hash32) -> None:
        """Watch; starts looking where nothing was watched."""
        self._blocks[name] = (block, block_hash)
        self._compared.discard(name)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="block watch")

    def remove(self, name: str) -> None:
        """It is in no block any more, or buried."""
        self._blocks.pop(name, None)
        self._compared.discard(name)

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def still_there(self, block: int, block_hash: Hash32) -> bool | None:
        """Whether that block is on the chain; None where the endpoint does not know or does not answer."""
        with contextlib.suppress(ChainFault, RpcError):
            found = await self._rpc.request("eth_getBlockByNumber", hex(block), False)
            if found is not None:
                return bool(_hash(found) == block_hash)
        return None

    async def _run(self) -> None:
        while self._blocks:
            await self._clock.sleep(self._every)
            with contextlib.suppress(ChainFault):
                await self.look()

    async def look(self) -> None:
        """Once. Raises ChainFault where the chain cannot be reached."""
        endpoint = await self._rpc.pick()
        try:
            head = await endpoint.request("eth_getBlockByNumber", "latest", False)
            orphaned = await self._orphaned(endpoint, head)
        except EndpointDown as cause:
            self._rpc.rest(endpoint, cause)
            return
        except RpcError as cause:
            self._rpc.rest(endpoint, cause)
            return
        for name in orphaned:
            log.warning("transaction_orphaned", name=name, block=self._blocks[name][0])
            await self._on_orphaned(name)
        top = quantity(head["number"])
        for name in [name for name, (block, _) in self._blocks.items() if block <= top - HORIZON]:
            if name in self._compared:
                await self._on_buried(name)

    async def _orphaned(self, endpoint: Endpoint, head: dict[str, Any]) -> list[str]:
        """Those whose block is not on the chain of `head`; the others are compared now."""
        top = quantity(head["number"])
        if not await self._grew(endpoint, head):
            self._compared.clear()
        orphaned, known = [], dict[int, Hash32 | None]()
        for name, (block, block_hash) in list(self._blocks.items()):
            if name in self._compared or block > top:
                continue
            if block not in known:
                found = await endpoint.request("eth_getBlockByNumber", hex(block), False)
                known[block] = None if found is None else _hash(found)
            if known[block] == block_hash:
                self._compared.add(name)
            elif known[block] is not None:
                orphaned.append(name)
        self._last = (top, head["hash"])
        return orphaned

    async def _grew(self, endpoint: Endpoint, head: dict[str, Any]) -> bool:
        """Whether the head of the last look is `head` or an ancestor of it."""
        if self._last is None:
            return False
        number, hash_ = self._last
        if quantity(head["number"]) == number:
            return bool(head["hash"] == hash_)
        if quantity(head["number"]) == number + 1:
            return bool(head["parentHash"] == hash_)
        if quantity(head["number"]) < number:
            return False
        block = await endpoint.request("eth_getBlockByNumber", hex(number), False)
        return block is not None and block["hash"] == hash_


def _hash(block: dict[str, Any]) -> Hash32:
    return Hash32(bytes.fromhex(block["hash"][2:]))
