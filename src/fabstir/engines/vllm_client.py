"""Talks to one vLLM server: chat completions with token ids (`return_token_ids`, vLLM 0.10.2 or newer), count.

vLLM reports the id of every generated token, the end-of-turn token included, and log-probabilities of the raw softmax
(its default `--logprobs-mode raw_logprobs`); `return_tokens_as_token_ids` names the alternatives by id. An answer that
began elsewhere goes on with `continue_final_message`. Written from vLLM's protocol (docs.vllm.ai, "OpenAI-Compatible
Server") and tested against a server that speaks it, not yet against vLLM itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import msgspec

from fabstir.domain.errors import error
from fabstir.engines.llama_wire import ServerError, micro_nats
from fabstir.engines.server_errors import server_fault
from fabstir.engines.server_session import ServerSession
from fabstir.engines.stop_cutter import StopCutter
from fabstir.ports.engine import ChatMessage, GenerationEnd, GenerationRequest, TokenBatch, TokenRecord, Weight
from fabstir.protocol.controls import CONTROLS, read_object


class TopToken(msgspec.Struct):
    """An alternative; `token` reads `token_id:123`."""

    token: str
    logprob: float


class TokenLogprob(TopToken):
    """A generated token."""

    top_logprobs: list[TopToken] = []


class Logprobs(msgspec.Struct):
    """Of one chunk."""

    content: list[TokenLogprob] | None = None


class Delta(msgspec.Struct):
    """New text."""

    content: str | None = None


class Choice(msgspec.Struct):
    """We ask for one."""

    delta: Delta
    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class CachedTokens(msgspec.Struct):
    """Part of the usage."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Of the whole request."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: CachedTokens | None = None


class ChatChunk(msgspec.Struct):
    """One event."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: ServerError | None = None


class TokenCount(msgspec.Struct):
    """Answer of `/tokenize`."""

    count: int


WEIGHED_AT_ONCE: Final = 16
_decode_chunk = msgspec.json.Decoder(ChatChunk).decode


class VllmClient:
    """One model of one server. The session belongs to the caller."""

    def __init__(self, server: ServerSession, model: str, *, top_logprobs: int) -> None:
        self._server = server
        self._model = model
        self._top = top_logprobs

    @property
    def controls(self) -> tuple[str, ...]:
        """What requests may ask for. Grammars are llama.cpp's (GBNF), and adapters are models of their own here."""
        return tuple(name for name in CONTROLS if name != "grammar")

    def __repr__(self) -> str:
        return f"<VllmClient {self._model}>"

    async def handshake(self) -> None:
        """Try one token. Raises LocalFault (`engine_unsuitable`) where the server does not report its id."""
        trial = GenerationRequest(messages=(ChatMessage("user", "Hello"),), max_tokens=1, temperature=0.0)
        async with aclosing(self.generate(trial)) as items:
            async for _ in items:
                pass

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        """Tokens of the templated conversation."""
        body = {"model": self._model, "messages": _plain(messages), "add_generation_prompt": True}
        return (await self._server.ask("/tokenize", body, TokenCount)).count

    async def weigh(self, texts: tuple[str, ...]) -> tuple[Weight, ...]:
        """Of each text alone. vLLM's `/tokenize` does not say which tokens are control tokens: a text that forges is not found."""
        places = asyncio.Semaphore(WEIGHED_AT_ONCE)

        async def one(text: str) -> Weight:
            async with places:
                body = {"model": self._model, "prompt": text, "add_special_tokens": False}
                return Weight((await self._server.ask("/tokenize", body, TokenCount)).count)

        return tuple(await asyncio.gather(*map(one, texts)))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """See `fabstir.ports.engine.Engine.generate`."""
        cutter = StopCutter(request.stop)
        count, finish, usage = 0, "", Usage(prompt_tokens=0)
        async with aclosing(self._chunks(self._body(request))) as chunks:
            async for chunk in chunks:
                if chunk.error is not None:
                    raise server_fault(500, chunk.error)
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    records = self._records(choice)
                    text = cutter.feed(choice.delta.content or "")
                    count += len(records)
                    finish = "stop" if cutter.stopped else choice.finish_reason or finish
                    if finish:
                        text += cutter.rest()
                    if records or text:
                        yield TokenBatch(records, text)
                if cutter.stopped:
                    break
        if not finish:
            raise error("engine_gone", "the engine's stream ended before the answer")
        if not cutter.stopped and usage.completion_tokens != count:
            raise error("engine_failed", f"the engine counted {usage.completion_tokens} tokens and reported {count}")
        yield GenerationEnd(
            finish_reason="length" if finish == "length" else "stop",
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=count,
            cached_tokens=(usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0,
        )

    async def _chunks(self, body: dict[str, Any]) -> AsyncGenerator[ChatChunk]:
        async with self._server.post("/v1/chat/completions", body) as response:
            async for line in response.content:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    yield _decode_chunk(line[6:])

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        messages = _plain(request.messages)
        if request.prefix:
            messages.append({"role": "assistant", "content": request.prefix})
        return {
            "model": self._model,
            "messages": messages,
            "add_generation_prompt": not request.prefix,
            "continue_final_message": bool(request.prefix),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k or -1,
            "min_p": request.min_p,
            "repetition_penalty": request.repeat_penalty,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "logit_bias": {str(token): bias for token, bias in request.logit_bias},
            **_form(request),
            "seed": request.seed,
            "ignore_eos": request.ignore_eos,
            "logprobs": True,
            "top_logprobs": self._top,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            # What is computed for one session is found by no other: the time that it takes would tell what was said there.
            "cache_salt": request.cache or secrets.token_hex(16),
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }

    def _records(self, choice: Choice) -> tuple[TokenRecord, ...]:
        ids = choice.token_ids
        logprobs = (choice.logprobs and choice.logprobs.content) or []
        if ids is None and not logprobs and not choice.delta.content:
            return ()
        if ids is None or len(ids) != len(logprobs):
            raise error("engine_unsuitable", "the stream does not report an id and a log-probability for every token")
        return tuple(_record(token, said, self._top) for token, said in zip(ids, logprobs, strict=True))


def _form(request: GenerationRequest) -> dict[str, Any]:
    """The form of the answer, as OpenAI's `response_format` says it. Raises Refused (`control_unsupported`)."""
    if request.grammar or request.adapter:
        raise error("control_unsupported", "no grammar and no adapter here")
    if not request.json_schema:
        return {}
    schema = read_object(request.json_schema, "json_schema")
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    }


def _plain(messages: tuple[ChatMessage, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _record(token: int, said: TokenLogprob, top: int) -> TokenRecord:
    alternatives = tuple((_token_id(item.token), micro_nats(item.logprob)) for item in said.top_logprobs[:top])
    return TokenRecord(token, micro_nats(said.logprob), alternatives)


def _token_id(text: str) -> int:
    if not text.startswith("token_id:"):
        raise error("engine_unsuitable", "the stream does not name alternatives by token id")
    return int(text.removeprefix("token_id:"))
