"""What every part of the market client stands on: one account's reads through the RPC and writes through the outbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fabstir.chain.faults import translate
from fabstir.chain.outbox import Outbox
from fabstir.chain.rpc import JsonRpc, RpcError
from fabstir.domain.ids import Address, to_hex
from fabstir.ports.chain import ChainInfo, TxResult

T = TypeVar("T")


class Calls:
    """One account on one chain."""

    def __init__(self, rpc: JsonRpc, info: ChainInfo, outbox: Outbox, account: Address) -> None:
        self._rpc = rpc
        self._info = info
        self._outbox = outbox
        self._account = account

    @property
    def info(self) -> ChainInfo:
        """Checked against the endpoint at connect."""
        return self._info

    @property
    def account(self) -> Address:
        """Whose key signs."""
        return self._account

    async def _market(self, key: str, data: bytes, value: int = 0) -> TxResult:
        return await self._outbox.send(key, self._info.market, data, value)

    async def _call(self, to: Address, data: bytes, decode: Callable[[bytes], T]) -> T:
        answer = await ask(self._rpc, "eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest")
        return decode(bytes.fromhex(answer[2:]))


async def ask(rpc: JsonRpc, method: str, *params: object) -> Any:
    """One request. Raises ChainFault."""
    try:
        return await rpc.request(method, *params)
    except RpcError as fault:
        raise translate(fault) from fault
