"""A model as the port `Engine`, for work that is no session's: what it asks for stands in line like everything else.

The host's own prompt jobs go this way, under one account, so that they get the share of one renter and no more, and so that a model that is
given other engines waits for them. Starts and stops nothing: the shelf does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fabstir.host.queueing import Asker
from fabstir.host.shelf import ShelvedModel
from fabstir.ports.engine import (
    ChatMessage,
    EngineHealth,
    GenerationEnd,
    GenerationRequest,
    ModelInfo,
    TokenBatch,
    Weight,
)


class StandingInLine:
    """As `fabstir.ports.engine.Engine`. Owns nothing."""

    def __init__(self, model: ShelvedModel, asker: Asker) -> None:
        self._model = model
        self._asker = asker

    def __repr__(self) -> str:
        return f"<StandingInLine {self._model!r}>"

    @property
    def info(self) -> ModelInfo:
        """See the port."""
        return self._model.pool.info

    async def start(self) -> None:
        """Nothing: the model is on the shelf."""

    async def stop(self) -> None:
        """Nothing: the shelf does."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """See the port. Raises also Refused (`capacity`, `model_unloaded`)."""
        async with aclosing(self._model.line.generate(self._asker, request)) as items:
            async for item in items:
                yield item

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        """See the port."""
        return await self._model.pool.count_tokens(messages)

    async def weigh(self, texts: tuple[str, ...]) -> tuple[Weight, ...]:
        """See the port."""
        return await self._model.pool.weigh(texts)

    async def health(self) -> EngineHealth:
        """See the port."""
        return await self._model.pool.health()
