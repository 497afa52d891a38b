"""What becomes of conversations that nobody asks about: compressed after a while, forgotten where memory is short. Pure.

A forgotten conversation is no loss: the renter has it, is told (`notice`), and brings it along when it asks next. What was asked about
longest ago is forgotten first; a session that works on an answer is never touched.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from fabstir.protocol.context.history import History

LEVEL: Final = 1
"""Of zlib: text to two fifths at 60 MB/s; the higher ones save a few percent for several times the time."""
MESSAGE_BYTES: Final = 260
"""Of CPython's for one message that is not at rest: two strings, a structure, two places in tuples, an integer."""
LEAST_BYTES: Final = 1 << 12
"""Smaller conversations are left as they are."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(History).decode

S = TypeVar("S")


class PackedHistory(msgspec.Struct, frozen=True):
    """A history at rest."""

    data: bytes

    def __repr__(self) -> str:
        """Counts only: a repr may end in a log."""
        return f"<PackedHistory {len(self.data)} bytes>"

    @classmethod
    def of(cls, history: History) -> PackedHistory:
        """At rest."""
        return cls(zlib.compress(_encode(history), LEVEL))

    def opened(self) -> History:
        """As it was."""
        return _decode(zlib.decompress(self.data))


def bytes_of(history: History) -> int:
    """About what it takes in memory."""
    return history.size + MESSAGE_BYTES * len(history.messages)


class Holding(NamedTuple, Generic[S]):
    """A session that waits for a question."""

    session: S
    size: int
    """Bytes that its conversation takes now."""
    idle: float
    """Seconds since it was asked last."""
    rests: bool


class MemoryRules(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one host."""

    most: int = 512 << 20
    """Bytes of conversations of all sessions together."""
    rest_after: float = 60.0
    """Seconds without a question."""
    reserve: int = 256 << 20
    """Bytes of the machine's memory that are to stay free: below it the kernel would end somebody soon."""


class Relief(NamedTuple, Generic[S]):
    """What is to be done."""

    rest: tuple[S, ...]
    forget: tuple[S, ...]


def relieve(idle: Sequence[Holding[S]], busy: int, available: int, rules: MemoryRules) -> Relief[S]:
    """`busy`: bytes of conversations that are being answered; `available`: bytes of the machine's memory that are free."""
    short = max(0, sum(one.size for one in idle) + busy - rules.most, rules.reserve - available)
    rest = [
        one for one in idle if not one.rests and one.size >= LEAST_BYTES and (short or one.idle >= rules.rest_after)
    ]
    forget: list[S] = []
    halves = {id(one.session): one.size // 2 for one in rest}  # of text, at least
    short -= sum(halves.values())
    for one in sorted(idle, key=lambda one: -one.idle):
        if short <= 0:
            break
        if one.size:
            forget.append(one.session)
            short -= one.size - halves.get(id(one.session), 0)
    gone = {id(session) for session in forget}
    return Relief(tuple(one.session for one in rest if id(one.session) not in gone), tuple(forget))
