"""A gateway behind its real server, over hosts and a chain in memory, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from tests.renter.world import World, world_of

from fabstir.api.gateway import MAX_BODY_BYTES, gateway_app
from fabstir.api.server import listen, serve, url_of
from fabstir.domain.money import BaseUnits
from fabstir.ports.vectors import Embedder
from fabstir.renter.gateway_keys import KeyRing
from fabstir.renter.pool import Pool
from fabstir.testing.journal import MemoryJournal
from fabstir.testing.vectors import WordEmbedder


class Gateway:
    """A running gateway and its surroundings."""

    def __init__(self, world: World, pool: Pool, url: str) -> None:
        self.world = world
        self.pool = pool
        self.url = url

    def client(self, api_key: str = "unused") -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0)

    def anthropic(self, api_key: str = "unused") -> AsyncAnthropic:
        return AsyncAnthropic(base_url=self.url, api_key=api_key, max_retries=0)

    async def ask(self, content: str, **options: Any) -> Any:
        """One request of the stock client, not streamed."""
        async with self.client() as client:
            messages: Any = [{"role": "user", "content": content}]
            return await client.chat.completions.create(model="scripted", messages=messages, **options)

    async def post(self, body: Any, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, Any]:
        """One request by hand."""
        status, answer, _ = await self.send(body, path, **headers)
        return status, json.loads(answer)

    async def send(self, body: Any, path: str, **headers: str) -> tuple[int, bytes, Any]:
        """The same with what came back as it came, and its headers."""
        data = body if isinstance(body, bytes | io.BytesIO) else json.dumps(body).encode()
        given = {
            "content-type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        url = self.url + path
        async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=given) as answer:
            return answer.status, await answer.read(), answer.headers

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json()


@contextlib.asynccontextmanager
async def gateway_of(
    *prices: int,
    budget: int = 1_000_000,
    limit: int = 4,
    api_key: str | None = None,
    keys: KeyRing | None = None,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A gateway over hosts with these prices, until the test ends."""
    async with (
        world_of(*prices, **settings) as world,
        serving(world, budget, limit, api_key, keys, embedder=WordEmbedder()) as gateway,
    ):
        yield gateway


@contextlib.asynccontextmanager
async def serving(
    world: World,
    budget: int = 1_000_000,
    limit: int = 4,
    api_key: str | None = None,
    keys: KeyRing | None = None,
    journal: MemoryJournal | None = None,
    embedder: Embedder | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway in `world`, until the test ends or the next process begins."""
    async with world.market(journal) as market:
        if embedder is not None:
            market.embedding(embedder)
        pool, listener, stop = Pool(market, BaseUnits(budget), limit), listen("127.0.0.1", 0), asyncio.Event()
        app = gateway_app(market, pool, api_key, keys)

        async def no_drain() -> None: ...

        serving = asyncio.create_task(serve(app, listener, max_message_bytes=MAX_BODY_BYTES, stop=stop, drain=no_drain))
        try:
            yield Gateway(world, pool, url_of(listener))
        finally:
            stop.set()
            await serving
            await pool.close()


HELLO = [{"role": "user", "content": "hello"}]
