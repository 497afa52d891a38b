"""One account's transactions as an endpoint sees them: estimate, nonce, push, receipt.

Stateless: asks and translates, remembers nothing and decides nothing about sending again (that is `outbox`). Raises
ChainFault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from fabstir.chain.faults import translate
from fabstir.chain.rpc import JsonRpc, RpcError, quantity
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, Hash32, to_hex

Push = Literal["accepted", "nonce_used", "outbid", "refused"]

HORIZON: Final = 64
"""Blocks beyond which nothing is reorganised (Ethereum's finality), and within which every node still knows an account's past."""

_KNOWN: Final = ("already known", "already imported", "known transaction", "alreadyknown")
_USED: Final = ("nonce too low", "nonce is too low")
_OUTBID: Final = ("underpriced",)


class PushAnswer(msgspec.Struct, frozen=True):
    """What became of one push.

    accepted: in the pool, or already there. nonce_used: some transaction with this nonce was mined, perhaps this one. outbid: another
    one with this nonce waits in the pool. refused: anything else, with the endpoint's words.
    """

    outcome: Push
    words: str = ""


class NonceUse(msgspec.Struct, frozen=True):
    """What became of a nonce.

    free: no transaction with it is in a block. found: `transaction` is. buried: used before the newest `HORIZON` blocks. unknown: it
    is used, and the endpoints do not show by what.
    """

    kind: Literal["free", "found", "buried", "unknown"]
    transaction: Hash32 | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A mined transaction."""

    hash: Hash32
    block: int
    block_hash: Hash32
    gas_used: int
    succeeded: bool


class ChainAccount:
    """Reads and pushes for one address."""

    def __init__(self, rpc: JsonRpc, address: Address) -> None:
        self._rpc = rpc
        self.address: Final = address

    async def estimate(self, to: str, data: bytes, value: int) -> int:
        """Gas in the next block. Raises `chain_reverted` where the contract would refuse there, `funds_insufficient`."""
        return quantity(await self._ask("eth_estimateGas", self._call(to, data, value), "pending"))

    async def base_fee(self) -> int:
        """Of the newest block, in wei."""
        block = await self._ask("eth_getBlockByNumber", "latest", False)
        return quantity(block["baseFeePerGas"])

    async def balance(self) -> int:
        """Wei."""
        return quantity(await self._ask("eth_getBalance", to_hex(self.address), "latest"))

    async def next_nonce(self) -> int:
        """After everything that the endpoint has in its pool."""
        return quantity(await self._ask("eth_getTransactionCount", to_hex(self.address), "pending"))

    async def least_next_nonce(self) -> int:
        """After what every endpoint that answers has in its pool: none of them has seen less. Raises `chain_unreachable`."""
        answers = await self._rpc.everywhere("eth_getTransactionCount", to_hex(self.address), "pending")
        return min(map(quantity, answers)) if answers else await self.next_nonce()

    async def nonce_use(self, nonce: int) -> NonceUse:
        """Which mined transaction has `nonce`, by bisection over the account's past: proof, where silence would be none."""
        high = quantity(await self._ask("eth_blockNumber"))
        if await self._used_before(high) <= nonce:
            return NonceUse("free")
        low = max(0, high - HORIZON)
        if await self._used_before(low) > nonce:
            return NonceUse("buried")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if await self._used_before(middle) > nonce else (middle, high)
        block = await self._ask("eth_getBlockByNumber", hex(high), True)
        for found in block["transactions"] if block is not None else ():
            if found["from"].lower() == to_hex(self.address) and quantity(found["nonce"]) == nonce:
                return NonceUse("found", _hash(found["hash"]))
        return NonceUse("unknown")

    async def _used_before(self, block: int) -> int:
        """The first nonce that is free after `block`."""
        return quantity(await self._ask("eth_getTransactionCount", to_hex(self.address), hex(block)))

    async def push(self, raw: bytes) -> PushAnswer:
        """Hand a signed transaction to the network. Raises `chain_unreachable`; it may have been taken all the same."""
        try:
            await self._rpc.request("eth_sendRawTransaction", to_hex(raw))
        except RpcError as fault:
            return _read_refusal(fault)
        return PushAnswer("accepted")

    async def receipt(self, hashes: Sequence[Hash32], nonce: int) -> Receipt | None:
        """Of whichever form with `nonce` was mined, newest first. Many forms cost one question while none of them can be."""
        if len(hashes) > 1:
            used = quantity(await self._ask("eth_getTransactionCount", to_hex(self.address), "latest"))
            if used <= nonce:
                return None
        for name in reversed(hashes):
            found = await self._ask("eth_getTransactionReceipt", to_hex(name))
            if found is not None:
                return _read_receipt(found)
        return None

    async def receipt_anywhere(self, hashes: Sequence[Hash32]) -> Receipt | None:
        """Of whichever was mined, asking every endpoint: for the moment when *not found* would mean sending again. Raises
        `chain_unreachable` where nobody answers."""
        for name in reversed(hashes):
            answers = await self._rpc.everywhere("eth_getTransactionReceipt", to_hex(name))
            if not answers:
                raise error("chain_unreachable", detail="eth_getTransactionReceipt")
            for found in answers:
                if found is not None:
                    return _read_receipt(found)
        return None

    async def revert_reason(self, to: str, data: bytes, value: int, receipt: Receipt) -> str:
        """Why a mined transaction failed: the same call again on the state before its block."""
        try:
            await self._rpc.request("eth_call", self._call(to, data, value), hex(receipt.block - 1))
        except RpcError as fault:
            return translate(fault).detail
        except FabstirError as fault:
            return fault.code
        return f"reverted in block {receipt.block} with {receipt.gas_used} gas used; the same call passes alone"

    def _call(self, to: str, data: bytes, value: int) -> dict[str, str]:
        return {"from": to_hex(self.address), "to": to, "data": to_hex(data), "value": hex(value)}

    async def _ask(self, method: str, *params: object) -> Any:
        try:
            return await self._rpc.request(method, *params)
        except RpcError as fault:
            raise translate(fault) from fault


def _read_refusal(fault: RpcError) -> PushAnswer:
    words = fault.message.lower()
    if any(known in words for known in _KNOWN):
        return PushAnswer("accepted", fault.message)
    if any(used in words for used in _USED):
        return PushAnswer("nonce_used", fault.message)
    if any(outbid in words for outbid in _OUTBID):
        return PushAnswer("outbid", fault.message)
    return PushAnswer("refused", fault.message)


def _read_receipt(found: dict[str, Any]) -> Receipt:
    return Receipt(
        hash=_hash(found["transactionHash"]),
        block=quantity(found["blockNumber"]),
        block_hash=_hash(found["blockHash"]),
        gas_used=quantity(found["gasUsed"]),
        succeeded=quantity(found["status"]) == 1,
    )


def _hash(text: str) -> Hash32:
    return Hash32(bytes.fromhex(text[2:]))
