"""Several engines of one model behind the port `Engine`: what one of them cannot do before its first token, another does.

Which engine gets a request is decided by `fabstir.protocol.balance`. An answer that has begun is not repeated elsewhere here: the renter
goes on with it (`prefix`), at this host or at another one. Owns the engines. Memory: the balance.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final, cast

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.clock import Clock
from fabstir.ports.engine import (
    ChatMessage,
    Engine,
    EngineHealth,
    GenerationEnd,
    GenerationRequest,
    ModelInfo,
    TokenBatch,
    Weight,
)
from fabstir.protocol.balance import Balance, Member
from fabstir.protocol.breaker import Circuit

OUT_OF_ORDER: Final = frozenset(("engine_gone", "engine_failed"))
"""What says that the engine does not work; everything else is the request's fault."""
ELSEWHERE: Final = OUT_OF_ORDER | {"capacity"}
"""What another engine may still do."""

log = structlog.get_logger()


class EngineState(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, for `/health`."""

    name: str
    """Its place in the settings: `engine`, `engines[0]`."""
    status: str
    """`ok`, `starting`, `restarting`, `down`; `resting` while its breaker is open."""
    reason: str = ""
    active: int = 0
    """Requests at work."""
    places: int = 0
    """Requests that it computes at the same time."""
    restarts: int = 0


class EnginePool:
    """The engines of one model, as one."""

    def __init__(self, engines: Mapping[str, Engine], clock: Clock) -> None:
        """By name, in the order of preference."""
        self._engines = dict(engines)
        self._now = clock.monotonic
        self._balance = Balance()
        self._of: dict[Member, Engine] = {}
        self._info: ModelInfo | None = None

    def __repr__(self) -> str:
        return f"<EnginePool {self._balance!r}>"

    # -- the port ------------------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        """What all of them can do: the shortest context, the controls that each has, and all places together. Known after the first
        `start`."""
        if self._info is None:
            raise RuntimeError("the engines were not started")
        return self._info

    async def start(self) -> None:
        """Start all of them. Raises LocalFault: what the first one that cannot start says; then none runs."""
        try:
            async with asyncio.TaskGroup() as starting:
                for engine in self._engines.values():
                    starting.create_task(engine.start())
        except* FabstirError as faults:
            await self.stop()
            raise faults.exceptions[0] from None
        infos = [engine.info for engine in self._engines.values()]
        members = {Member(name, engine.info.parallel): engine for name, engine in self._engines.items()}
        self._of, self._balance.members = members, list(members)
        self._info = msgspec.structs.replace(
            infos[0],
            context_size=min(info.context_size for info in infos),
            parallel=sum(info.parallel for info in infos),
            controls=tuple(name for name in infos[0].controls if all(name in info.controls for info in infos)),
        )

    async def stop(self) -> None:
        """Stop all of them. Idempotent."""
        for member in self._balance.members:
            member.leaving = True
        await asyncio.gather(*(engine.stop() for engine in self._engines.values()))

    async def generate(
        self, request: GenerationRequest, session: str = ""
    ) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """As the port. `session`: requests with the same one are computed where the last one was, while there is room."""
        tried: set[Member] = set()
        while True:
            member = self._balance.take(session, self._now(), frozenset(tried))
            if member is None:
                raise error("engine_gone", "no engine of this model is left")
            tried.add(member)
            begun = False
            try:
                async with aclosing(self._stream(member, request)) as items:
                    async for item in items:
                        begun = True
                        yield item
                return
            except FabstirError as fault:
                if begun or fault.code not in ELSEWHERE or len(tried) == len(self._balance.members):
                    raise
                log.warning("engine_passed_over", part=member.name, code=fault.code, detail=fault.detail)
            finally:
                self._balance.done(member)

    async def count_tokens(self, messages: tuple[ChatMessage, ...]) -> int:
        """As the port, from an engine that answers."""
        return await self._any().count_tokens(messages)

    async def weigh(self, texts: tuple[str, ...]) -> tuple[Weight, ...]:
        """As the port, from an engine that answers."""
        engines = [self._any(), *(self._of[member] for member in self._balance.members)]
        for engine in engines[:-1]:
            try:
                return await engine.weigh(texts)
            except FabstirError as fault:
                if fault.code not in ELSEWHERE:
                    raise
        return await engines[-1].weigh(texts)

    async def health(self) -> EngineHealth:
        """`ok` where all are; the first reason of those that are not, behind their name, where there are several."""
        states = await self.states()
        restarts = sum(state.restarts for state in states)
        bad = next((state for state in states if state.status != "ok"), None)
        if bad is None:
            return EngineHealth("ok", restarts=restarts)
        return EngineHealth(bad.status, bad.reason if len(states) == 1 else f"{bad.name}: {bad.reason}", restarts)

    # -- what else is asked ----------------------------------------------------------------------------------------------------

    @property
    def places(self) -> int:
        """Requests that can be at work now."""
        return self._balance.places(self._now())

    async def states(self) -> tuple[EngineState, ...]:
        """Each engine, by itself."""
        healths = await asyncio.gather(*(engine.health() for engine in self._engines.values()))
        members = {member.name: member for member in self._balance.members}
        return tuple(
            self._state(name, members.get(name), health) for name, health in zip(self._engines, healths, strict=True)
        )

    def replace(self, engines: Mapping[str, Engine]) -> None:
        """Other engines, while none runs; `start` starts them."""
        self._engines, self._of, self._balance.members = dict(engines), {}, []

    def rename(self, names: Sequence[str]) -> None:
        """The same engines at other places in the settings, in the same order."""
        for member in self._balance.members:
            member.name = names[list(self._engines).index(member.name)]
        self._engines = dict(zip(names, self._engines.values(), strict=True))

    # -- inside --------------------------------------------------------------------------------------------------------------

    async def _stream(self, member: Member, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """From one engine; its breaker learns what came of it."""
        known = False
        try:
            items = cast(AsyncGenerator[TokenBatch | GenerationEnd], self._of[member].generate(request))
            async with aclosing(items):
                async for item in items:
                    if not known:
                        known = True
                        member.breaker.succeeded()
                    yield item
        except FabstirError as fault:
            if fault.code in OUT_OF_ORDER:
                known = True
                member.breaker.failed(self._now(), fault.code)
            raise
        finally:
            if not known:
                member.breaker.undecided()

    def _any(self) -> Engine:
        """An engine that should work, without taking a place there."""
        members = self._balance.members
        usable = [member for member in members if member.usable(self._now())] or members
        if not usable:
            raise error("engine_gone", "no engine of this model runs")
        return self._of[usable[0]]

    def _state(self, name: str, member: Member | None, health: EngineHealth) -> EngineState:
        status, reason = health.status, health.reason
        if member is not None and status == "ok" and member.breaker.state is not Circuit.CLOSED:
            wait = member.breaker.wait(self._now())
            status, reason = "resting", f"failed several times ({member.breaker.reason}), tried again in {wait:.0f} s"
        return EngineState(
            name=name,
            status=status,
            reason=reason,
            active=member.active if member else 0,
            places=member.places if member else 0,
            restarts=health.restarts,
        )
