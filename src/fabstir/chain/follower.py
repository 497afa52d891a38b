"""Follows the logs of contracts by block range, and takes back what a reorganisation took back.

Pulls, so that nothing is missed: a subscription may wake it early and may be lost at no cost. Each step asks one
endpoint only, because a second one that lags would answer with an empty list for blocks that it lacks; the last few
blocks are read again for the same reason. A head far ahead is believed when the endpoint can show the block below it; a
head that stays behind is believed after a while. The place moves on only when the consumer has taken a batch. Never
decides what an event means. See research/chain.md 3.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from fabstir.chain.heads import LEAP, is_founded
from fabstir.chain.rpc import Endpoint, EndpointDown, JsonRpc, RpcError, quantity
from fabstir.domain.errors import ChainFault, error
from fabstir.domain.ids import Address, Hash32, to_hex
from fabstir.ports.clock import Clock

E = TypeVar("E")

DEPTH: Final = 64
"""Blocks that are kept for unwinding. Base reorganises by single blocks; 64 is Ethereum's finality."""
RESCAN: Final = 4
"""Blocks read again at each step."""
BEHIND_STEPS: Final = 30
"""Steps in a row with a head below our place until that place is given up: an endpoint that lags has caught up by then, one that
had lied about its head has gone. At one step a second, half a minute."""
SPAN: Final = 2_000
"""Blocks in one query at most; halved where an endpoint finds it too many."""


class Followed(msgspec.Struct, Generic[E], frozen=True):
    """One decoded log, or its removal."""

    event: E
    emitter: Address
    block: int
    block_hash: Hash32
    index: int
    transaction: Hash32
    removed: bool = False


class Window(Generic[E]):
    """What is known of the newest blocks: pure bookkeeping. Memory: `DEPTH` blocks of range ends and of logs."""

    def __init__(self, start: int) -> None:
        """Nothing before block `start` is of interest."""
        self.floor = start - 1
        self.cursor = start - 1
        """Everything up to this block was handed out."""
        self.blocks: dict[int, tuple[Hash32, dict[int, Followed[E]]]] = {}

    def newest(self) -> int | None:
        """The newest block that is remembered."""
        return max(self.blocks, default=None)

    def removals(self, number: int) -> list[Followed[E]]:
        """What is to be taken back where remembered block `number` is orphaned: last log first."""
        _, logs = self.blocks[number]
        return [msgspec.structs.replace(logs[index], removed=True) for index in sorted(logs, reverse=True)]

    def forget_newest(self) -> None:
        """The newest remembered block is not on the chain any more."""
        del self.blocks[max(self.blocks)]
        self.cursor = max(self.blocks, default=self.floor)

    def unseen(self, logs: Sequence[Followed[E]]) -> list[Followed[E]]:
        """Those that were not handed out yet, in chain order."""
        fresh = [log for log in logs if log.index not in self.blocks.get(log.block, (None, {}))[1]]
        return sorted(fresh, key=lambda log: (log.block, log.index))

    def advance(self, logs: Sequence[Followed[E]], last: int, last_hash: Hash32) -> None:
        """`logs` were handed out, and block `last` is the end of what was read."""
        for log in logs:
            self.blocks.setdefault(log.block, (log.block_hash, {}))[1][log.index] = log
        self.blocks.setdefault(last, (last_hash, {}))
        self.cursor = max(self.cursor, last)
        for number in [number for number in self.blocks if number <= self.cursor - DEPTH]:
            del self.blocks[number]
            self.floor = max(self.floor, number)


class LogFollower(Generic[E]):
    """One consumer of one set of contracts. Memory: that of its window and one batch."""

    def __init__(
        self,
        rpc: JsonRpc,
        clock: Clock,
        addresses: Sequence[Address],
        decode: Callable[[dict[str, Any]], E | None],
        *,
        start: int = 0,
        poll: float = 1.0,
        span: int = SPAN,
    ) -> None:
        """`decode` gets a log as JSON-RPC gives it; None for one that is of no interest."""
        self._rpc = rpc
        self._clock = clock
        self._filter = [to_hex(address) for address in addresses]
        self._decode = decode
        self._poll = poll
        self._span = span
        self._wake = asyncio.Event()
        self._behind = 0
        self.window: Final = Window[E](start)

    def __repr__(self) -> str:
        return f"<LogFollower at block {self.window.cursor}, {len(self.window.blocks)} blocks remembered>"

    def wake(self) -> None:
        """There may be news: look at once."""
        self._wake.set()

    async def step(self) -> AsyncIterator[list[Followed[E]]]:
        """Batches up to the present head. A batch counts as taken when the next one is asked for.

        Raises `chain_unreachable`, `chain_failed`; then nothing that was not taken is lost.
        """
        endpoint = await self._rpc.pick()
        try:
            head = await self._head(endpoint)
            async for batch in self._unwind(endpoint, quantity(head["number"])):
                yield batch
            async for batch in self._forward(endpoint, head):
                yield batch
        except EndpointDown as cause:
            self._rpc.rest(endpoint, cause)
            raise error("chain_unreachable", detail=str(cause)) from cause
        except RpcError as cause:
            raise error("chain_failed", detail=f"{endpoint.label}: {cause.message}") from cause

    async def run(self, consume: Callable[[list[Followed[E]]], Awaitable[None]]) -> None:
        """Follow for ever; an unreachable chain is waited out."""
        while True:
            try:
                async for batch in self.step():
                    await consume(batch)
            except ChainFault as fault:
                if not fault.retryable:
                    raise
            await self._pause()

    async def _pause(self) -> None:
        waits = {asyncio.create_task(self._clock.sleep(self._poll)), asyncio.create_task(self._wake.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._wake.clear()

    async def _head(self, endpoint: Endpoint) -> dict[str, Any]:
        head: dict[str, Any] = await endpoint.request("eth_getBlockByNumber", "latest", False)
        number = quantity(head["number"])
        if number > self.window.cursor + LEAP and not await is_founded(endpoint, head):
            self._rpc.distrust(endpoint, f"names block {number} as its head and has none below it")
            raise EndpointDown(f"{endpoint.label}: its head {number} is unfounded")
        self._behind = self._behind + 1 if number < self.window.cursor else 0
        return head

    async def _unwind(self, endpoint: Endpoint, head: int) -> AsyncIterator[list[Followed[E]]]:
        while (newest := self.window.newest()) is not None and newest > head and self._behind >= BEHIND_STEPS:
            removed = self.window.removals(newest)
            if removed:
                yield removed
            self.window.forget_newest()
        while (newest := self.window.newest()) is not None and newest <= head:
            block = await endpoint.request("eth_getBlockByNumber", hex(newest), False)
            if block is not None and _hash(block["hash"]) == self.window.blocks[newest][0]:
                return
            removed = self.window.removals(newest)
            if removed:
                yield removed
            self.window.forget_newest()

    async def _forward(self, endpoint: Endpoint, head: dict[str, Any]) -> AsyncIterator[list[Followed[E]]]:
        top = quantity(head["number"])
        if top < self.window.cursor:
            return  # this endpoint lags: it knows nothing new
        first = max(self.window.floor + 1, self.window.cursor + 1 - RESCAN)
        while first <= top:
            last = min(first + self._span - 1, top)
            try:
                logs = await self._logs(endpoint, first, last)
            except RpcError:
                if self._span == 1:
                    raise
                self._span //= 2
                continue
            end = head if last == top else await endpoint.request("eth_getBlockByNumber", hex(last), False)
            if end is None or not self._agrees(logs, last, _hash(end["hash"])):
                return  # the chain changed between the questions: unwind and read again in the next step
            fresh = self.window.unseen(logs)
            if fresh:
                yield fresh
            self.window.advance(fresh, last, _hash(end["hash"]))
            first = last + 1

    def _agrees(self, logs: Sequence[Followed[E]], last: int, last_hash: Hash32) -> bool:
        known = {number: block_hash for number, (block_hash, _) in self.window.blocks.items()} | {last: last_hash}
        return all(known.get(log.block, log.block_hash) == log.block_hash for log in logs)

    async def _logs(self, endpoint: Endpoint, first: int, last: int) -> list[Followed[E]]:
        query = {"fromBlock": hex(first), "toBlock": hex(last), "address": self._filter}
        found = await endpoint.request("eth_getLogs", query)
        return [followed for log in found if (followed := self._read(log)) is not None]

    def _read(self, log: dict[str, Any]) -> Followed[E] | None:
        event = self._decode(log)
        if event is None:
            return None
        return Followed(
            event=event,
            emitter=Address(bytes.fromhex(log["address"][2:])),
            block=quantity(log["blockNumber"]),
            block_hash=_hash(log["blockHash"]),
            index=quantity(log["logIndex"]),
            transaction=_hash(log["transactionHash"]),
        )


def _hash(text: str) -> Hash32:
    return Hash32(bytes.fromhex(text[2:]))
