"""An RPC node in this process whose chain, and whose lies, a test sets: for endpoints that lag, lie, limit or serve another chain."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any

from aiohttp import web


class ScriptedNode:
    """`async with ScriptedNode(head=20) as node: node.url`. Blocks of one fork have equal hashes on all nodes."""

    def __init__(self, head: int = 20, *, chain_id: int = 1) -> None:
        self.head = head
        """What it names as its head."""
        self.real: int | None = None
        """Up to where it really has blocks, besides the head that it names; None: all."""
        self.chain_id = chain_id
        self.logs: dict[int, int] = {}
        """Number of logs by block."""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.hangs = False
        self.calls: list[str] = []
        self.url = ""
        self._closing = asyncio.Event()

    async def __aenter__(self) -> ScriptedNode:
        application = web.Application()
        application.router.add_post("/{tail:.*}", self._serve)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        call = json.loads(await request.read())
        self.calls.append(call["method"])
        if self.hangs:
            await self._closing.wait()
        if self.status != 200:
            return web.Response(status=self.status, headers=self.headers)
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": self._answer(call["method"], call["params"])})

    def _answer(self, method: str, params: list[Any]) -> Any:
        if method == "eth_chainId":
            return hex(self.chain_id)
        if method == "eth_blockNumber":
            return hex(self.head)
        if method == "eth_getBlockByNumber":
            return self._block(self.head if params[0] == "latest" else int(params[0], 16))
        first, last = (int(params[0][end], 16) for end in ("fromBlock", "toBlock"))
        return [log for number in range(first, last + 1) for log in self._logs(number)]

    def _block(self, number: int) -> dict[str, str] | None:
        has = number <= self.head and (self.real is None or number <= self.real or number == self.head)
        return {"number": hex(number), "hash": _hash(number), "parentHash": _hash(number - 1)} if has else None

    def _logs(self, number: int) -> list[dict[str, Any]]:
        place = {"blockNumber": hex(number), "blockHash": _hash(number), "address": "0x" + "0b" * 20}
        count = self.logs.get(number, 0)
        return [place | {"logIndex": hex(index), "transactionHash": _hash(0)} for index in range(count)]


def _hash(number: int) -> str:
    return "0x" + (number + 1).to_bytes(32, "big").hex()
