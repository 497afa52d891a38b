"""`AnswerTracer`: the port `Tracer` for answers of llama.cpp. The prompt's ids come from the engine that answered, the states from the
same weights in a process of their own, which stands behind the engine wherever the CPUs are busy. Decides nothing; keeps nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from fabstir.engines.reexecution.frames import Trace
from fabstir.engines.reexecution.reexecutor import Reexecutor
from fabstir.ports.engine import ChatMessage
from fabstir.ports.tracer import TracedTokens

NICE: Final = 10


class Templating(Protocol):
    """An engine that says what a conversation is as tokens."""

    async def prompt_ids(self, messages: tuple[ChatMessage, ...], prefix: str = "") -> tuple[int, ...]:
        """Those after which an answer begins."""
        ...


class AnswerTracer:
    """Owns a process with the weights, or uses one that others use too."""

    def __init__(
        self,
        model: Path,
        engine: Templating,
        *,
        threads: int | None = None,
        gpu_layers: int = 0,
        shared: Reexecutor | None = None,
    ) -> None:
        """`engine` answers with the weights in `model`, of which `shared` is a re-execution; the rest is as `Reexecutor` has it."""
        self._engine = engine
        self._reexecutor = shared or Reexecutor(model, threads=threads, gpu_layers=gpu_layers, nice=NICE)

    def __repr__(self) -> str:
        return f"<AnswerTracer {self._reexecutor!r}>"

    async def start(self) -> None:
        """See the port."""
        await self._reexecutor.__aenter__()

    async def stop(self) -> None:
        """See the port."""
        await self._reexecutor.leave()

    async def trace(
        self, messages: tuple[ChatMessage, ...], prefix: str, records: tuple[bytes, ...], first: int
    ) -> TracedTokens:
        """See the port."""
        prompt = await self._engine.prompt_ids(messages, prefix)
        traced = await self._reexecutor.trace(Trace(prompt, records, first))
        return TracedTokens(traced.hidden, traced.denominators)
