"""A renter's signed payment over HTTP, from the renter's own client to the host's chain."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.api.served import Served, serving
from tests.host.table_chain import INFO
from tests.host.world import WALLET, World, some_terms

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import Terms
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.relay import Relayed, RelayOpening, RelayTopUp
from fabstir.protocol.signing import job_id
from fabstir.renter.relay import HttpRelay

DEPOSIT = BaseUnits(100_000)
UNTIL = 1_800_000_300


def signed(terms: Terms, amount: BaseUnits, nonce: bytes) -> bytes:
    market, renter = INFO.market, WALLET.address
    digest = authorization_digest(INFO.chain_id, terms.token, renter, market, amount, UNTIL, Hash32(nonce))
    return WALLET.sign(digest)


def opening(terms: Terms, deposit: BaseUnits = DEPOSIT) -> RelayOpening:
    return RelayOpening.of(terms, deposit, UNTIL, signed(terms, deposit, job_id(terms)))


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A host that relays, and a renter with money."""
    async with serving(World(relayed_from=BaseUnits(50_000))) as running:
        running.world.chain.holdings[WALLET.address] = BaseUnits(1_000_000)
        yield running


async def post(served: Served, path: str, body: bytes) -> tuple[int, Any]:
    return await asyncio.to_thread(_post, served.url + path, body)


def _post(url: str, body: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, msgspec.json.decode(answer.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, msgspec.json.decode(refused.read())


async def test_the_renters_client_has_its_job_opened(served: Served) -> None:
    """And the host lets it in at once."""
    terms, relay = some_terms(), HttpRelay()
    try:
        await relay.open(served.url, opening(terms))
    finally:
        await relay.close()
    assert served.world.chain.states[job_id(terms)].deposit == DEPOSIT
    renter = await served.renter(terms)
    assert await renter.chat("hello") == "You said: hello"


async def test_the_answer_names_the_transaction(served: Served) -> None:
    """201, and what was mined."""
    terms = some_terms()
    status, body = await post(served, "/v1/jobs", msgspec.json.encode(opening(terms)))
    assert status == 201
    assert msgspec.convert(body, Relayed).job_id == "0x" + job_id(terms).hex()


async def test_what_the_host_says_is_told_under_one_code(served: Served) -> None:
    """Whatever code a host chooses, the renter's client says `relay_refused`: nothing it says is taken for the chain's word."""
    relay = HttpRelay()
    terms = some_terms()
    try:
        with pytest.raises(FabstirError, match=r"relay_refused.*the host said relay_refused: 49999 base units"):
            await relay.open(served.url, opening(terms, BaseUnits(49_999)))
        with pytest.raises(FabstirError, match=r"relay_refused.*the host said job_unknown"):
            adding = RelayTopUp.of(terms, DEPOSIT, UNTIL, signed(terms, DEPOSIT, top_up_nonce(job_id(terms), DEPOSIT)))
            await relay.top_up(served.url, job_id(terms), adding)
        with pytest.raises(FabstirError, match="host_unreachable"):
            await relay.open("http://127.0.0.1:9", opening(terms))
    finally:
        await relay.close()


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/jobs", b"{}", "message_malformed"),
        ("/v1/jobs", b"\xff", "message_malformed"),
        ("/v1/jobs/0x12/top-up", b"{}", "message_malformed"),
        ("/v1/jobs", b" " * 10_000, "request_invalid"),
    ],
)
async def test_a_body_that_is_none_is_refused(served: Served, path: str, body: bytes, code: str) -> None:
    """Named, and the host goes on."""
    status, fault = await post(served, path, body)
    assert (400 <= status < 500, fault["code"]) == (True, code)
    await served.sound()


async def test_a_host_that_goes_down_sends_nothing_more(served: Served) -> None:
    """It could not serve the job either."""
    await served.world.node.drain()
    status, fault = await post(served, "/v1/jobs", msgspec.json.encode(opening(some_terms())))
    assert (status, fault["code"]) == (503, "draining")


async def test_a_host_that_relays_nothing_says_so() -> None:
    """As its offer does."""
    async with serving(World()) as served:
        status, fault = await post(served, "/v1/jobs", msgspec.json.encode(opening(some_terms())))
        assert (status, fault["code"]) == (403, "relay_off")
