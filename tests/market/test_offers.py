"""A host's offer over HTTP, from hosts that may be anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import msgspec
import pytest
from aiohttp import web
from nacl.signing import SigningKey as NodeSecret
from tests.market.test_choice import candidate

from fabstir.domain.errors import FabstirError
from fabstir.market.offers import MAX_OFFER_BYTES, HttpOffers
from fabstir.protocol.node_key import NodeKey
from fabstir.protocol.offer import Offer
from fabstir.protocol.signed_offer import sign_offer
from fabstir.protocol.signing import SigningKey

NOW = 1_800_000_000.0
ACCOUNT = SigningKey(b"\x07" * 32)
PLAIN = msgspec.structs.replace(cast(Offer, candidate(1).offer), host=ACCOUNT.address)
NODE = NodeKey(NodeSecret(b"\x08" * 32), ACCOUNT, PLAIN.market)
OFFER = msgspec.structs.replace(PLAIN, node=NODE.public)
BODY = msgspec.json.encode(sign_offer(PLAIN, ACCOUNT, NODE, NOW))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def host(handler: Handler) -> AsyncIterator[str]:
    """A host on loopback that answers `GET /v1/offer` with `handler`."""
    app = web.Application()
    app.router.add_get("/base/v1/offer", handler)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/base/"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def offers(seconds: float = 30.0) -> AsyncIterator[HttpOffers]:
    source = HttpOffers(lambda: NOW, seconds)
    try:
        yield source
    finally:
        await source.close()


async def asked(handler: Handler) -> Offer:
    async with host(handler) as url, offers() as source:
        return await source.fetch(url)


async def test_an_offer_arrives_as_it_was_made() -> None:
    """Every field."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=BODY)

    assert await asked(handler) == OFFER


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, BODY, "host_unreachable"),
        (500, BODY, "host_unreachable"),
        (200, b"", "message_malformed"),
        (200, b"[]", "message_malformed"),
        (200, b"\xff", "message_malformed"),
        (200, BODY.replace(b'"min_deposit":"10000"', b'"min_deposit":"-1"'), "message_malformed"),
        (200, BODY.replace(b'"host":"0x', b'"host":"0y'), "message_malformed"),
        (200, b" " * (MAX_OFFER_BYTES + 1), "message_malformed"),
        (200, BODY.replace(b'"max_answer_tokens":', b'"max_answer_tokens":1'), "offer_untrusted"),
        (200, BODY.replace(b'"min_deposit":"10000"', b'"min_deposit":"10001"'), "offer_untrusted"),
    ],
)
async def test_an_answer_that_is_no_offer_is_a_named_error(status: int, body: bytes, code: str) -> None:
    """Also one that would never end: reading stops at the bound."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    with pytest.raises(FabstirError) as caught:
        await asked(handler)
    assert caught.value.code == code


async def test_an_offer_is_not_looked_for_elsewhere() -> None:
    """A redirect would let a host make the renter call any address."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "http://127.0.0.1:9/"})

    with pytest.raises(FabstirError, match="host_unreachable.*302"):
        await asked(handler)


async def test_a_host_that_is_silent_is_given_up() -> None:
    """After the time-out, whatever it does with the connection."""
    never = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async with host(handler) as url, offers(0.05) as source:
        with pytest.raises(FabstirError, match="host_unreachable.*Timeout"):
            await source.fetch(url)
        never.set()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://[", "gopher://x", "no url", "http://no.such.host.invalid"]
)
async def test_a_host_that_is_not_there_is_a_named_error(url: str) -> None:
    """The registry is open to everybody: any text may stand there."""
    async with offers() as source:
        with pytest.raises(FabstirError, match="host_unreachable"):
            await source.fetch(url)


async def test_closing_twice_is_once() -> None:
    """And without a question there is nothing to close."""
    source = HttpOffers(lambda: NOW)
    await source.close()
    await source.close()
