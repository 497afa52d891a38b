"""What every part of the market client stands on: one account's reads through the RPC and writes through the outbox."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from fabstir.chain.faults import translate
from fabstir.chain.outbox import Outbox
from fabstir.chain.rpc import JsonRpc, RpcError, quantity
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import Address, to_hex
from fabstir.ports.chain import ChainInfo, TxResult
from fabstir.ports.clock import Clock

T = TypeVar("T")

CATCH_UP_SECONDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Pauses while an endpoint lacks the block of a transaction that another one has shown; three blocks of Base."""


class Calls:
    """One account on one chain."""

    def __init__(self, rpc: JsonRpc, info: ChainInfo, outbox: Outbox, account: Address, clock: Clock) -> None:
        self._rpc = rpc
        self._info = info
        self._outbox = outbox
        self._account = account
        self._clock = clock

    @property
    def info(self) -> ChainInfo:
        """Checked against the endpoint at connect."""
        return self._info

    @property
    def account(self) -> Address:
        """Whose key signs."""
        return self._account

    async def _market(self, key: str, data: bytes, value: int = 0) -> TxResult:
        return await self._send(key, self._info.market, data, value)

    async def _send(self, key: str, to: Address, data: bytes, value: int = 0) -> TxResult:
        """Who reads next sees the effect: a plan made from a state before it would do the same again and again."""
        result = await self._outbox.send(key, to, data, value)
        with contextlib.suppress(ChainFault):  # it is mined, whatever the reading does
            for pause in CATCH_UP_SECONDS:
                if quantity(await ask(self._rpc, "eth_blockNumber")) >= result.block:
                    break
                await self._clock.sleep(pause)
        return result

    async def _call(self, to: Address, data: bytes, decode: Callable[[bytes], T]) -> T:
        answer = await ask(self._rpc, "eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest")
        return decode(bytes.fromhex(answer[2:]))


async def ask(rpc: JsonRpc, method: str, *params: object) -> Any:
    """One request. Raises ChainFault."""
    try:
        return await rpc.request(method, *params)
    except RpcError as fault:
        raise translate(fault) from fault
