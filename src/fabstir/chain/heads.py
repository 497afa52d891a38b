"""Who of several endpoints lags behind, and who names a head that it cannot show.

Compares the heads now and then, so that state is read where it is newest. A number alone proves nothing: a head far
ahead counts only where the endpoint also has the block below it. An endpoint that invents a consistent chain is beyond
this; use one of your own. Never decides what is asked of an endpoint.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fabstir.chain.rpc import Endpoint, EndpointDown, JsonRpc, RpcError, quantity
from fabstir.ports.clock import Clock

LAG: Final = 10
"""Blocks behind the newest head from which an endpoint is asked last: 20 s on Base, two minutes on Ethereum."""
LEAP: Final = 32
"""Blocks by which a head may be ahead without evidence; within what a follower can take back."""
EVERY_SECONDS: Final = 15.0
PATIENCE_SECONDS: Final = 3.0


async def is_founded(endpoint: Endpoint, head: dict[str, Any]) -> bool:
    """Whether the endpoint has the block that `head` names as its parent. Raises EndpointDown, RpcError."""
    number = quantity(head["number"])
    if number == 0:
        return True
    parent = await endpoint.request("eth_getBlockByNumber", hex(number - 1), False)
    return parent is not None and parent["hash"] == head["parentHash"]


class HeadSurvey:
    """Of the endpoints of one client. Memory: nothing."""

    def __init__(self, rpc: JsonRpc, clock: Clock) -> None:
        self._rpc = rpc
        self._clock = clock

    async def run(self) -> None:
        """Look every so often, until cancelled. Nothing to compare with one endpoint: then it ends at once."""
        while len(self._rpc.endpoints) > 1:
            await self.look()
            await self._clock.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Ask everybody who may be asked for the newest block, and mark who lags."""
        asked = [endpoint for endpoint in self._rpc.endpoints if endpoint.shut_until <= self._clock.monotonic()]
        heads = dict(zip(asked, await asyncio.gather(*map(self._head, asked)), strict=True))
        known = {endpoint: head for endpoint, head in heads.items() if head is not None}
        first = await self._newest(known)
        if first is None:
            return
        for endpoint in known:
            behind = quantity(known[first]["number"]) - quantity(known[endpoint]["number"])
            endpoint.lagging = behind > LAG
            if endpoint.lagging:
                endpoint.reason = f"{endpoint.label}: {behind} blocks behind {first.label}"

    async def _newest(self, known: dict[Endpoint, dict[str, Any]]) -> Endpoint | None:
        """Whose head is the newest that can be shown; those whose head cannot are taken out of `known`."""
        while known:
            numbers = {endpoint: quantity(head["number"]) for endpoint, head in known.items()}
            first = max(known, key=lambda endpoint: numbers[endpoint])
            if numbers[first] - min(numbers.values()) <= LAG or await self._founded(first, known[first]):
                return first
            del known[first]
        return None

    async def _head(self, endpoint: Endpoint) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                head: dict[str, Any] = await self._rpc.ask(endpoint, "eth_getBlockByNumber", "latest", False)
                return head
        except (EndpointDown, RpcError) as cause:
            self._rpc.rest(endpoint, cause)
        except TimeoutError:
            self._rpc.rest(endpoint, EndpointDown(f"{endpoint.label}: no answer in {PATIENCE_SECONDS:g} s"))
        return None

    async def _founded(self, endpoint: Endpoint, head: dict[str, Any]) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if await is_founded(endpoint, head):
                    return True
        except (EndpointDown, RpcError) as cause:
            self._rpc.rest(endpoint, cause)
            return False
        except TimeoutError:
            self._rpc.rest(endpoint, EndpointDown(f"{endpoint.label}: no answer in {PATIENCE_SECONDS:g} s"))
            return False
        self._rpc.distrust(endpoint, f"names block {quantity(head['number'])} as its head and has none below it")
        return False
