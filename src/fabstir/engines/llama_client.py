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
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import Any, Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.engines.llama_answer import AnswerFold, Gap
from fabstir.engines.llama_controls import (
    PROBE_CANDIDATES,
    WHOLE_VOCABULARY,
    Adapters,
    constraint,
    facts,
    probe_width,
    sampler,
)
from fabstir.engines.llama_gaps import find_tokens
from fabstir.engines.llama_vocabulary import Vocabulary
from fabstir.engines.llama_wire import (
    FINAL_FIELDS,
    Candidate,
    Chunk,
    Drawn,
    EventStream,
    LoraEntry,
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
from fabstir.protocol.controls import CONTROLS, prescribed

FORCE: Final = 1e5
"""Added to one logit it outweighs all others; the reported log-probabilities are those before it."""
SEPARATOR: Final = 2**31 - 1
"""The id of no token."""
MAY_FORGE: Final = re.compile(r"[<\[|\uff5c\u2581]")
"""Every control token of the models that we know of has one of these."""
MAX_CHECKED: Final = 256
"""Schemas that are remembered as good, 32 bytes each."""
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
        self._adapters = Adapters(())
        self._checked: OrderedDict[bytes, None] = OrderedDict()
        """Digests of schemas that the server is known to enforce, the newest last."""
        self.controls: tuple[str, ...] = ()
        """What requests may ask for, and how answers read; known after `handshake`."""

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
        settings = props.default_generation_settings
        if settings.params.speculation not in ("", "none"):
            raise error(
                "engine_unsuitable",
                "the server drafts tokens ahead, and reports no probabilities of those that it accepts",
            )
        self._context_size = settings.n_ctx
        self._adapters = Adapters(await self._server.look("/lora-adapters", list[LoraEntry]) or ())
        opened = await self.template((ChatMessage("user", "Hello"),))
        self.controls = (*CONTROLS, *self._adapters.controls, *facts(props.chat_template, opened))
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
        self._adapters.require(request.adapter)
        async with self._places.place(_cache_of(request)) as placing:
            await self._require_enforced(request, placing)
            text = await self.template(request.messages) + request.prefix
            fold = AnswerFold(request, self._top)
            prompt: str | list[int] = text
            before: list[int] = []
            while not fold.finish:
                gap = None
                async with aclosing(self._fold_stream(prompt, request, fold, placing)) as items:
                    async for item in items:
                        if not isinstance(item, Gap):
                            yield item
                        elif prescribed(request):  # no server goes on in the middle of a grammar: the stream stays
                            before = before or await self._tokenize(text)
                            await self._fill(fold, item, before, request, placing, certain=True)
                        else:
                            gap = item
                if gap is not None:
                    before = before or await self._tokenize(text)
                    await self._released()
                    await self._fill(fold, gap, before, request, placing)
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
        """One stream, to the end of the answer or to the first gap; where the form of the answer is prescribed, on after each gap, which
        the caller has filled by then."""
        fold.begin()
        goes_on = prescribed(request)
        async with aclosing(self._chunks(self._body(prompt, request, fold) | placing.fields())) as groups:
            async for group in groups:
                for chunk in group:
                    if chunk.error is not None:
                        raise server_fault(500, chunk.error)
                    placing.begun()
                    if (gap := fold.take(chunk)) is not None:
                        if batch := fold.batch():
                            yield batch
                        yield gap
                        if not goes_on:
                            return
                    if fold.finish:
                        break
                if batch := fold.batch():
                    yield batch
                if fold.finish:
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
            **sampler(request),
            **constraint(request),
            **self._adapters.scales(request.adapter),
            "seed": seed,
            "ignore_eos": request.ignore_eos,
            "n_probs": max(1, self._top),
            "stream": True,
            "return_progress": True,
            "response_fields": FINAL_FIELDS,
        }

    async def _fill(
        self,
        fold: AnswerFold,
        gap: Gap,
        before: list[int],
        request: GenerationRequest,
        placing: Placing,
        *,
        certain: bool = False,
    ) -> None:
        """Find out and add the tokens of `gap`; `before` are the ids of the prompt. `certain`: where they can be others, it is an error."""
        width, adapter = probe_width(request), request.adapter

        async def probe(ids: Sequence[int]) -> list[Candidate]:
            return await self._distribution(ids, width, placing, adapter)

        found = await find_tokens(gap, before + fold.ids, self._vocabulary, probe, self._top, certain=certain)
        fold.fill(gap, found)

    async def _require_enforced(self, request: GenerationRequest, placing: Placing) -> None:
        """That the server makes answers satisfy the schema: of one that it cannot read it says nothing, and answers as if there were none.
        So it is asked for a letter, which no JSON begins with. Raises Refused (`control_invalid`)."""
        if not prescribed(request):
            return
        form = constraint(request)
        digest = sha256(msgspec.json.encode(form)).digest()
        if digest in self._checked:
            self._checked.move_to_end(digest)
            return
        body = {"prompt": [self._forced], "n_predict": 1, "logit_bias": [[self._forced, FORCE]], "n_probs": 1, **form}
        body |= {"id_slot": placing.slot, "cache_prompt": False}  # what it displaces is the asker's own
        try:
            answer = await self._server.ask(
                "/completion", {**body, "response_fields": ["completion_probabilities"]}, Drawn
            )
        except FabstirError as fault:
            if fault.code != "engine_refused":
                raise
            raise error("control_invalid", "the engine cannot read the grammar or schema") from None
        if request.json_schema and [one.id for one in answer.completion_probabilities] == [self._forced]:
            raise error("control_invalid", "the engine cannot make answers satisfy this JSON Schema")
        self._checked[digest] = None
        if len(self._checked) > MAX_CHECKED:
            self._checked.popitem(last=False)

    async def _distribution(
        self,
        ids: Sequence[int],
        count: int = PROBE_CANDIDATES,
        placing: Placing | None = None,
        adapter: str = "",
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
            **self._adapters.scales(adapter),
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


def _cache_of(request: GenerationRequest) -> str:
    """Whose computations it may go on from: the same session's under the same adapter."""
    return f"{request.cache}-{request.adapter}" if request.cache and request.adapter else request.cache
