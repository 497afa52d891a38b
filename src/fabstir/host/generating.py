"""The engine's side of one session: what is asked of it goes to the line of its model, what comes back becomes inputs of the core.

Decides nothing; whoever waits is told where it stands. Never logs what it carries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.host.queueing import Asker
from fabstir.host.shelf import ShelvedModel
from fabstir.host.telemetry import SessionTelemetry
from fabstir.ports.engine import GenerationEnd
from fabstir.protocol.effects import CountTokens, RunGeneration
from fabstir.protocol.fair_queue import Place
from fabstir.protocol.host_inputs import EngineBatch, EngineFailed, EngineFinished, HostInput, TokensCounted
from fabstir.protocol.messages import FromHost, Notice


class Say(msgspec.Struct, frozen=True):
    """A message that comes from beside the core: an error that is no fault of the renter's, its place in line."""

    message: FromHost


class Generating:
    """Of one session. Memory: one item."""

    def __init__(
        self,
        model: ShelvedModel,
        asker: Asker,
        telemetry: SessionTelemetry,
        put: Callable[[HostInput | Say], Awaitable[None]],
    ) -> None:
        """`put`: into the session's inbox; waits while it is full, and the engine with it."""
        self._model = model
        self._asker = asker
        self._telemetry = telemetry
        self._put = put

    async def answer(self, run: RunGeneration) -> None:
        """An answer, from its place in line to its end or its failure. Cancelled, the engine stops."""
        turn = run.turn
        try:
            with self._telemetry.generation() as started:
                items = self._model.line.generate(self._asker, run.request, self._queued, started)
                async with aclosing(items):
                    async for item in items:
                        if isinstance(item, GenerationEnd):
                            self._telemetry.computed(item)
                            return await self._put(EngineFinished(turn, item))
                        await self._put(EngineBatch(turn, item))
            raise error("engine_gone", "the generation stopped without an end")
        except FabstirError as fault:
            return await self._put(EngineFailed(turn, fault))

    async def count(self, run: CountTokens) -> None:
        """The tokens of some texts."""
        try:
            weights = await self._model.weigh(self._asker, run.texts, self._queued)
        except FabstirError as fault:
            return await self._put(EngineFailed(run.turn, fault))
        return await self._put(TokensCounted(run.turn, weights))

    async def _queued(self, place: Place) -> None:
        """Whoever waits is told where it stands."""
        wait = round(place.seconds)
        said = f"{place.position} of {place.of} in line for this model, about {wait} s"
        await self._put(Say(Notice(code="queued", message=said, position=place.position, wait_s=wait)))
