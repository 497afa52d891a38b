"""What the records of this process's answers were hashed from, for as long as a proof may have to open them; for `spot` also what was
asked, and the traces.

In memory only, and nothing of it is ever written: a preimage holds its record's salt and token, so with it the digest in the journal says
what was said. A process that starts again therefore has none of what it served before. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from fabstir.domain.ids import Hash32
from fabstir.protocol.messages import ChatMessage

CAPACITY: Final = 256 << 20
"""Bytes. With five listed tokens a record takes about 310 of them, so this is some 860,000 tokens of open jobs; with its trace it takes
4,100, so this is some 65,000."""
OVERHEAD: Final = 200
"""Bytes of CPython's for one entry: two `bytes` objects and their place in the dictionary."""


class HeldAnswer(msgspec.Struct, eq=False):
    """What an answer was given to, and its records so far."""

    messages: tuple[ChatMessage, ...]
    prefix: str
    salt: Hash32
    """Of the connection."""
    digests: list[bytes] = msgspec.field(default_factory=list)

    def __repr__(self) -> str:
        """Counts only: a repr may end in a log."""
        return f"<HeldAnswer to {len(self.messages)} messages, {len(self.digests)} records>"


class HeldTrace(msgspec.Struct, frozen=True):
    """`spot.TokenTrace` without its record, and the point of its vector."""

    hidden: bytes
    """`spot.packed`."""
    denominator: int
    point: bytes


class _Held(msgspec.Struct):
    preimage: bytes
    answer: HeldAnswer | None = None
    place: int = 0
    """Among the answer's records."""
    trace: HeldTrace | None = None

    @property
    def size(self) -> int:
        traced = 0 if self.trace is None else len(self.trace.hidden) + len(self.trace.point) + OVERHEAD
        return len(self.preimage) + OVERHEAD + traced


class HeldRecords:
    """Preimages by their digest, the oldest dropped beyond `capacity`. Memory: `capacity`, and of answers of which something is held the
    words, which are the session's own."""

    def __init__(self, capacity: int = CAPACITY, *, words: bool = False) -> None:
        """`words`: what answers were given to is held too."""
        self._capacity = capacity
        self._words = words
        self._entries: dict[bytes, _Held] = {}
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<HeldRecords {len(self._entries)} records, {self._bytes} of {self._capacity} bytes>"

    def begin(self, messages: tuple[ChatMessage, ...], prefix: str, salt: Hash32) -> HeldAnswer | None:
        """An answer begins; None where its words are not held."""
        return HeldAnswer(messages, prefix, salt) if self._words else None

    def keep(self, digest: bytes, preimage: bytes, answer: HeldAnswer | None = None) -> None:
        """A record was served, the next one of `answer`."""
        self._forget(digest)
        place = len(answer.digests) if answer is not None else 0
        self._add(digest, _Held(preimage, answer, place))
        if answer is not None:
            answer.digests.append(digest)

    def keep_trace(self, digest: bytes, trace: HeldTrace) -> None:
        """The record was traced; nothing where it is not held any more."""
        held = self._entries.get(digest)
        if held is not None:
            self._forget(digest)
            self._add(digest, msgspec.structs.replace(held, trace=trace))

    def find(self, digest: bytes) -> bytes | None:
        """What `digest` was made of, if this process served it and still holds it."""
        held = self._entries.get(digest)
        return None if held is None else held.preimage

    def answer_of(self, digest: bytes) -> tuple[HeldAnswer, int] | None:
        """The answer that the record belongs to, and its place there."""
        held = self._entries.get(digest)
        return None if held is None or held.answer is None else (held.answer, held.place)

    def trace_of(self, digest: bytes) -> HeldTrace | None:
        """What was kept by `keep_trace`."""
        held = self._entries.get(digest)
        return None if held is None else held.trace

    def forget(self, digests: Iterable[bytes]) -> None:
        """These records will not be opened any more."""
        for digest in digests:
            self._forget(digest)

    def _add(self, digest: bytes, held: _Held) -> None:
        self._entries[digest] = held
        self._bytes += held.size
        while self._bytes > self._capacity:
            self._forget(next(iter(self._entries)))

    def _forget(self, digest: bytes) -> None:
        held = self._entries.pop(digest, None)
        if held is not None:
            self._bytes -= held.size
