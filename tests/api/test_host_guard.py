"""Who a host's API answers: by its own names, no foreign page, not too often; and what only the operator sees."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from tests.api.served import Served, serving
from tests.host.world import World, eventually
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fabstir.api.host_guard import MAX_HEADER_BYTES, ApiRules
from fabstir.protocol.http_signing import Answer, Request, verify_answer
from fabstir.protocol.signed_offer import read_offer

KEY = "the operator's own key"
FROM_FAR = {"x-forwarded-for": "203.0.113.7"}
"""As a proxy on this machine says it."""


async def get(served: Served, path: str, **headers: str) -> tuple[int, Any, Any]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.get(served.url + path, headers=given) as answer:
        return answer.status, await answer.read(), answer.headers


async def refused(served: Served, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, code and detail."""
    status, body, _ = await get(served, path, **headers)
    fault = json.loads(body)
    return status, fault["code"], fault["detail"]


async def handshake(served: Served, **headers: str) -> tuple[int, dict[str, Any]]:
    """101 or what was answered instead."""
    try:
        async with connect(served.ws_url, additional_headers=headers):
            return 101, {}
    except InvalidStatus as answered:
        return answered.response.status_code, json.loads(answered.response.body or b"{}")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "",
        "127.0.0.1@evil.example",
        "127.0.0.1/x",
        "[::1",
        "0x7f.1",
    ],
)
async def test_a_name_that_is_none_of_its_own_is_refused(host: str) -> None:
    """A page that rebinds its name to this machine reaches nothing, over HTTP and WebSocket alike."""
    async with serving(World(), rules=ApiRules(names=frozenset(("host.example",)))) as served:
        status, code, detail = await refused(served, "/v1/offer", host=host)
        assert (status, code) == (403, "origin_refused") and repr(host) in detail


async def test_its_own_names_and_addresses_are_answered() -> None:
    """Those that are listed, in any case and with a port, and addresses, which nobody can rebind."""
    async with serving(World(), rules=ApiRules(names=frozenset(("host.example",)))) as served:
        for host in ("host.example", "HOST.example:8080", "localhost:1", "203.0.113.9", "[2001:db8::1]:8080"):
            assert (await get(served, "/v1/offer", host=host))[0] == 200, host


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("https://evil.example", "127.0.0.1", 403),
        ("null", "127.0.0.1", 403),
        ("http://evil.example@127.0.0.1", "127.0.0.1", 403),
        ("file://", "127.0.0.1", 403),
        ("http://localhost:5173", "203.0.113.9", 403),
        ("http://localhost:5173", "127.0.0.1", 200),
        ("https://app.example", "127.0.0.1", 200),
        ("https://203.0.113.9", "203.0.113.9", 200),
    ],
)
async def test_a_web_page_is_answered_where_its_origin_is_listed_or_the_same(
    origin: str, host: str, status: int
) -> None:
    """Or where both are this machine; a program sends none."""
    async with serving(World(), rules=ApiRules(origins=frozenset(("https://app.example",)))) as served:
        assert (await get(served, "/v1/models", origin=origin, host=host))[0] == status
        assert (await handshake(served, origin=origin, host=host))[0] == (101 if status == 200 else 403)


async def test_any_origin_can_be_allowed() -> None:
    """For a host that browsers are to call."""
    async with serving(World(), rules=ApiRules(origins=frozenset("*"))) as served:
        assert (await handshake(served, origin="https://anything.example"))[0] == 101


async def test_what_is_the_operators_is_shown_to_the_operator() -> None:
    """Without a key: to callers on this machine who ask for it by its name, not through a proxy. Others get the status alone."""
    async with serving(World(), rules=ApiRules(names=frozenset(("host.example",)))) as served:
        assert (await get(served, "/metrics"))[0] == 200
        assert "engine" in json.loads((await get(served, "/health"))[1])
        for headers in ({"host": "host.example"}, FROM_FAR):
            assert (await refused(served, "/metrics", **headers))[:2] == (401, "operator_only")
            status, body, _ = await get(served, "/health", **headers)
            assert (status, json.loads(body)) == (200, {"status": "ok"})


async def test_with_a_key_only_the_key_counts() -> None:
    """Also on this machine."""
    async with serving(World(), rules=ApiRules(operator_key=KEY)) as served:
        for given in ("", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer \u00e9"):
            assert (await refused(served, "/metrics", authorization=given))[:2] == (401, "operator_only")
        assert json.loads((await get(served, "/health"))[1]) == {"status": "ok"}
        for headers in ({}, FROM_FAR):
            assert (await get(served, "/metrics", authorization=f"bearer {KEY}", **headers))[0] == 200


async def test_too_many_requests_are_told_when_to_come_back() -> None:
    """By address; others are answered meanwhile, and so is whoever waited."""
    async with serving(World(), rules=ApiRules(requests_per_minute=3)) as served:
        for _ in range(3):
            assert (await get(served, "/v1/models", **FROM_FAR))[0] == 200
        status, body, headers = await get(served, "/v1/models", **FROM_FAR)
        fault = json.loads(body)
        assert (status, fault["code"], fault["retryable"]) == (429, "rate_limited", True)
        assert "203.0.113.7: more than 3 requests a minute" in fault["detail"] and headers["retry-after"] == "20"
        assert (await handshake(served, **FROM_FAR))[0] == 429
        assert (await get(served, "/v1/models", **{"x-forwarded-for": "203.0.113.8"}))[0] == 200
        assert (await get(served, "/v1/models"))[0] == 200
        await served.world.clock.advance(20)
        assert (await get(served, "/v1/models", **FROM_FAR))[0] == 200


async def test_one_address_does_not_take_every_connection() -> None:
    """The bound and the count are told; a place that is left is free again; this machine is not counted."""
    async with serving(World(), rules=ApiRules(max_per_address=2)) as served:
        first, _ = [await served.socket(additional_headers=FROM_FAR) for _ in range(2)]
        status, fault = await handshake(served, **FROM_FAR)
        assert (status, fault["code"], fault["detail"]) == (
            429,
            "rate_limited",
            "2 WebSockets of 203.0.113.7, at most 2",
        )
        assert (await handshake(served))[0] == 101
        await first.close()

        async def free() -> bool:
            return (await handshake(served, **FROM_FAR))[0] == 101

        await eventually(free)


async def test_headers_without_end_are_refused() -> None:
    """With the bound."""
    async with serving(World()) as served:
        status, code, detail = await refused(served, "/v1/offer", **{f"x{number}": "x" * 7_000 for number in range(5)})
        assert (status, code) == (431, "request_invalid") and str(MAX_HEADER_BYTES) in detail


async def test_questions_of_a_session_are_bounded() -> None:
    """More are refused with the bound and the wait; the session stands, and after the wait goes on. Nothing was generated for them."""
    async with World(prompts_per_minute=2).running() as world:
        renter = await world.renter()
        for _ in range(2):
            await renter.chat("count 2")
        served = world.ledger(renter).served
        fault = await renter.refused(renter.prompt("count 2"))
        assert (fault.code, fault.detail) == ("rate_limited", "more than 2 questions a minute; the next one in 30 s")
        assert world.ledger(renter).served == served
        await world.clock.advance(30)
        assert await renter.chat("count 2") == "1 2"


async def test_every_answer_is_signed_by_the_node_that_the_offer_names() -> None:
    """Views, refusals of routes and of the guard alike; what is signed is what arrives."""
    async with serving(World()) as served:
        offer = read_offer((await get(served, "/v1/offer"))[1], served.world.clock.now())
        for path, headers in (
            ("/v1/models", {}),
            ("/v1/offer", {}),
            ("/health?x=1", {}),
            ("/metrics", {}),
            ("/nothing", {}),
            ("/v1/attestation?nonce=0x1", {}),
            ("/v1/offer", {"host": "evil.example"}),
        ):
            status, body, told = await get(served, path, **headers)
            answer = Answer(Request("GET", path), status, {name.lower(): value for name, value in told.items()})
            verify_answer(offer.node, answer, body, served.world.clock.now())
