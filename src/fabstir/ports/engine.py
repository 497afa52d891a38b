"""The inference engine, as the host sees it: stateless requests in, tokens with ids and log-probabilities out.

Session state lives in the host; an engine's prefix cache is only an optimisation. Text is cut on UTF-8 boundaries and before stop
sequences by the adapter, so a `TokenBatch` may carry tokens without text (their bytes come with a later one).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from fabstir.domain.ids import Hash32, TokenId


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to generate."""

    messages: tuple[ChatMessage, ...]
    prefix: str = ""
    """Beginning of the answer that was delivered before (by another host): the engine goes on after it."""
    max_tokens: int
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    """Only for tests and benchmarks that need an exact number of tokens."""


class TokenRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is committed about one generated token. Log-probabilities are of the raw softmax, before the sampler, in micro-nats
    (round(ln p * 1e6), <= 0)."""

    token: TokenId
    logprob: int
    top: tuple[tuple[int, int], ...] = ()
    """The k most likely (token id, log-probability), best first."""


class TokenBatch(msgspec.Struct, frozen=True):
    """One or more tokens in the order of generation, and the text that became complete with them (may be "")."""

    records: tuple[TokenRecord, ...]
    text: str


class GenerationEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Last item of a generation that was not cut off."""

    finish_reason: str
    """"stop" (end-of-turn token or stop sequence) or "length"."""
    prompt_tokens: int
    completion_tokens: int
    """By the engine's own count; equals the number of records emitted, end-of-turn token included."""
    cached_tokens: int = 0


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says about the model that it loaded."""

    name: str
    context_size: int
    """Tokens of prompt and answer together, for one request."""
    sha256: Hash32
    """Of the weights file; zero where the engine holds the weights elsewhere."""
    parallel: int
    """Requests that are computed at the same time."""


class EngineHealth(msgspec.Struct, frozen=True):
    """`ok`, `starting`, `restarting` or `down`, and why."""

    status: str
    reason: str = ""
    restarts: int = 0


class Engine(Protocol):
    """One loaded model."""

    @property
    def info(self) -> ModelInfo:
        """Known after `start`."""
        ...

    async def start(self) -> None:
        """Load and be ready. Raises LocalFault (`model_invalid`, `tool_missing`)."""
        ...

    async def stop(self) -> None:
        """End every request with `engine_gone` and free everything. Idempotent."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[TokenBatch | GenerationEnd]:
        """Batches, then one GenerationEnd. Closing the iterator cancels inside the engine.

        Raises Interrupted (`engine_gone`, `engine_failed`), Refused (`context_too_long`, `engine_refused`, `capacity`).
        """
        ...

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        """Tokens of the templated conversation. Raises as `generate`."""
        ...

    async def health(self) -> EngineHealth:
        """Never raises."""
        ...
