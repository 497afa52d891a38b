"""Who is served next where more is asked for than there is room: the renter that was served least, counted in tokens.

This is the virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): each renter has a counter
of what it was served, whoever waits with the smallest one comes next, and a renter that comes back after a pause is lifted to the
least of those that are here, so that nobody saves up. Hence two renters that always have something waiting are served the same, up to
what may be at work at once and whatever one of them asks for; nobody waits for ever; and no place is empty while somebody waits that
may have it. Within one renter it is first come, first served. The line itself is shared by a dynamic threshold (Choudhury and Hahne,
1998): a renter may have at most as many waiting as there are places in line left, so that one alone never fills it.

Sans I/O: a ticket is a number that the caller chose, times are arguments; who waited for too long is taken out by the caller.
Memory: `longest` tickets that wait, those at work, and RENTERS_KEPT counters.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from typing import Final, NamedTuple

from fabstir.domain.errors import error
from fabstir.domain.ids import Address

ANSWER_WEIGHT: Final = 2
"""A token of an answer costs so much where one of a prompt costs 1 (section 4.1 of the paper)."""
FIRST_GUESS_SECONDS: Final = 10.0
"""How long an answer takes, before one was seen."""
FIRST_GUESS_COST: Final = 512.0
LEARNING: Final = 0.2
"""How much each answer moves what is expected of the next."""
RENTERS_KEPT: Final = 1024
"""Counters of renters that are here or were; whoever is least in debt is forgotten first."""


class Place(NamedTuple):
    """Where a ticket stands in line."""

    position: int
    """1 is next."""
    of: int
    """Tickets that wait."""
    seconds: float
    """Expected until it is its turn."""


class _Ticket:
    """One request, that waits or is at work."""

    __slots__ = ("began", "cost", "number", "renter")

    def __init__(self, number: int, renter: Address) -> None:
        self.number = number
        self.renter = renter
        self.began = 0.0
        self.cost = 0


class FairQueue:
    """The line in front of one model. Who calls says each time how many `places` there are: engines come and go."""

    def __init__(self, *, longest: int, per_renter: int) -> None:
        """`longest`: tickets that may wait; `per_renter`: that one renter may have at work. Both may be changed at any time."""
        self.longest = longest
        self.per_renter = per_renter
        self._waiting: dict[int, _Ticket] = {}
        """By number, in the order in which they came."""
        self._working: dict[int, _Ticket] = {}
        self._in_line: Counter[Address] = Counter()
        self._at_work: Counter[Address] = Counter()
        self._served: dict[Address, int] = {}
        self._last_left = 0
        """The counter of whoever left last: where a newcomer begins that finds nobody here."""
        self._seconds = FIRST_GUESS_SECONDS
        self._cost = FIRST_GUESS_COST

    def __repr__(self) -> str:
        return f"<FairQueue {self.working} at work, {self.waiting} of {self.longest} wait>"

    @property
    def waiting(self) -> int:
        """Tickets that wait."""
        return len(self._waiting)

    @property
    def working(self) -> int:
        """Tickets at work."""
        return len(self._working)

    # -- a ticket ----------------------------------------------------------------------------------------------------------

    def ask(self, number: int, renter: Address, places: int) -> None:
        """Get in line. Raises Refused (`capacity`) where it is full, or where this renter has its share of it."""
        free, own = self.longest - self.waiting, self._in_line[renter]
        if own >= free:
            seconds = self._wait(self.waiting + 1, places)
            share = f", {own} of them this renter's" if free > 0 else ""
            said = f"{self.waiting} requests wait already{share}, for some {seconds:.0f} s"
            raise error("capacity", said, retry_after=seconds)
        if not self._here(renter):
            present = [self._served[other] for other in {*self._in_line, *self._at_work}]
            self._served[renter] = max(self._served.get(renter, 0), min(present, default=self._last_left))
        self._in_line[renter] += 1
        self._waiting[number] = _Ticket(number, renter)

    def next(self, places: int, now: float) -> int | None:
        """The ticket whose turn it is, at work from now on; None where all `places` are taken or nobody may have one."""
        if self.working >= places:
            return None
        may = [ticket for ticket in self._waiting.values() if self._at_work[ticket.renter] < self.per_renter]
        if not may:
            return None
        chosen = min(may, key=lambda ticket: self._served[ticket.renter])  # the first of several that are equal
        self._working[chosen.number] = self._waiting.pop(chosen.number)
        _less(self._in_line, chosen.renter)
        self._at_work[chosen.renter] += 1
        chosen.began = now
        return chosen.number

    def charge(self, number: int, *, prompt: int = 0, answer: int = 0) -> None:
        """So many tokens of a ticket at work were computed."""
        ticket, cost = self._working[number], prompt + ANSWER_WEIGHT * answer
        ticket.cost += cost
        self._served[ticket.renter] += cost

    def leave(self, number: int, now: float) -> None:
        """The ticket is done, or waits no longer. One that left before is ignored."""
        if (ticket := self._waiting.pop(number, None)) is not None:
            _less(self._in_line, ticket.renter)
        elif (ticket := self._working.pop(number, None)) is None:
            return
        else:
            _less(self._at_work, ticket.renter)
            self._seconds += LEARNING * (now - ticket.began - self._seconds)
            self._cost += LEARNING * (ticket.cost - self._cost)
        if not self._here(ticket.renter):
            self._last_left = self._served[ticket.renter]
            self._forget()

    # -- what is said about it -----------------------------------------------------------------------------------------------

    def place(self, number: int, places: int) -> Place:
        """Where a waiting ticket stands, if every answer costs and takes what answers do."""
        position = self._order().index(number) + 1
        return Place(position, self.waiting, self._wait(position, places))

    def expected(self, places: int) -> float:
        """Seconds that a request which came now would wait."""
        return 0.0 if self.working < places and not self.waiting else self._wait(self.waiting + 1, places)

    def served(self, renter: Address) -> int:
        """The renter's counter."""
        return self._served.get(renter, 0)

    # -- inside --------------------------------------------------------------------------------------------------------------

    def _here(self, renter: Address) -> bool:
        return renter in self._in_line or renter in self._at_work

    def _order(self) -> list[int]:
        """Numbers of those that wait, as they would be served."""
        lines: dict[Address, deque[int]] = {}
        for ticket in self._waiting.values():
            lines.setdefault(ticket.renter, deque()).append(ticket.number)
        heap = [(float(self._served[renter]), line[0], renter) for renter, line in lines.items()]
        heapq.heapify(heap)
        order = []
        while heap:
            served, _, renter = heapq.heappop(heap)
            order.append(lines[renter].popleft())
            if lines[renter]:
                heapq.heappush(heap, (served + max(1.0, self._cost), lines[renter][0], renter))
        return order

    def _wait(self, position: int, places: int) -> float:
        return self._seconds * position / max(1, places)

    def _forget(self) -> None:
        if len(self._served) > RENTERS_KEPT:
            gone = [renter for renter in self._served if not self._here(renter)]
            for renter in sorted(gone, key=self._served.__getitem__)[: len(self._served) - RENTERS_KEPT]:
                del self._served[renter]


def _less(counter: Counter[Address], renter: Address) -> None:
    """One less; who has none is not in it."""
    counter[renter] -= 1
    if not counter[renter]:
        del counter[renter]
