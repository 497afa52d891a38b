"""`Idempotency-Key` over a real socket: what is repeated is answered once and paid once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from litestar.types import Send
from tests.api.gateways import HELLO, Gateway, gateway_of
from tests.renter.world import eventually

from fabstir.api.idempotency import KEPT_SECONDS, Answers
from fabstir.domain.errors import FabstirError
from fabstir.renter.gateway_keys import KeyRing, add_key
from fabstir.testing.clock import ManualClock

CHAT = "/v1/chat/completions"


def request(content: str = "hello", **more: Any) -> dict[str, Any]:
    """A chat completion."""
    return {"model": "scripted", "messages": [{"role": "user", "content": content}], **more}


async def once(
    gateway: Gateway, body: Any, key: str = "k1", path: str = CHAT, **headers: str
) -> tuple[int, bytes, Any]:
    """One request with an idempotency key."""
    return await gateway.send(body, path, idempotency_key=key, **headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, request()),
        (CHAT, request(stream=True)),
        ("/v1/responses", {"model": "scripted", "input": "hi", "stream": True}),
        ("/v1/messages", {"model": "scripted", "max_tokens": 9, "messages": HELLO}),
    ],
    ids=["chat", "chat stream", "responses stream", "messages"],
)
async def test_the_same_request_gets_the_same_answer(path: str, body: Any) -> None:
    """To the byte, in every dialect, streamed or not; one answer is paid for. The request ids differ."""
    async with gateway_of(200_000) as gateway:
        first, second = await once(gateway, body, path=path), await once(gateway, body, path=path)
        assert first[:2] == second[:2] and first[0] == 200
        assert second[2]["idempotent-replayed"] == "true" and "idempotent-replayed" not in first[2]
        assert first[2]["x-request-id"] != second[2]["x-request-id"]
        assert len(gateway.world.hosts[0].engine.requests) == 1


async def test_another_request_under_the_key_is_refused() -> None:
    """Another body, or the same one elsewhere; a key that cannot be one is named."""
    async with gateway_of(200_000) as gateway:
        await once(gateway, request())
        for body, path in ((request("other"), CHAT), (request(), "/v1/messages")):
            status, answer, _ = await once(gateway, body | {"max_tokens": 9}, path=path)
            assert status == 409 and b"idempotency_conflict" in answer
        status, answer, _ = await once(gateway, request(), key="k" * 256)
        assert status == 400 and b"Idempotency-Key" in answer
        assert (await once(gateway, request("other"), key="k2"))[0] == 200


async def test_a_repetition_follows_the_answer_that_is_on_its_way() -> None:
    """It does not wait for the end of a stream, and nothing is asked twice."""
    async with gateway_of(200_000) as gateway:
        engine = gateway.world.hosts[0].engine
        gate = engine.gate(3)
        asked = [asyncio.create_task(once(gateway, request("count 9", stream=True))) for _ in range(3)]
        await gate.reached.wait()
        gate.open.set()
        answers = await asyncio.gather(*asked)
        assert len({answer[1] for answer in answers}) == 1
        assert len(engine.requests) == 1


async def test_a_client_that_was_cut_off_finds_its_answer() -> None:
    """The answer is made to its end, and paid once: that is what the key is for."""
    async with gateway_of(200_000) as gateway:
        engine = gateway.world.hosts[0].engine
        gate = engine.gate(3)
        async with aiohttp.ClientSession() as session:
            headers = {"idempotency-key": "k1"}
            async with session.post(gateway.url + CHAT, json=request("count 9", stream=True), headers=headers) as cut:
                await cut.content.readline()
        await gate.reached.wait()
        gate.open.set()
        await eventually(lambda: gateway.pool.idle == 1)
        async with aiohttp.ClientSession() as session:
            body = request("count 9", stream=True)
            async with session.post(gateway.url + CHAT, json=body, headers=headers) as again:
                assert b"[DONE]" in await again.read()
        assert len(engine.requests) == 1 and engine.cancelled == 0


async def test_what_failed_may_be_tried_again() -> None:
    """Before the first token or in the middle; a failure is never kept."""
    async with gateway_of(200_000) as gateway:
        engine = gateway.world.hosts[0].engine
        engine.fail_next(0, "engine_gone")
        assert (await once(gateway, request()))[0] == 502
        engine.fail_next(1, "engine_gone")
        assert b"hosts_exhausted" in (await once(gateway, request(stream=True)))[1]
        status, answer, headers = await once(gateway, request())
        assert status == 200 and b"You said: hello" in answer and "idempotent-replayed" not in headers


async def test_answers_are_kept_for_a_while(tmp_path: Path) -> None:
    """And for whoever asked: another API key has its own."""
    path = tmp_path / "keys.json"
    secrets = [add_key(path, name)[1] for name in ("a", "b")]
    async with gateway_of(200_000, keys=KeyRing(path)) as gateway:
        requests = gateway.world.hosts[0].engine.requests
        for secret in (*secrets, secrets[0]):
            await once(gateway, request(), authorization=f"Bearer {secret}")
        assert len(requests) == 2
        await gateway.world.clock.advance(KEPT_SECONDS)
        await once(gateway, request(), authorization=f"Bearer {secrets[0]}")
        assert len(requests) == 3


async def test_memory_is_bounded() -> None:
    """By number and by bytes; what is on its way is never dropped, so one more is refused."""
    answers = Answers(ManualClock(), most=2, most_bytes=10_000)
    body = b"x" * 4_000
    release, begun = asyncio.Event(), list[int]()

    async def write(send: Send) -> bool:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        return True

    async def slow(send: Send) -> bool:
        begun.append(1)
        await release.wait()
        return await write(send)

    async def nowhere(message: Any) -> None: ...

    for number in range(5):
        await answers.answer("", f"k{number}", b"", write, nowhere)
    await asyncio.sleep(0)
    assert len(answers) == 2
    running = [asyncio.create_task(answers.answer("", f"s{number}", b"", slow, nowhere)) for number in range(2)]
    await eventually(lambda: len(begun) == 2)
    with pytest.raises(FabstirError, match="rate_limited"):
        await answers.answer("", "one-more", b"", write, nowhere)
    release.set()
    await asyncio.gather(*running)
