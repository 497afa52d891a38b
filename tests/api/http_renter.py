"""A renter that speaks HTTP to a host: begins a session with its signature, asks with its token, signs receipts as they come."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
from tests.api.served import Served
from tests.host.world import Renter, some_terms

from fabstir.domain.terms import Terms
from fabstir.protocol.messages import Receipt, encode


class NoWire:
    """This renter says nothing over a connection of its own."""

    async def send(self, message: bytes | str) -> None:
        raise AssertionError("no connection")

    async def receive(self) -> bytes | str:
        raise AssertionError("no connection")


class HttpRenter:
    """One job, one HTTP client. Signs what it is told to: checking is `Renter`'s."""

    def __init__(self, served: Served, http: aiohttp.ClientSession, terms: Terms | None = None) -> None:
        self.signs = Renter(NoWire(), terms or served.world.chain.open(some_terms()))
        self.url = served.url
        self.token = ""
        self._http = http
        self.receipts: list[Receipt] = []

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and what came back as JSON."""
        data = body if body is None or isinstance(body, bytes) else encode(body)
        given = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._http.request(method, self.url + path, data=data, headers=given) as answer:
            return answer.status, json.loads(await answer.read())

    async def open(self, hello: Any = None) -> Any:
        """A token for a session that stands."""
        status, opened = await self.call("POST", "/v1/sessions", hello or self.signs.init())
        assert status == 201, opened
        self.token = opened["token"]
        return opened

    async def acknowledge(self, receipt: Any) -> Any:
        """Sign and send."""
        found = msgspec.convert(receipt, Receipt)
        self.receipts.append(found)
        voucher = self.signs.voucher(found.tokens, found.amount, found.transcript)
        status, view = await self.call("POST", "/v1/sessions/chat/receipts", voucher)
        assert status == 200, view
        return view

    def chat(self, *said: str, **options: Any) -> dict[str, Any]:
        """The body of a chat completion; turns alternate, the renter begins."""
        roles = ("user", "assistant")
        messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(said)]
        return {"model": "scripted", "messages": messages, "max_tokens": 100, **options}

    async def events(self, path: str, body: Any) -> AsyncIterator[Any]:
        """Of a stream; `[DONE]` as it is."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        async with self._http.post(self.url + path, data=encode(body), headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.startswith(b"data: "):
                    data = line[6:].strip()
                    yield "[DONE]" if data == b"[DONE]" else json.loads(data)

    async def hear(self, body: Any, *, ack: bool = True) -> tuple[str, list[Any]]:
        """A streamed chat completion; its text, and all events."""
        text, seen = "", []
        async for event in self.events("/v1/chat/completions", {**body, "stream": True}):
            seen.append(event)
            if event == "[DONE]" or "error" in event or not event["choices"]:
                continue
            text += event["choices"][0]["delta"].get("content") or ""
            if ack and "receipt" in event["fabstir"]:
                await self.acknowledge(event["fabstir"]["receipt"])
        return text, seen
