"""Watches how much memory the conversations of all sessions take, and what the machine has left, and acts before the kernel does.

What is compressed and what is given up is decided by `fabstir.protocol.context.resting`; this looks, and tells the sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from fabstir.host.session_actor import SessionActor
from fabstir.ops.metrics import Metrics
from fabstir.ports.clock import Clock
from fabstir.protocol.context.resting import Holding, MemoryRules, relieve

LOOK_SECONDS: Final = 5.0

log = structlog.get_logger()


class MemoryWatch:
    """Of one host. Memory: none of its own."""

    def __init__(
        self,
        actors: Callable[[], Iterable[SessionActor]],
        available: Callable[[], int],
        rules: Callable[[], MemoryRules],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """`available`: bytes of the machine's memory that are free."""
        self._actors = actors
        self._available = available
        self._rules = rules
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            self.look(await asyncio.to_thread(self._available))

    def look(self, available: int) -> None:
        """Once."""
        idle: list[Holding[SessionActor]] = []
        busy = 0
        for actor in self._actors():
            size, idle_for = actor.core.history_bytes, actor.idle_for
            if idle_for is None:
                busy += size
            else:
                idle.append(Holding(actor, size, idle_for, actor.core.rests))
        total = busy + sum(one.size for one in idle)
        self._metrics.context_bytes.set(total)
        relief = relieve(idle, busy, available, self._rules())
        for actor in relief.rest:
            actor.rest()
        for actor in relief.forget:
            actor.forget()
            self._metrics.contexts_forgotten.inc()
            log.warning("context_forgotten", job_id=actor.core.ledger.job, count=total)
