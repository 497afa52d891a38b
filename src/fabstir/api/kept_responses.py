"""Responses that a later request may go on from (`previous_response_id`): in memory, bounded, for a while, each for whoever asked.

What leaves by a bound is the one that was not used for the longest. Nothing of it is ever on a disk.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.ports.clock import Clock
from fabstir.protocol.tool_text import text_of
from fabstir.renter.access import Context

MAX_RESPONSES: Final = 1_024
MAX_BYTES: Final = 32 << 20
KEPT_SECONDS: Final = 3_600.0


class KeptResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One response."""

    owner: str
    """The key that asked; nobody else finds it."""
    conversation: Context
    """What was said, the answer included, without the instructions."""
    body: msgspec.Struct
    """As it was answered."""

    @property
    def size(self) -> int:
        """About so many bytes."""
        return 512 + 2 * sum(len(text_of(message).encode()) + 64 for message in self.conversation)


class KeptResponses:
    """Those of one gateway. Memory: at most MAX_BYTES and MAX_RESPONSES."""

    def __init__(self, clock: Clock, *, most: int = MAX_RESPONSES, most_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[KeptResponse, float]] = OrderedDict()
        """The one that was used last comes last."""
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<KeptResponses {len(self._kept)}, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, name: str, response: KeptResponse) -> None:
        """For KEPT_SECONDS, or until others need the room."""
        if name in self._kept:
            self._drop(name)
        self._kept[name] = response, self._clock.monotonic() + KEPT_SECONDS
        self._bytes += response.size
        for other in [other for other, (_, until) in self._kept.items() if until <= self._clock.monotonic()]:
            self._drop(other)
        while self._kept and (len(self._kept) > self._most or self._bytes > self._most_bytes):
            self._drop(next(iter(self._kept)))

    def get(self, name: str, owner: str) -> KeptResponse:
        """Raises Refused (`response_unknown`)."""
        found = self._kept.get(name)
        if found is not None and found[1] <= self._clock.monotonic():
            self._drop(name)
            found = None
        if found is None or found[0].owner != owner:
            raise error("response_unknown", f"no response {name[:64]!r}")
        self._kept.move_to_end(name)
        return found[0]

    def forget(self, name: str, owner: str) -> None:
        """Raises Refused (`response_unknown`)."""
        self.get(name, owner)
        self._drop(name)

    def _drop(self, name: str) -> None:
        response, _ = self._kept.pop(name)
        self._bytes -= response.size
