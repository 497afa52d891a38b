"""A renter without a WebSocket: sessions of a host over plain HTTP, with the same bound, receipts and refusals as any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI
from tests.api.http_renter import HttpRenter
from tests.api.served import Served, serving
from tests.host.world import STRANGER, World, eventually, some_terms
from tests.renter.world import counting

from fabstir.domain.ids import to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.host.http_sessions import IDLE_SECONDS, LOOKS
from fabstir.protocol.messages import SessionEnd

W = 8
"""Of `some_terms`."""


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_session_from_its_beginning_to_its_end(served: Served, http: aiohttp.ClientSession) -> None:
    """Streamed, acknowledged while it streams, in one piece, another conversation, ended: every token is signed for, the host signs the
    close, and the token is worth nothing afterwards."""
    renter = HttpRenter(served, http)
    opened = await renter.open()
    assert opened["ready"]["message_index"] == 0 and "receipt" in opened
    text, events = await renter.hear(renter.chat("count 40", stream_options={"include_usage": True}))
    assert text == counting(40)
    assert events[-1] == "[DONE]" and events[-2]["usage"]["completion_tokens"] == 41
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert events[-3]["fabstir"]["response"]["tokens_used"] == 41 and events[-3]["fabstir"]["response"]["signature"]
    indices = [event["fabstir"]["index"] for event in events[1:-3] if "index" in event["fabstir"]]
    assert indices == sorted(indices) and indices[0] == 0
    assert len(renter.receipts) >= 41 // (W // 2)
    status, answer = await renter.call("POST", "/v1/chat/completions", renter.chat("a", "b", "count 3"))
    assert (status, answer["choices"][0]["message"]["content"]) == (200, counting(3))
    assert [m.content for m in served.world.engine.requests[-1].messages] == ["a", "b", "count 3"]
    view = await renter.acknowledge(answer["fabstir"]["receipt"])
    assert (view["tokens_served"], view["tokens_acknowledged"], view["receipt"]) == (45, 45, None)
    status, ended = await renter.call("DELETE", "/v1/sessions/chat")
    assert status == 200 and ended["close_signature"] is not None and ended["tokens_acknowledged"] == 45
    status, refused = await renter.call("GET", "/v1/sessions/chat")
    assert (status, refused["code"]) == (401, "session_unauthorized")
    await served.sound()


@pytest.mark.parametrize("stream", [True, False])
async def test_who_acknowledges_nothing_gets_w_tokens_and_the_reason(
    served: Served, http: aiohttp.ClientSession, stream: bool
) -> None:
    """No more are served, whatever is asked; the session stands, and goes on once the receipt is signed for."""
    renter = HttpRenter(served, http)
    await renter.open()
    if stream:
        asking: asyncio.Task[Any] = asyncio.create_task(renter.hear(renter.chat("count 40"), ack=False))
    else:
        asking = asyncio.create_task(renter.call("POST", "/v1/chat/completions", renter.chat("count 40")))
    await eventually(lambda: bool(served.world.node.book.get(renter.signs.job)))
    await eventually(lambda: served.world.ledger(renter.signs).served == W)
    await served.world.clock.advance(31)
    await eventually(asking.done)
    if stream:
        text, events = asking.result()
        assert events[-1]["error"]["code"] == "ack_timeout"
    else:
        status, answer = asking.result()
        text = answer["choices"][0]["message"]["content"]
        assert (status, answer["choices"][0]["finish_reason"]) == (200, "length")
        assert answer["fabstir"]["error"]["code"] == "ack_timeout"
        assert answer["usage"]["completion_tokens"] == W == len(answer["fabstir"]["tokens"])
    assert text == counting(W)
    assert served.world.ledger(renter.signs).exposed == W
    _, view = await renter.call("GET", "/v1/sessions/chat")
    assert view["receipt"]["tokens"] == W
    await renter.acknowledge(view["receipt"])
    assert (await renter.hear(renter.chat("count 20")))[0] == counting(20)


async def test_the_stock_client_asks_a_host_with_a_token(served: Served, http: aiohttp.ClientSession) -> None:
    """OpenAI's client, with nothing but base URL and key; it reads over what is ours, and gets errors in its own shape."""
    renter = HttpRenter(served, http, served.world.chain.open(some_terms(exposure=Tokens(200))))
    await renter.open()
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key=renter.token, max_retries=0) as client:
        messages: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "count 9"}]
        whole = await client.chat.completions.create(model="scripted", messages=messages)
        assert whole.choices[0].message.content == counting(9) and whole.usage is not None
        stream = await client.chat.completions.create(model="scripted", messages=messages, stream=True, logprobs=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces) == counting(9)
        assert [model.id async for model in client.models.list()] == ["scripted"]
        with pytest.raises(Exception, match="model_unavailable") as caught:
            await client.chat.completions.create(model="other", messages=messages)
        assert caught.value.status_code == 404  # type: ignore[attr-defined]


async def test_inference_in_the_protocols_words(served: Served, http: aiohttp.ClientSession) -> None:
    """Streamed as its messages, and whole; what it names must be what the token stands for."""
    renter = HttpRenter(served, http)
    await renter.open()
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    body = {"model": "scripted", "prompt": "count 5", "max_tokens": 50, "conversation_context": said, "temperature": 0}
    seen = []
    async for event in renter.events("/v1/inference", {**body, "stream": True}):
        seen.append(event["type"])
        if event["type"] == "receipt":
            await renter.acknowledge(event)
    assert seen[-1] == "response" and set(seen) == {"stream_chunk", "receipt", "response"}
    assert [m.content for m in served.world.engine.requests[-1].messages] == ["a", "b", "count 5"]
    job, chain = to_hex(renter.signs.job), served.world.node.offer.market.chain_id
    named = {"job_id": job, "session_id": "chat", "chain_id": chain, "request_id": "r1"}
    status, answer = await renter.call("POST", "/v1/inference", {**body, **named})
    assert (status, answer["content"], answer["tokens_used"]) == (200, counting(5), 6)
    assert (answer["request_id"], answer["job_id"], answer["chain_id"]) == ("r1", job, chain)
    assert answer["receipt"]["tokens"] == 12 and answer["usage"]["total_tokens"] > 6
    assert answer["response"]["tokens_used"] == 6 and answer["response"]["signature"]
    for wrong in ({"job_id": "0x00"}, {"session_id": "other"}, {"chain_id": 1}):
        status, refused = await renter.call("POST", "/v1/inference", {**body, **wrong})
        assert (status, refused["code"]) == (401, "session_unauthorized")


async def test_who_goes_away_is_served_no_further(served: Served, http: aiohttp.ClientSession) -> None:
    """The answer is cancelled, its receipt waits, and the next question is answered."""
    renter = HttpRenter(served, http)
    gate = served.world.engine.gate(2)
    await renter.open()
    stream = renter.events("/v1/chat/completions", renter.chat("count 40", stream=True))
    while "index" not in (await anext(stream)).get("fabstir", {}):
        pass
    await stream.aclose()  # type: ignore[attr-defined]
    await eventually(lambda: served.world.node.book.get(renter.signs.job).in_turn is False)  # type: ignore[union-attr]
    gate.open.set()
    assert served.world.ledger(renter.signs).served <= W
    _, view = await renter.call("GET", "/v1/sessions/chat")
    await renter.acknowledge(view["receipt"])
    assert (await renter.hear(renter.chat("count 3")))[0] == counting(3)


async def test_one_job_is_served_in_one_place(served: Served, http: aiohttp.ClientSession) -> None:
    """Over a WebSocket and over HTTP at the same time it is not; who signs anew gets another token, and the one before is dead."""
    renter = HttpRenter(served, http)
    await renter.open()
    before = renter.token
    other = await served.stranger(renter.signs.terms)
    assert (await other.refused(other.init())).code == "session_in_use"
    await renter.open(renter.signs.resume())
    assert renter.token != before
    status, refused = await renter.call("GET", "/v1/sessions/chat", authorization=f"Bearer {before}")
    assert (status, refused["code"]) == (401, "session_unauthorized")
    status, _ = await renter.call("DELETE", "/v1/sessions/chat")
    assert status == 200
    taken = await served.renter()
    second = HttpRenter(served, http, taken.terms)
    status, refused = await second.call("POST", "/v1/sessions", second.signs.init())
    assert (status, refused["code"]) == (409, "session_in_use")


async def test_the_deposit_runs_out_and_is_raised(served: Served, http: aiohttp.ClientSession) -> None:
    """The stream says so in time, the answer ends with a length; after a top-up on chain the host looks, and goes on."""
    terms = some_terms(price=PricePerMTok(10**9))
    renter = HttpRenter(served, http, served.world.chain.open(terms, deposit=10_000))  # ten tokens
    await renter.open()
    text, events = await renter.hear(renter.chat("count 40"))
    assert text == counting(10)
    told = [event["fabstir"] for event in events if event != "[DONE]"]
    assert any("payment_required" in paid for paid in told)
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert (await renter.call("GET", "/v1/sessions/chat"))[1]["payment_required"]["tokens_affordable"] == 10
    status, refused = await renter.call("POST", "/v1/chat/completions", renter.chat("more"))
    assert (status, refused["code"], refused["error"]["type"]) == (402, "deposit_exhausted", "insufficient_quota")
    served.world.chain.change(terms, deposit=BaseUnits(100_000))
    status, seen = await renter.call("POST", "/v1/sessions/chat/deposit")
    assert status == 200 and seen["tokens_affordable"] > 10
    assert (await renter.hear(renter.chat("count 3")))[0] == counting(3)


async def test_a_host_without_room_or_that_leaves_begins_none() -> None:
    """As over a WebSocket; what stands is let go when the host has drained, and its token with it."""
    async with serving(World(max_sessions=1)) as served, aiohttp.ClientSession() as http:
        renter, other = HttpRenter(served, http), HttpRenter(served, http)
        await renter.open()
        status, refused = await other.call("POST", "/v1/sessions", other.signs.init())
        assert (status, refused["code"]) == (503, "capacity")
        await served.world.node.drain()
        status, refused = await other.call("POST", "/v1/sessions", other.signs.init())
        assert (status, refused["code"]) == (503, "draining")
        await eventually(lambda: not served.world.actors())
        status, refused = await renter.call("GET", "/v1/sessions/chat")
        assert (status, refused["code"]) == (401, "session_unauthorized")


async def test_a_host_that_requires_encryption_holds_none_over_http() -> None:
    """It says which way is open."""
    async with serving(World(require_encryption=True)) as served, aiohttp.ClientSession() as http:
        renter = HttpRenter(served, http)
        status, refused = await renter.call("POST", "/v1/sessions", renter.signs.init())
        assert (status, refused["code"]) == (426, "channel_required")


async def test_a_session_that_nobody_uses_is_let_go(served: Served, http: aiohttp.ClientSession) -> None:
    """Its token ends; the job can be resumed, over a WebSocket too."""
    renter = HttpRenter(served, http)
    await renter.open()
    await renter.hear(renter.chat("count 3"))
    for _ in range(LOOKS + 2):
        await served.world.clock.advance(IDLE_SECONDS / LOOKS)
    await eventually(lambda: not served.world.actors())
    assert (await renter.call("GET", "/v1/sessions/chat"))[0] == 401
    again = await served.stranger(renter.signs.terms)
    await again.send(again.init(auth=again.auth(issued_at=int(served.world.clock.now()))))
    assert (await again.next()).code == "transcript_mismatch"  # type: ignore[union-attr]  # it begins where nothing was served


REFUSED = [
    ("POST", "/v1/sessions", b"rubbish", {}, 400, "message_malformed"),
    ("POST", "/v1/sessions", SessionEnd(session_id="chat"), {}, 409, "message_out_of_order"),
    ("POST", "/v1/sessions", b"{}", {"content_type": "text/plain"}, 400, "request_invalid"),
    ("GET", "/v1/sessions/other", None, {}, 401, "session_unauthorized"),
    ("GET", "/v1/sessions/chat", None, {"authorization": "Bearer x"}, 401, "session_unauthorized"),
    ("GET", "/v1/sessions/chat", None, {"authorization": "Basic x"}, 401, "session_unauthorized"),
    ("POST", "/v1/sessions/chat/receipts", SessionEnd(session_id="chat"), {}, 409, "message_out_of_order"),
    ("POST", "/v1/sessions/chat/receipts", b"{", {}, 400, "message_malformed"),
    ("POST", "/v1/inference", {"model": "scripted", "prompt": "x"}, {}, 400, "request_invalid"),
    ("POST", "/v1/inference", {"model": "other", "prompt": "x", "max_tokens": 1}, {}, 404, "model_unavailable"),
    (
        "POST",
        "/v1/inference",
        {"model": "x", "prompt": "x", "max_tokens": 1, "web_search": True},
        {},
        400,
        "request_unsupported",
    ),
]


TOOL = {"type": "function", "function": {"name": "f"}}


async def test_what_is_refused(served: Served, http: aiohttp.ClientSession) -> None:
    """Each by its code, and the session goes on."""
    renter = HttpRenter(served, http)
    await renter.open()
    for method, path, body, headers, status, code in REFUSED:
        found, refused = await renter.call(method, path, body, **headers)
        assert (found, refused["code"]) == (status, code), (path, refused)
    status, refused = await renter.call("POST", "/v1/chat/completions", renter.chat("x", tools=[TOOL]))
    assert (status, refused["error"]["code"], refused["error"]["param"]) == (400, "request_unsupported", "tools")
    text, events = await renter.hear(renter.chat("count 3"), ack=False)
    receipt = next(
        event["fabstir"]["receipt"] for event in events if event != "[DONE]" and "receipt" in event["fabstir"]
    )
    bad = renter.signs.voucher(receipt["tokens"], receipt["amount"], receipt["transcript"], key=STRANGER)
    status, refused = await renter.call("POST", "/v1/sessions/chat/receipts", bad)
    assert (status, refused["code"]) == (400, "voucher_invalid")
    assert text == counting(3)
    _, view = await renter.call("GET", "/v1/sessions/chat")
    await renter.acknowledge(view["receipt"])
