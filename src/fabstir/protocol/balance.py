"""Which of several engines of one model gets a request.

The one that served the session before, while it has room: it still holds the conversation's prefix. Else the one with the largest part
of its places free. An engine whose breaker is open gets nothing while another can be had; where none can, the one that may be tried
soonest is tried at once, since waiting would help nobody. Sans I/O. Memory: SESSIONS_KEPT sessions, and the engines.
"""

from __future__ import annotations

from typing import Final

from fabstir.protocol.breaker import Breaker

SESSIONS_KEPT: Final = 4096
"""Which engine served them last; the one that was here longest ago is forgotten first."""


class Member:
    """One engine, as the choice sees it."""

    def __init__(self, name: str, places: int) -> None:
        self.name = name
        self.places = places
        self.active = 0
        self.breaker: Final = Breaker()
        self.leaving = False
        """Gets nothing new."""

    def __repr__(self) -> str:
        return f"<Member {self.name}: {self.active} of {self.places}, {self.breaker.state.value}>"

    def usable(self, now: float) -> bool:
        """May be given something."""
        return not self.leaving and self.breaker.allows(now)


class Balance:
    """The engines of one model."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._served: dict[str, Member] = {}

    def __repr__(self) -> str:
        return f"<Balance {self.members!r}>"

    def places(self, now: float) -> int:
        """Requests that can be computed at the same time, as far as is known; 1 where every engine is at rest, 0 where there is none."""
        known = sum(member.places for member in self.members if member.usable(now))
        return known or min(1, sum(not member.leaving for member in self.members))

    def take(self, session: str, now: float, but: frozenset[Member] = frozenset()) -> Member | None:
        """The engine for a request of `session` ("": of none), which is counted there from now on; None where there is none to be had.
        `but` were tried already."""
        there = [member for member in self.members if not member.leaving and member not in but]
        if not there:
            return None
        may = [member for member in there if member.usable(now)]
        may = may or [min(there, key=lambda member: member.breaker.wait(now))]
        before = self._served.get(session)
        if before is not None and before in may and before.active < before.places:
            chosen = before
        else:
            chosen = min(may, key=lambda member: (member.active / member.places, self.members.index(member)))
        self._remember(session, chosen)
        chosen.active += 1
        chosen.breaker.begin()
        return chosen

    def done(self, member: Member) -> None:
        """What `take` counted is over."""
        member.active -= 1

    def remove(self, member: Member) -> None:
        """The engine is no more."""
        self.members.remove(member)
        self._served = {session: one for session, one in self._served.items() if one is not member}

    def _remember(self, session: str, member: Member) -> None:
        if not session:
            return
        self._served.pop(session, None)  # the newest comes last
        self._served[session] = member
        while len(self._served) > SESSIONS_KEPT:
            del self._served[next(iter(self._served))]
