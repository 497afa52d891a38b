"""Which slot of an inference server computes a request, and whether it may reuse what lies there. Pure.

What a slot has computed for one renter is never looked at for another: how long a prompt takes would tell the one what the other said.
So the server never chooses by likeness (that is off, and each request names its slot); here a session finds the slot that it had last,
else one that nobody has, else the one whose session has waited longest. What lies in a slot of another session is set aside where there
is room (`spill`), else given up, and never read by the newcomer.
"""

from __future__ import annotations

from typing import Final

import msgspec

ALONE: Final = ""
"""A request that shares with nobody: what it computes is not kept."""


class Slot(msgspec.Struct, eq=False):
    """One of the server's."""

    number: int
    owner: str = ALONE
    busy: bool = False
    used: int = 0
    """When it was taken last, counted in requests."""
    tokens: int = 0
    """Of the prompt and the answer that lie there."""


class Taken(msgspec.Struct, frozen=True):
    """A slot for one request, and what is to be done first."""

    slot: Slot
    own: bool
    """It holds what was computed for this session before."""
    displaced: str = ALONE
    """The session that loses the slot; ALONE where none does."""
    displaced_tokens: int = 0


class SlotTable:
    """The slots of one server. Memory: a name for each."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._requests = 0

    def __repr__(self) -> str:
        owned = sum(slot.owner != ALONE for slot in self._slots)
        return f"<SlotTable {len(self._slots)} slots, {owned} owned, {sum(slot.busy for slot in self._slots)} busy>"

    def take(self, session: str) -> Taken:
        """A slot for a request of `session`. There must be a free one: the caller admits no more requests than there are slots."""
        free = [slot for slot in self._slots if not slot.busy]
        own = next((slot for slot in free if session != ALONE and slot.owner == session), None)
        slot = own or min(free, key=lambda one: (one.owner != ALONE, one.used))
        displaced, tokens = (ALONE, 0) if own else (slot.owner, slot.tokens)
        self._requests += 1
        slot.owner, slot.busy, slot.used = session, True, self._requests
        return Taken(slot, own is not None, displaced, tokens)

    def leave(self, slot: Slot, tokens: int, *, whole: bool) -> None:
        """The request is over, `tokens` lie there. Not `whole`: what it left behind is not known, and nobody reads it."""
        slot.busy, slot.tokens = False, tokens
        if not whole:
            slot.owner = ALONE
