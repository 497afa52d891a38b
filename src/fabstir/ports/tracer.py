"""What the circuit `spot` needs of an answer and no engine keeps: the hidden states that its tokens were drawn from, computed again.

What a trace is and what it is committed to: `fabstir.protocol.spot`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from fabstir.protocol.messages import ChatMessage


class TracedTokens(msgspec.Struct, frozen=True):
    """One of each for a token."""

    hidden: tuple[bytes, ...]
    """`spot.packed`."""
    denominators: tuple[int, ...]
    """Logarithms of the softmax's denominators, micro-nats."""


class Tracer(Protocol):
    """The weights that answers are generated with, once more."""

    async def start(self) -> None:
        """Load them. Raises LocalFault (`model_invalid`, `reexecution_unsupported`)."""
        ...

    async def stop(self) -> None:
        """Idempotent."""
        ...

    async def trace(
        self, messages: tuple[ChatMessage, ...], prefix: str, records: tuple[bytes, ...], first: int
    ) -> TracedTokens:
        """The traces of `records` from `first` on; these are all records of the answer to `messages` so far, as their digests are made
        of them, without the tag. Raises Refused (`context_too_long`), Interrupted (`engine_gone`), LocalFault
        (`reexecution_unsupported`)."""
        ...
