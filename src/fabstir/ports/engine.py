"""The inference engine, as the host sees it: stateless requests in, tokens with ids and log-probabilities out.

Session state lives in the host; an engine's prefix cache is only an optimisation. Text is cut on UTF-8 boundaries and
before stop sequences by the adapter, so a `TokenBatch` may carry tokens without text (their bytes come with a later
one).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from fabstir.domain.ids import Hash32
from fabstir.protocol.context.history import Weight
from fabstir.protocol.context.planner import Frame
from fabstir.protocol.generation import GenerationEnd, GenerationRequest, TokenBatch
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.transcript import TokenRecord

__all__ = [
    "ChatMessage",
    "Engine",
    "EngineHealth",
    "Frame",
    "GenerationEnd",
    "GenerationRequest",
    "ModelInfo",
    "TokenBatch",
    "TokenRecord",
    "Weight",
]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says about the model that it loaded."""

    name: str
    context_size: int
    """Tokens of prompt and answer together, for one request."""
    sha256: Hash32
    """Of the weights file; zero where the engine holds the weights elsewhere."""
    parallel: int
    """Requests that are computed at the same time."""
    frame: Frame = Frame()
    """What the model's chat template adds to the texts of a conversation."""
    controls: tuple[str, ...] = ()
    """What requests may ask beyond temperature, top_p, seed and stop, and how answers read (`fabstir.protocol.controls`)."""


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

    async def weigh(self, texts: tuple[str, ...]) -> tuple[Weight, ...]:
        """Of each text alone, in one request where the server can. Raises as `generate`."""
        ...

    async def health(self) -> EngineHealth:
        """Never raises."""
        ...
