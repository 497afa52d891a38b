"""An engine that also says how likely the tokens of an answer that is there are, what one host checks another with, and makes the
fingerprints of its own answers.

Generates like the engine it is built on. An answer that is there goes through the same weights in a process of its own
(`engines.reexecution`), in one prefill; the weights are in memory twice. Nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from fabstir.domain.errors import error
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.reexecution.examine import claimed_sampler
from fabstir.engines.reexecution.frames import Prefill
from fabstir.engines.reexecution.reexecutor import Reexecutor
from fabstir.ports.engine import (
    ChatMessage,
    EngineHealth,
    GenerationEnd,
    GenerationRequest,
    ModelInfo,
    TokenBatch,
    TokenRecord,
    Weight,
)
from fabstir.protocol.audit_sampler import ClaimedSampler

BATCH: Final = 32
"""Records that are handed on at once, so that the meter can wait for signatures between them."""
GREEDY: Final = ClaimedSampler(temperature=0.0, top_p=1.0, top_k=1)
"""Where nobody asks what could have been drawn."""


class ScoringEngine:
    """The ports `Engine` and `Fingerprinter`. Owns the engine; the re-execution may have other users."""

    def __init__(self, engine: LlamaEngine, reexecutor: Reexecutor, *, top: int) -> None:
        self._engine = engine
        self._reexecutor = reexecutor
        self._top = top

    def __repr__(self) -> str:
        return f"<ScoringEngine {self._engine!r} {self._reexecutor!r}>"

    @property
    def info(self) -> ModelInfo:
        """See the port."""
        return self._engine.info

    async def start(self) -> None:
        """Load the weights twice. Raises LocalFault (`model_invalid`, `tool_missing`, `reexecution_unsupported`)."""
        await self._engine.start()
        try:
            await self._reexecutor.__aenter__()
        except BaseException:
            await self._engine.stop()
            raise

    async def stop(self) -> None:
        """See the port."""
        await self._reexecutor.leave()
        await self._engine.stop()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """See the port."""
        items = self._score(request) if request.score else self._engine.generate(request)
        async with aclosing(items):
            async for item in items:
                yield item

    @property
    def reexecutor(self) -> Reexecutor:
        """For others who need the same weights again."""
        return self._reexecutor

    async def fingerprints(
        self, messages: tuple[ChatMessage, ...], prefix: str, answer: tuple[int, ...]
    ) -> tuple[bytes, ...]:
        """See the port."""
        prompt = await self._engine.prompt_ids(messages, prefix)
        job = Prefill(prompt, answer, ((),) * len(answer), GREEDY, top=1, fingerprints=True)
        return (await self._reexecutor.prefill(job)).fingerprints

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        """See the port."""
        return await self._engine.count_tokens(messages)

    async def weigh(self, texts: tuple[str, ...]) -> tuple[Weight, ...]:
        """See the port."""
        return await self._engine.weigh(texts)

    async def prompt_ids(self, messages: tuple[ChatMessage, ...], prefix: str = "") -> tuple[int, ...]:
        """As `LlamaEngine.prompt_ids`."""
        return await self._engine.prompt_ids(messages, prefix)

    async def health(self) -> EngineHealth:
        """The worse of the two."""
        generating = await self._engine.health()
        if generating.status != "ok":
            return generating
        scoring = self._reexecutor.child.health
        restarts = generating.restarts + scoring.restarts
        return EngineHealth(scoring.status, scoring.reason and f"scoring: {scoring.reason}", restarts)

    async def _score(self, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        prompt = await self._engine.prompt_ids(request.messages, request.prefix)
        if len(prompt) + len(request.score) > self.info.context_size:
            raise error(
                "context_too_long",
                f"{len(prompt)} tokens of prompt and {len(request.score)} to score, the context is {self.info.context_size}",
            )
        nothing_else: tuple[tuple[int, ...], ...] = ((),) * len(request.score)
        job = Prefill(prompt, request.score, nothing_else, claimed_sampler(request), top=max(1, self._top))
        positions = (await self._reexecutor.prefill(job)).positions
        records = tuple(
            TokenRecord(token, position.logprob, position.top[: self._top])
            for token, position in zip(request.score, positions, strict=True)
        )
        for at in range(0, len(records), BATCH):
            yield TokenBatch(records[at : at + BATCH], "")
        yield GenerationEnd(finish_reason="length", prompt_tokens=len(prompt), completion_tokens=len(records))
