"""The line in front of one model: requests wait for a place, are told where they stand, and are refused after a while.

The order is decided by `fabstir.protocol.fair_queue`; this gives it time and places, wakes whose turn it is, and counts for it what
each request cost. A request that waits longer than `patience` is refused with `capacity`. Never sees what is said, but for its length.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address
from fabstir.host.pool import EnginePool
from fabstir.ports.clock import Clock
from fabstir.ports.engine import GenerationEnd, GenerationRequest, TokenBatch
from fabstir.protocol.fair_queue import FairQueue, Place

TELL_SECONDS: Final = 5.0
"""So often whoever waits is told where it stands."""
CHARACTERS_PER_TOKEN: Final = 4
"""To charge a prompt with before the engine has counted it."""


class LineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of each model's line."""

    longest: int = 256
    """Requests that may wait."""
    per_renter: int = 16
    """Answers that one renter may have at work."""
    patience: float = 60.0
    """Seconds that a request waits at most."""


class Asker(msgspec.Struct, frozen=True):
    """Who asks: a renter (its account), and in which session."""

    renter: Address
    session: str = ""


Told = Callable[[Place], Awaitable[None]]
"""Is told where a request stands, once it must wait, and every TELL_SECONDS."""


async def _nobody(_place: Place) -> None:
    """Nobody is told."""


class Line:
    """One model's. Memory: the queue's, and a future for each that waits."""

    def __init__(self, pool: EnginePool, clock: Clock, settings: LineSettings) -> None:
        self._pool = pool
        self._clock = clock
        self.settings = settings
        self._queue = FairQueue(longest=settings.longest, per_renter=settings.per_renter)
        self._numbers = itertools.count(1)
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._closed: FabstirError | None = None
        self._held = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Line {self._queue!r}>"

    # -- what is said about it -----------------------------------------------------------------------------------------------

    @property
    def working(self) -> int:
        """Answers at work."""
        return self._queue.working

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._queue.waiting

    @property
    def expected(self) -> float:
        """Seconds that a request which came now would wait."""
        return round(self._queue.expected(self._pool.places), 1)

    # -- one request ---------------------------------------------------------------------------------------------------------

    async def generate(
        self,
        asker: Asker,
        request: GenerationRequest,
        told: Told = _nobody,
        admitted: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[TokenBatch | GenerationEnd]:
        """As `Engine.generate`, once it is its turn, which `admitted` is told. Raises also Refused (`capacity`, `model_unloaded`)."""
        number = await self._enter(asker.renter, told)
        admitted()
        guessed = sum(len(message.content) for message in request.messages) // CHARACTERS_PER_TOKEN
        self._queue.charge(number, prompt=guessed)
        try:
            async with aclosing(self._pool.generate(request, asker.session)) as items:
                async for item in items:
                    if isinstance(item, GenerationEnd):
                        self._queue.charge(number, prompt=item.prompt_tokens - item.cached_tokens - guessed)
                    else:
                        self._queue.charge(number, answer=len(item.records))
                    yield item
        finally:
            self._leave(number)

    async def wait(self, asker: Asker, told: Told = _nobody) -> None:
        """Return when a request of this renter would be let in. Raises as `generate`."""
        self._leave(await self._enter(asker.renter, told))

    def open(self) -> None:
        """Take requests, which wait while there are no engines."""
        self._closed, self._held = None, False

    def hold(self) -> None:
        """Take requests and let none of them in, until `open`."""
        self._closed, self._held = None, True

    def close(self, why: FabstirError) -> None:
        """Refuse what waits and what comes."""
        self._closed = why
        for number, turn in self._turns.items():
            if not turn.done():
                self._queue.leave(number, self._clock.monotonic())
                turn.set_exception(why)

    def adjust(self, settings: LineSettings) -> None:
        """Other bounds, from now on."""
        self.settings = settings
        self._queue.longest, self._queue.per_renter = settings.longest, settings.per_renter
        self.advance()

    async def drain(self, patience: float) -> None:
        """Return when nothing is at work, or after `patience` seconds."""
        timer = asyncio.ensure_future(self._clock.sleep(patience))
        idle = asyncio.ensure_future(self._idle.wait())
        try:
            await asyncio.wait((timer, idle), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            idle.cancel()

    def advance(self) -> None:
        """Let in whoever may: after somebody left, and where engines came."""
        if self._closed is not None or self._held:
            return
        while (number := self._queue.next(self._pool.places, self._clock.monotonic())) is not None:
            self._idle.clear()
            self._turns[number].set_result(None)

    # -- inside --------------------------------------------------------------------------------------------------------------

    async def _enter(self, renter: Address, told: Told) -> int:
        if self._closed is not None:
            raise self._closed
        number = next(self._numbers)
        self._queue.ask(number, renter, self._pool.places)
        turn = self._turns[number] = asyncio.get_running_loop().create_future()
        try:
            self.advance()
            if not turn.done():
                await self._wait(number, turn, told)
            turn.result()
        except BaseException:
            if turn.done() and not turn.cancelled():
                turn.exception()  # seen, whatever ended the wait
            self._leave(number)
            raise
        finally:
            del self._turns[number]
        return number

    async def _wait(self, number: int, turn: asyncio.Future[None], told: Told) -> None:
        until = self._clock.monotonic() + self.settings.patience
        while not turn.done():
            await told(self._queue.place(number, self._pool.places))
            left = until - self._clock.monotonic()
            if left <= 0:
                said = f"no place within {self.settings.patience:g} s, {self._queue.waiting} wait"
                raise error("capacity", said, retry_after=self.expected)
            timer = asyncio.ensure_future(self._clock.sleep(min(TELL_SECONDS, left)))
            try:
                await asyncio.wait((turn, timer), return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()

    def _leave(self, number: int) -> None:
        self._queue.leave(number, self._clock.monotonic())
        if not self._queue.working:
            self._idle.set()
        self.advance()
