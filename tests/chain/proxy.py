"""JSON-RPC proxies that fail on purpose: before the node heard of a call, after it did what was asked, or by showing an old state."""

from __future__ import annotations

import json
import random
from types import TracebackType
from typing import Any, Literal

import aiohttp
from aiohttp import web

Fate = Literal["pass", "refuse", "lose answer"]


class FlakyProxy:
    """`async with FlakyProxy(node, rate, seed) as proxy: proxy.url`."""

    def __init__(self, target: str, rate: float, seed: int, *, longest_range: int | None = None) -> None:
        self._target = target
        self._rate = rate
        self._longest_range = longest_range
        self._random = random.Random(seed)
        self.behind_at: int | None = None
        """The block that it shows as its newest; None: the node's."""
        self.shown = 0
        """Times that it showed an old head."""
        self.catches_up_after = 0
        self.fates: dict[Fate, int] = {"pass": 0, "refuse": 0, "lose answer": 0}
        self.url = ""

    async def __aenter__(self) -> FlakyProxy:
        application = web.Application()
        application.router.add_post("/", self._serve)
        self._client = aiohttp.ClientSession()
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._runner.cleanup()  # first: a call that is being passed on ends before what it is passed on with
        await self._client.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        fate: Fate = "pass"
        if self._random.random() < self._rate:
            fate = "refuse" if self._random.random() < 0.5 else "lose answer"
        self.fates[fate] += 1
        body = await request.read()
        if fate == "refuse":
            return web.Response(status=503)
        call = json.loads(body)
        if self.behind_at is not None and call["method"] == "eth_blockNumber":
            return self._old_head(self.behind_at)
        if self.behind_at is not None and call["method"] == "eth_call":
            body = json.dumps(call | {"params": [call["params"][0], hex(self.behind_at)]}).encode()
        if self._is_too_long(call):
            return web.json_response({"id": 1, "error": {"code": -32602, "message": "block range is too large"}})
        async with self._client.post(self._target, data=body, headers={"content-type": "application/json"}) as answer:
            content = await answer.read()
        if fate == "lose answer":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=content, content_type="application/json")

    def _old_head(self, block: int) -> web.Response:
        self.shown += 1
        if self.shown == self.catches_up_after:
            self.behind_at = None
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": hex(block)})

    def _is_too_long(self, call: dict[str, Any]) -> bool:
        if self._longest_range is None or call["method"] != "eth_getLogs":
            return False
        query = call["params"][0]
        return int(query["toBlock"], 16) - int(query["fromBlock"], 16) >= self._longest_range
