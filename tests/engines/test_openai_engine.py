"""A server that somebody else runs: used where it reports every token's id, refused by name where it does not.

llama.cpp's dialect is tested against the real server over TCP; vLLM's against a server that says what vLLM's documentation says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.engines.asking import ask, collect, failure

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_HASH
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.engines.openai import OpenAIEngine
from fabstir.ports.engine import ChatMessage, TokenRecord

pytestmark = pytest.mark.real

KEY = "a-key"
SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.verbosity = 0
params.n_parallel, params.n_ctx, params.kv_unified = 2, 1024, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.hostnames, params.api_keys, params.endpoint_slots = ["127.0.0.1"], [sys.argv[2]], True
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
import os; os._exit(0)
"""


@contextlib.asynccontextmanager
async def llama_server() -> AsyncIterator[str]:
    """The real server over TCP; gives its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(default_model()), KEY,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def served(routes: dict[str, Callable[[web.Request], Any]]) -> AsyncIterator[str]:
    """A server with these paths."""
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_route("*", path, handler)
    async with TestServer(app) as server:
        yield str(server.make_url(""))


async def refused_start(url: str, model: str = "", key: str = "") -> FabstirError:
    """The error with which a start ends."""
    with pytest.raises(FabstirError) as caught:
        await OpenAIEngine(url, model, key).start()
    return caught.value


async def test_llama_server_over_tcp_says_the_same() -> None:
    """The same answer, ids and log-probabilities as our own child process, context and slots as the server says."""
    own = LlamaEngine(default_model(), context_size=512, parallel=1, threads=1)
    await own.start()
    async with llama_server() as url:
        engine = OpenAIEngine(url + "/v1", api_key=KEY)
        await engine.start()
        try:
            request = ask("Tell me a story.")
            ours, theirs = await collect(own, request), await collect(engine, request)
            assert (theirs.text, theirs.records) == (ours.text, ours.records)
            assert (engine.info.parallel, engine.info.context_size, engine.info.sha256) == (2, 512, ZERO_HASH)
            assert await engine.count_tokens(request.messages) == theirs.end.prompt_tokens
            assert (await engine.health()).status == "ok"
            assert (await failure(engine, ask("river " * 3000))).code == "context_too_long"
        finally:
            await engine.stop()
            await own.stop()
        assert (await failure(engine, request)).code == "engine_gone"


async def test_a_wrong_key_is_told_at_start() -> None:
    """Not at the first prompt of a renter."""
    async with llama_server() as url:
        fault = await refused_start(url, key="another")
    assert fault.code in ("engine_unsuitable", "engine_refused")


async def test_a_server_that_goes_away_is_down() -> None:
    """Requests end with `engine_gone`; nothing is restarted, since it is not ours."""
    async with llama_server() as url:
        engine = OpenAIEngine(url, api_key=KEY)
        await engine.start()
    assert (await engine.health()).status == "down"
    assert (await failure(engine, ask("Hello"))).code == "engine_gone"
    await engine.stop()


async def test_nobody_there() -> None:
    """An address where nothing listens."""
    assert (await refused_start("http://127.0.0.1:9")).code == "engine_gone"


# -- vLLM ----------------------------------------------------------------------------------------------------------------


def vllm_chunk(text: str, ids: list[int], finish: str | None = None) -> dict[str, Any]:
    """One event as vLLM sends it with return_token_ids and return_tokens_as_token_ids."""
    content = [
        {"token": f"token_id:{token}", "logprob": -0.25, "bytes": None, "top_logprobs": [
            {"token": f"token_id:{token}", "logprob": -0.25}, {"token": "token_id:77", "logprob": -9999.0}]}
        for token in ids
    ]  # fmt: skip
    choice = {
        "index": 0,
        "delta": {"content": text},
        "logprobs": {"content": content},
        "finish_reason": finish,
        "token_ids": ids,
    }
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}


class Vllm:
    """A server with vLLM's answers; keeps what it was asked."""

    def __init__(self, chunks: list[dict[str, Any]], counted: int) -> None:
        role = {
            "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            ]
        }
        usage = {
            "choices": [],
            "usage": {"prompt_tokens": 11, "completion_tokens": counted, "prompt_tokens_details": {"cached_tokens": 8}},
        }
        so_far = {"usage": {"prompt_tokens": 11, "completion_tokens": 0}}  # continuous_usage_stats
        self.events = [role, *({**chunk, **so_far} for chunk in chunks), usage]
        self.asked: list[dict[str, Any]] = []

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "big", "owned_by": "vllm", "max_model_len": 8192}]})

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def tokenize(self, _: web.Request) -> web.Response:
        return web.json_response({"count": 11, "max_model_len": 8192, "tokens": [1] * 11})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        if len(body["messages"][-1]["content"]) > 100:
            said = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
            return web.json_response({"error": {"message": said, "type": "BadRequestError", "code": 400}}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        events = self.events if body["max_tokens"] > 1 else Vllm([vllm_chunk("A", [5], "length")], 1).events
        for event in events:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    def routes(self) -> dict[str, Callable[[web.Request], Any]]:
        """Where it answers what."""
        return {
            "/v1/models": self.models,
            "/v1/chat/completions": self.chat,
            "/health": self.health,
            "/tokenize": self.tokenize,
        }


@contextlib.asynccontextmanager
async def vllm_engine(vllm: Vllm) -> AsyncIterator[OpenAIEngine]:
    """An engine on such a server."""
    async with served(vllm.routes()) as url:
        engine = OpenAIEngine(url)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()


ANSWER = [vllm_chunk("Hel", [5]), vllm_chunk("", [6]), vllm_chunk("lo €", [7, 8]), vllm_chunk("", [2], "stop")]


async def test_vllm_reports_every_token() -> None:
    """Ids of all tokens, the end-of-turn token too, alternatives by id, and what the server counted."""
    async with vllm_engine(Vllm(ANSWER, 5)) as engine:
        answer = await collect(engine, ask("Hello"))
        assert (engine.info.name, engine.info.context_size) == ("big", 8192)
        assert await engine.count_tokens(ask("Hello").messages) == 11
        assert (await engine.health()).status == "ok"
    assert (answer.text, answer.ids, answer.end.finish_reason) == ("Hello €", [5, 6, 7, 8, 2], "stop")
    assert answer.records[0] == TokenRecord(5, -250_000, ((5, -250_000), (77, -(2**31))))
    assert (answer.end.prompt_tokens, answer.end.cached_tokens) == (11, 8)


async def test_vllm_goes_on_after_a_prefix() -> None:
    """The beginning of the answer is the last message, which the server continues."""
    vllm = Vllm(ANSWER, 5)
    async with vllm_engine(vllm) as engine:
        await collect(engine, ask("Hello", prefix="Well, ", seed=3))
    asked = vllm.asked[-1]
    assert asked["messages"] == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Well, "}]
    assert (asked["continue_final_message"], asked["add_generation_prompt"], asked["seed"]) == (True, False, 3)


async def test_vllm_stops_at_a_sequence() -> None:
    """Cut by us, as everywhere."""
    async with vllm_engine(Vllm(ANSWER, 5)) as engine:
        answer = await collect(engine, ask("Hello", stop=("lo",)))
    assert (answer.text, answer.ids, answer.end.finish_reason) == ("Hel", [5, 6, 7, 8], "stop")


async def test_a_count_that_differs_is_an_error() -> None:
    """Tokens that the server counted and did not report are not metered silently."""
    async with vllm_engine(Vllm(ANSWER, 6)) as engine:
        fault = await failure(engine, ask("Hello"))
    assert (fault.code, fault.detail) == ("engine_failed", "the engine counted 6 tokens and reported 5")


async def test_vllm_names_its_context() -> None:
    """Its own words hold both numbers."""
    async with vllm_engine(Vllm(ANSWER, 5)) as engine:
        fault = await failure(engine, ask("", messages=(ChatMessage("user", "x" * 101),)))
    assert fault.code == "context_too_long"
    assert "8192" in fault.detail


async def test_servers_without_token_ids_are_refused() -> None:
    """A server that answers in text alone (Ollama and the like) cannot be metered, whatever it lists."""
    plain = {"choices": [{"index": 0, "delta": {"content": "A"}, "finish_reason": "length"}]}
    for entry in ({"id": "m", "owned_by": "library"}, {"id": "m", "owned_by": "sglang", "max_model_len": 4096}):

        async def models(_: web.Request, entry: dict[str, Any] = entry) -> web.Response:
            return web.json_response({"object": "list", "data": [entry]})

        async def chat(request: web.Request) -> web.Response:
            body = b"data: " + json.dumps(plain).encode() + b"\n\ndata: [DONE]\n\n"
            return web.Response(body=body, content_type="text/event-stream")

        async with served({"/v1/models": models, "/v1/chat/completions": chat}) as url:
            fault = await refused_start(url)
        assert fault.code == "engine_unsuitable"
        assert ("no max_model_len" if "max_model_len" not in entry else "an id and a log-probability") in fault.detail


async def test_an_unknown_model_is_refused() -> None:
    """The name must be one that the server lists."""
    async with served(Vllm(ANSWER, 5).routes()) as url:
        fault = await refused_start(url, model="other")
    assert fault.code == "engine_unsuitable"
    assert "other" in fault.detail
