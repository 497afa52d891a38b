"""The models of one host: which are loaded, and how one is loaded or unloaded while renters are served.

It decides who may use a model now. While a model is being loaded its requests wait in line; while it is unloaded, or on its way out,
they are refused with the reason, and answers that run end first. Each model has its engines (`pool`) and its line (`queueing`); several
models are loaded one after the other, so that no two reads of weights compete, and unloaded before others are loaded.
Never touches the offer: `on_change` tells whoever makes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ModelId, to_hex
from fabstir.host.pool import EnginePool, EngineState
from fabstir.host.queueing import Asker, Line, LineSettings, Told
from fabstir.ports.clock import Clock
from fabstir.ports.engine import Engine, ModelInfo, Weight

log = structlog.get_logger()


class Stand(Enum):
    """How a model stands."""

    UNLOADED = "unloaded"
    """Its requests are refused."""
    LOADING = "loading"
    """Its requests wait in line."""
    LOADED = "ok"
    ENDING = "ending"
    """Running answers end; what is new is refused."""
    FAILED = "failed"
    """It could not be loaded; its requests are refused with the reason."""


class ModelPart(msgspec.Struct, frozen=True, kw_only=True):
    """One model, for `/health`."""

    name: str
    """"" before it was first loaded."""
    model_id: str
    status: str
    """`ok`, `loading`, `ending`, `unloaded`, `failed`; `degraded` where it is loaded and an engine of it does not work."""
    reason: str = ""
    running: int = 0
    """Answers at work."""
    waiting: int = 0
    """Requests in line."""
    wait_s: float = 0.0
    """What a request that came now would wait, as expected."""
    engines: tuple[EngineState, ...] = ()

    @property
    def serves(self) -> bool:
        """At least one engine of it works."""
        return self.status == "ok" or (self.status == "degraded" and any(one.status == "ok" for one in self.engines))


def _reason(bad: EngineState, of: int) -> str:
    """What is wrong with an engine; which one it is, where there are several."""
    reason = bad.reason or bad.status
    return reason if of == 1 else f"{bad.name}: {reason}"


class ShelvedModel:
    """One model with its engines and its line."""

    def __init__(self, model_id: ModelId, engines: Mapping[str, Engine], clock: Clock, settings: LineSettings) -> None:
        self.model_id: Final = model_id
        self.pool: Final = EnginePool(engines, clock)
        self.line: Final = Line(self.pool, clock, settings)
        self.info: ModelInfo | None = None
        """As it was loaded last."""
        self.needed_for = ""
        """Why it must not be unloaded while the host runs; "": it may be."""
        self.stand = Stand.UNLOADED
        self.reason = "not loaded yet"

    def __repr__(self) -> str:
        return f"<ShelvedModel {self.name or to_hex(self.model_id)} {self.stand.value} {self.line!r}>"

    @property
    def name(self) -> str:
        """ "" before it was first loaded."""
        return self.info.name if self.info else ""

    def require(self) -> None:
        """Raises Refused (`model_unloaded`) where its requests have no hope."""
        if self.stand not in (Stand.LOADED, Stand.LOADING):
            raise error("model_unloaded", f"{self.name or to_hex(self.model_id)}: {self.reason or self.stand.value}")

    async def weigh(self, asker: Asker, texts: tuple[str, ...], told: Told) -> tuple[Weight, ...]:
        """Tokens of each text alone; takes no place, but waits in line while the model is being loaded. Raises as `Line.generate`."""
        if self.stand is not Stand.LOADED:
            await self.line.wait(asker, told)
        return await self.pool.weigh(texts)

    def require_dispensable(self) -> None:
        """Raises Refused (`model_needed`) where something of the host works with it alone."""
        if self.needed_for:
            raise error("model_needed", f"{self.name}: {self.needed_for}")

    async def part(self) -> ModelPart:
        """For `/health`."""
        states = await self.pool.states() if self.stand is Stand.LOADED else ()
        bad = next((state for state in states if state.status != "ok"), None)
        return ModelPart(
            name=self.name,
            model_id=to_hex(self.model_id),
            status="degraded" if bad else self.stand.value,
            reason=_reason(bad, len(states)) if bad else self.reason,
            running=self.line.working,
            waiting=self.line.waiting,
            wait_s=self.line.expected,
            engines=states,
        )


class Shelf:
    """All models of a host, in the order of its settings. Memory: the models'."""

    def __init__(
        self,
        engines: Mapping[ModelId, Mapping[str, Engine]],
        clock: Clock,
        settings: LineSettings,
        drain_timeout: float,
    ) -> None:
        """`drain_timeout`: seconds that a running answer may still take when its model is unloaded."""
        self._clock = clock
        self._line_settings = settings
        self._models = {model: self._made(model, each) for model, each in engines.items()}
        self._drain_timeout = drain_timeout
        self._changing = asyncio.Lock()
        self._stopped = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        """What is offered has changed."""

    def __repr__(self) -> str:
        return f"<Shelf {list(self._models.values())!r}>"

    # -- life --------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load every model. Raises LocalFault; then `stop` must still be called."""
        for model in self._models.values():
            await self._load(model)

    async def stop(self) -> None:
        """End everything; nothing is loaded any more. Idempotent."""
        self._stopped.set()
        for model in self._models.values():
            model.stand, model.reason = Stand.UNLOADED, "the host goes down"
            model.line.close(error("model_unloaded", model.reason))
        await asyncio.gather(*(model.pool.stop() for model in self._models.values()))

    async def load(self, wanted: ModelId) -> None:
        """Load one that is not; returns when it serves. Raises Refused (`model_unknown`), LocalFault (as `Engine.start`)."""
        model = self.get(wanted)
        async with self._changing:
            if model.stand is not Stand.LOADED:
                await self._load(model)

    async def unload(self, wanted: ModelId) -> None:
        """Let its answers end, refuse what waits, free what it holds; returns when that is done. Raises Refused (`model_unknown`,
        `model_needed`)."""
        model = self.get(wanted)
        model.require_dispensable()
        async with self._changing:
            await self._unload(model)

    async def switch(self, out: ModelId, into: ModelId) -> None:
        """Unload the one, then load the other, whose requests wait in line from now on. Raises as `load`; where the second cannot be
        loaded, the first is loaded again."""
        leaving, coming = self.get(out), self.get(into)
        leaving.require_dispensable()
        async with self._changing:
            if coming.stand is not Stand.LOADED:
                self._stands(coming, Stand.LOADING)
                coming.line.open()
            await self._unload(leaving)
            try:
                if coming.stand is not Stand.LOADED:
                    await self._load(coming)
            except FabstirError:
                await self._load(leaving)
                raise

    async def arrange(self, wanted: Mapping[ModelId, Mapping[str, Engine]], kept: frozenset[ModelId]) -> dict[str, str]:
        """Have the models of `wanted` with their engines, in this order; those of `kept` have theirs already. What goes is unloaded first;
        requests of a model that gets other engines wait in line. Returns what could not be loaded, with the reason: it is `failed`."""
        async with self._changing:
            gone = [model for known, model in self._models.items() if known not in wanted]
            other = [self._models[known] for known in wanted if known in self._models and known not in kept]
            new = {known: self._made(known, wanted[known]) for known in wanted if known not in self._models}
            for model in gone:
                await self._unload(model)
            for model in other:
                await self._empty(model)
                model.pool.replace(wanted[model.model_id])
            self._models = {known: new.get(known) or self._models[known] for known in wanted}
            for known in kept:
                self._models[known].pool.rename(tuple(wanted[known]))
            failed = {}
            for model in (*other, *new.values()):
                try:
                    await self._load(model)
                except FabstirError as fault:
                    failed[model.name or to_hex(model.model_id)] = str(fault)
            self.on_change()
            return failed

    def adjust(self, settings: LineSettings) -> None:
        """Other bounds of every line, from now on."""
        self._line_settings = settings
        for model in self._models.values():
            model.line.adjust(settings)

    # -- what is there -------------------------------------------------------------------------------------------------------

    def get(self, model: ModelId) -> ShelvedModel:
        """Raises Refused (`model_unknown`)."""
        if (found := self._models.get(model)) is None:
            raise error("model_unknown", to_hex(model))
        return found

    def find(self, model: ModelId) -> ShelvedModel | None:
        """None where this host does not have it."""
        return self._models.get(model)

    def named(self, text: str) -> ShelvedModel:
        """By name or by id. Raises Refused (`model_unknown`)."""
        for model in self._models.values():
            if text in (model.name, to_hex(model.model_id)):
                return model
        raise error("model_unknown", text[:100])

    @property
    def models(self) -> tuple[ShelvedModel, ...]:
        """All of them."""
        return tuple(self._models.values())

    @property
    def offered(self) -> tuple[ShelvedModel, ...]:
        """Those that sessions may be opened for."""
        return tuple(
            model for model in self._models.values() if model.info and model.stand in (Stand.LOADED, Stand.LOADING)
        )

    # -- inside --------------------------------------------------------------------------------------------------------------

    def _made(self, model: ModelId, engines: Mapping[str, Engine]) -> ShelvedModel:
        return ShelvedModel(model, engines, self._clock, self._line_settings)

    async def _empty(self, model: ShelvedModel) -> None:
        """Let its answers end while its further requests wait, and stop its engines."""
        self._stands(model, Stand.LOADING, "it gets other engines")
        model.line.hold()
        await model.line.drain(self._drain_timeout)
        await model.pool.stop()

    async def _load(self, model: ShelvedModel) -> None:
        if self._stopped.is_set():
            raise error("draining", "the host goes down")
        began = self._clock.monotonic()
        self._stands(model, Stand.LOADING)
        model.line.open()
        try:
            await model.pool.start()
            if self._stopped.is_set():  # meanwhile: no process may outlive the host
                await model.pool.stop()
                raise error("draining", "the host goes down")
        except BaseException as fault:
            said = str(fault) if isinstance(fault, FabstirError) else "the start was cut off"
            self._stands(model, Stand.FAILED, said)
            model.line.close(error("model_unloaded", said))
            raise
        model.info = model.pool.info
        self._stands(model, Stand.LOADED)
        model.line.advance()
        seconds = round(self._clock.monotonic() - began, 3)
        log.info("model_loaded", model_name=model.name, parallel=model.info.parallel, seconds=seconds)

    async def _unload(self, model: ShelvedModel) -> None:
        if model.stand not in (Stand.LOADED, Stand.LOADING):
            return
        self._stands(model, Stand.ENDING, "it is being unloaded")
        model.line.close(error("model_unloaded", f"{model.name}: it is being unloaded"))
        await model.line.drain(self._drain_timeout)
        await model.pool.stop()
        self._stands(model, Stand.UNLOADED, "unloaded by the operator")
        log.info("model_unloaded", model_name=model.name)

    def _stands(self, model: ShelvedModel, stand: Stand, reason: str = "") -> None:
        model.stand, model.reason = stand, reason
        self.on_change()
