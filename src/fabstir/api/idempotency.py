"""`Idempotency-Key`: a request that is repeated with the same key and the same body gets the same answer, and is paid once.

The first request with a key runs by itself, whoever listens: where its client is cut off, the answer is made to its end, and the
repetition gets it whole. Only answers that succeeded are kept, in memory, for a while, within bounds; what failed may be tried
again with the same key. Another body under a key is refused. Knows nothing of dialects: it keeps the messages of an ASGI answer.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from litestar.types import Send

from fabstir.api.dialect import InvalidParameter
from fabstir.api.gateway_errors import TooMany
from fabstir.domain.errors import error
from fabstir.ports.clock import Clock

HEADER: Final = "idempotency-key"
MAX_ANSWERS: Final = 256
MAX_BYTES: Final = 32 << 20
KEPT_SECONDS: Final = 600.0
NAME: Final = re.compile(r"[\x21-\x7e]{1,255}")
REPLAYED: Final = (b"idempotent-replayed", b"true")
Run = Callable[[Send], Awaitable[bool]]
"""Writes one answer; False where it broke off after its beginning."""


class KeptAnswer:
    """One answer on its way or complete. Memory: its bytes."""

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint: Final = fingerprint
        self.messages: list[Any] = []
        self.size = 512
        self.until: float | None = None
        """When it is forgotten; None while it is on its way."""
        self.task: asyncio.Task[bool] | None = None
        self._more = asyncio.Event()

    async def take(self, message: Any) -> None:
        """More of the answer."""
        self.messages.append(message)
        self.size += len(message.get("body", b""))
        self.wake()

    def wake(self) -> None:
        """Whoever follows looks again."""
        self._more.set()
        self._more = asyncio.Event()

    async def follow(self, send: Send, *, repeated: bool) -> None:
        """Pass the answer on, from its beginning to its end. Raises what kept it from beginning."""
        done = 0
        while True:
            more = self._more
            while done < len(self.messages):
                message = dict(self.messages[done])
                if repeated and done == 0:
                    message["headers"] = [*message["headers"], REPLAYED]
                done += 1
                await send(message)  # type: ignore[arg-type]
            if self.task is not None and self.task.done():
                if done == len(self.messages):
                    self.task.result()
                    return
                continue
            await more.wait()


class Answers:
    """Those of one gateway. Memory: at most MAX_BYTES of answers that are complete, and what is on its way."""

    def __init__(self, clock: Clock, *, most: int = MAX_ANSWERS, most_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, str], KeptAnswer] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Answers {len(self._kept)}>"

    def __len__(self) -> int:
        return len(self._kept)

    async def answer(self, owner: str, name: str, fingerprint: bytes, run: Run, send: Send) -> None:
        """The answer of `owner`'s request `name`: that of the first one, which `run` makes. Raises InvalidParameter, Refused
        (`idempotency_conflict`, `rate_limited`), and what kept the answer from beginning.
        """
        if not NAME.fullmatch(name):
            raise InvalidParameter("Idempotency-Key", "1 to 255 visible ASCII characters")
        self._forget_old()
        kept = self._kept.get((owner, name))
        if kept is not None and kept.fingerprint != fingerprint:
            raise error("idempotency_conflict")
        repeated = kept is not None
        if kept is None:
            kept = self._begin((owner, name), fingerprint, run)
        await kept.follow(send, repeated=repeated)

    def _begin(self, key: tuple[str, str], fingerprint: bytes, run: Run) -> KeptAnswer:
        if len(self._kept) >= self._most:
            oldest = next((other for other, one in self._kept.items() if one.until is not None), None)
            if oldest is None:
                raise TooMany(f"{self._most} requests with an idempotency key are at work", 1)
            del self._kept[oldest]
        kept = self._kept[key] = KeptAnswer(fingerprint)
        kept.task = asyncio.ensure_future(run(kept.take))
        kept.task.add_done_callback(lambda task: self._ended(key, kept, task))
        return kept

    def _ended(self, key: tuple[str, str], kept: KeptAnswer, task: asyncio.Task[bool]) -> None:
        good = not task.cancelled() and task.exception() is None and task.result()
        if good:
            kept.until = self._clock.monotonic() + KEPT_SECONDS
            self._forget_old()
        else:
            self._kept.pop(key, None)
        kept.wake()

    def _forget_old(self) -> None:
        now, size = self._clock.monotonic(), 0
        for key, kept in reversed([*self._kept.items()]):
            size += kept.size if kept.until is not None else 0
            if kept.until is not None and (kept.until <= now or size > self._most_bytes):
                del self._kept[key]
