"""Talks to one llama.cpp server, ours or another's, over a `ServerSession`: template, count, generate.

The chat template is applied by the server (`/apply-template`) and the text goes to `/completion`, because that reports
every token with its id and because an answer that began elsewhere goes on by appending its text. Where the server
leaves tokens out (those that end inside a UTF-8 character: `llama_answer`), the stream is closed, the tokens are found
out (`llama_gaps`) and a new stream goes on after exactly these ids, so that what is recorded is what was computed.

At most `parallel` requests are at the server, each in a slot of its own (`placing`); others wait in order, so that a
request which starts a new stream keeps its place. Memory: the ids of each running answer and one piece of its stream
(64 KiB). Reading slowly does not slow the server down.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from fabstir.domain.errors import error
from fabstir.engines.llama_answer import AnswerFold, Gap
from fabstir.engines.llama_gaps import find_tokens
from fabstir.engines.llama_vocabulary import Vocabulary
from fabstir.engines.llama_wire import (
    FINAL_FIELDS,
    Candidate,
    Chunk,
    EventStream,
    Probed,
    Prompt,
    Props,
    Slot,
    TokenIds,
)
from fabstir.engines.placing import Places, Placing
from fabstir.engines.server_errors import server_fault
from fabstir.engines.server_session import ServerSession
from fabstir.engines.spill import SpillFolder
from fabstir.ports.engine import ChatMessage, GenerationEnd, GenerationRequest, TokenBatch, Weight

SAMPLERS: Final = ("top_k", "temperature", "top_p")
"""In this order and no others, whatever the model's file suggests: the request says temperature and top_p, and means it."""
TOP_K: Final = 64
"""Only to keep the sampler cheap: sorting 128k candidates for every token would cost the server's one loop 1.4 ms more."""
PROBE_CANDIDATES: Final = 2 * TOP_K
"""More than can have been sampled, so that a token that was left out is always among them."""
WHOLE_VOCABULARY: Final = 1 << 30
FORCE: Final = 1e5
"""Added to one logit it outweighs all others; the reported log-probabilities are those before it."""
SEPARATOR: Final = 2**31 - 1
"""The id of no token."""
MAY_FORGE: Final = re.compile(r"[<\[|\uff5c\u2581]")
"""Every control token of the models that we know of has one of these."""
RELEASE_POLLS: Final = 100
RELEASE_PAUSE_S: Final = 0.002


class LlamaClient:
    """One server. The session belongs to the caller."""

    def __init__(
        self, server: ServerSession, *, parallel: int, top_logprobs: int, spill: SpillFolder | None = None
    ) -> None:
        self._server = server
        self._top = top_logprobs
        self._places = Places(server, parallel, spill)
        self._streams = 0
        self._vocabulary = Vocabulary(())
        self._forced = 0
        self._context_size = 0

    def __repr__(self) -> str:
        return f"<LlamaClient | Streams: {self._streams}>"

    # -- what an engine needs ------------------------------------------------------------------------------------------

    async def handshake(self) -> int:
        """Learn the vocabulary; returns the context size: tokens that one request may have, prompt and answer together.

        Raises LocalFault (`engine_unsuitable`) where the server does not report token ids.
        """
        letters = (await self._server.ask("/tokenize", {"content": "a"}, TokenIds)).tokens
        if not letters:
            raise error("engine_unsuitable", "the server's /tokenize reports no token ids")
        self._forced = letters[-1]
        pieces = await self._distribution(letters, WHOLE_VOCABULARY)
        self._vocabulary = Vocabulary((item.id, bytes(item.bytes)) for item in pieces)
        props = await self._server.look("/props", Props)
        if props is None:
            raise error("engine_unsuitable", "the server's /props does not say how long a prompt may be")
        self._context_size = props.default_generation_settings.n_ctx
        return self._context_size

    async def template(self, messages: tuple[ChatMessage, ...]) -> str:
        """The conversation as the model's own chat template writes it, up to where the answer begins."""
        body = {"messages": [{"role": message.role, "content": message.content} for message in messages]}
        return (await self._server.ask("/apply-template", body, Prompt)).prompt

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        """Tokens of the templated conversation."""
        return len(await self._tokenize(await self.template(messages)))

    async def weigh(self, texts: tuple[str, ...]) -> tuple[Weight, ...]:
        """Of each text alone. A second request where some may hold a control token's text."""
        plain = await self._tokenize_each(texts, parse_special=False)
        suspects = [at for at, text in enumerate(texts) if MAY_FORGE.search(text)]
        parsed = await self._tokenize_each([texts[at] for at in suspects], parse_special=True)
        forged = {at for at, ids in zip(suspects, parsed, strict=True) if ids != plain[at]}
        return tuple(Weight(len(ids), at in forged) for at, ids in enumerate(plain))

    async def prompt_ids(self, messages: tuple[ChatMessage, ...], prefix: str) -> tuple[int, ...]:
        """The tokens after which the server begins to generate, where `generate` is asked for an answer to `messages`."""
        return tuple(await self._tokenize(await self.template(messages) + prefix))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """See `fabstir.ports.engine.Engine.generate`."""
        if request.max_tokens < 1:
            raise error("engine_refused", f"max_tokens is {request.max_tokens}, must be at least 1")
        async with self._places.place(request.cache) as placing:
            text = await self.template(request.messages) + request.prefix
            fold = AnswerFold(request, self._top)
            prompt: str | list[int] = text
            before: list[int] = []
            while not fold.finish:
                async with aclosing(self._fold_stream(prompt, request, fold, placing)) as items:
                    gap = None
                    async for item in items:
                        if isinstance(item, Gap):
                            gap = item
                        else:
                            yield item
                if gap is not None:
                    before = before or await self._tokenize(text)
                    await self._fill(fold, gap, before, placing)
                    prompt = before + fold.ids
                    if len(prompt) >= self._context_size:
                        fold.cut()
                    if batch := fold.batch():
                        yield batch
            end = fold.end()
            placing.tokens = end.prompt_tokens + end.completion_tokens
            yield end

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _fold_stream(
        self, prompt: str | list[int], request: GenerationRequest, fold: AnswerFold, placing: Placing
    ) -> AsyncGenerator[TokenBatch | Gap]:
        """One stream, to the end of the answer or to the first gap."""
        fold.begin()
        async with aclosing(self._chunks(self._body(prompt, request, fold) | placing.fields())) as groups:
            async for group in groups:
                gap = None
                for chunk in group:
                    if chunk.error is not None:
                        raise server_fault(500, chunk.error)
                    placing.begun()
                    gap = fold.take(chunk)
                    if gap is not None or fold.finish:
                        break
                if batch := fold.batch():
                    yield batch
                if gap is not None:
                    yield gap
                if gap is not None or fold.finish:
                    return
        raise error("engine_gone", "the engine's stream ended before the answer")

    async def _chunks(self, body: dict[str, Any]) -> AsyncGenerator[list[Chunk]]:
        events = EventStream()
        self._streams += 1
        try:
            async with self._server.post("/completion", body) as response:
                async for data in response.content.iter_any():
                    if group := events.feed(data):
                        yield group
        finally:
            self._streams -= 1

    def _body(self, prompt: str | list[int], request: GenerationRequest, fold: AnswerFold) -> dict[str, Any]:
        seed = -1 if request.seed is None else (request.seed + len(fold.ids)) % 2**32
        return {
            "prompt": prompt,
            "n_predict": fold.wanted,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": seed,
            "samplers": SAMPLERS,
            "top_k": TOP_K,
            "ignore_eos": request.ignore_eos,
            "n_probs": max(1, self._top),
            "stream": True,
            "return_progress": True,
            "response_fields": FINAL_FIELDS,
        }

    async def _fill(self, fold: AnswerFold, gap: Gap, before: list[int], placing: Placing) -> None:
        """Find out and add the tokens of `gap`; `before` are the ids of the prompt."""
        await self._released()

        async def probe(ids: Sequence[int]) -> list[Candidate]:
            return await self._distribution(ids, placing=placing)

        found = await find_tokens(gap, before + fold.ids, self._vocabulary, probe, self._top)
        fold.fill(gap, found)

    async def _distribution(
        self, ids: Sequence[int], count: int = PROBE_CANDIDATES, placing: Placing | None = None
    ) -> list[Candidate]:
        """The `count` most likely tokens after `ids`: the next token is forced to a whole letter, since only those are reported."""
        body = {
            "prompt": ids,
            "n_predict": 1,
            "temperature": 0.0,
            "logit_bias": [[self._forced, FORCE]],
            "n_probs": count,
            "response_fields": ["completion_probabilities"],
            **(placing.fields() if placing else {"cache_prompt": False}),
        }
        answer = await self._server.ask("/completion", body, Probed)
        if not answer.completion_probabilities or not answer.completion_probabilities[0].top_logprobs:
            raise error("engine_unsuitable", "the server's /completion reports no token ids and probabilities")
        return answer.completion_probabilities[0].top_logprobs

    async def _released(self) -> None:
        """Wait until the server noticed that a stream was closed, so that the next request finds its prompt in that slot."""
        for _ in range(RELEASE_POLLS):
            slots = await self._server.look("/slots", list[Slot])
            if slots is None:
                return  # slots are not shown: go on, at worst the prompt is evaluated again
            if sum(slot.is_processing for slot in slots) <= self._streams:
                return
            await asyncio.sleep(RELEASE_PAUSE_S)

    async def _tokenize_each(self, texts: Sequence[str], *, parse_special: bool) -> list[list[int]]:
        """The texts travel in one list with SEPARATOR between them, an id that the server passes on as it is."""
        if not texts:
            return []
        mixed = [part for text in texts for part in (text, SEPARATOR)][:-1]
        body = {"content": mixed, "add_special": False, "parse_special": parse_special}
        found: list[list[int]] = [[]]
        for token in (await self._server.ask("/tokenize", body, TokenIds)).tokens:
            if token == SEPARATOR:
                found.append([])
            else:
                found[-1].append(token)
        if len(found) != len(texts):
            raise error("engine_unsuitable", f"the server's /tokenize answered {len(texts)} texts with {len(found)}")
        return found

    async def _tokenize(self, text: str) -> list[int]:
        body = {"content": text, "add_special": True, "parse_special": True}
        return (await self._server.ask("/tokenize", body, TokenIds)).tokens
