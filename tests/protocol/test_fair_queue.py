"""The line in front of a model: nobody starves, shares converge, no place is left empty, and one renter cannot fill it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fabstir.domain.errors import Refused
from fabstir.domain.ids import Address
from fabstir.protocol.fair_queue import ANSWER_WEIGHT, RENTERS_KEPT, FairQueue

A, B, C, D = (Address(bytes([n]) * 20) for n in range(1, 5))
LONGEST, PER_RENTER = 12, 3


class Line(RuleBasedStateMachine):
    """Any order of asking, serving, giving up and changing numbers of places; the invariants hold throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(longest=LONGEST, per_renter=PER_RENTER)
        self.places = 2
        self.number = 0
        self.waiting: dict[int, Address] = {}
        self.working: dict[int, Address] = {}

    @rule(renter=st.sampled_from((A, B, C, D)))
    def ask(self, renter: Address) -> None:
        self.number += 1
        own = sum(who == renter for who in self.waiting.values())
        if own >= LONGEST - len(self.waiting):
            with pytest.raises(Refused, match="capacity"):
                self.queue.ask(self.number, renter, self.places)
        else:
            self.queue.ask(self.number, renter, self.places)
            self.waiting[self.number] = renter
        self.admit()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: Any) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        self.queue.leave(number, 0.0)
        del self.waiting[number]

    @precondition(lambda self: self.working)
    @rule(data=st.data(), prompt=st.integers(0, 500), answer=st.integers(0, 500))
    def finish(self, data: Any, prompt: int, answer: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.charge(number, prompt=prompt, answer=answer)
        self.queue.leave(number, 1.0)
        del self.working[number]
        self.admit()

    @rule(places=st.integers(0, 5))
    def engines_come_and_go(self, places: int) -> None:
        self.places = places
        self.admit()

    def admit(self) -> None:
        while (number := self.queue.next(self.places, 0.0)) is not None:
            self.working[number] = self.waiting.pop(number)

    @invariant()
    def counts_agree(self) -> None:
        """What it says is what went in and out."""
        assert (self.queue.waiting, self.queue.working) == (len(self.waiting), len(self.working))

    @invariant()
    def bounds_hold(self) -> None:
        """One renter has at most its number at work, and the line is never longer than it may be."""
        assert all(list(self.working.values()).count(who) <= PER_RENTER for who in self.working.values())
        assert len(self.waiting) <= LONGEST

    @invariant()
    def no_place_is_empty_while_somebody_may_have_it(self) -> None:
        """Work-conserving."""
        if len(self.working) < self.places:
            assert all(list(self.working.values()).count(who) >= PER_RENTER for who in self.waiting.values())

    @invariant()
    def everybody_who_waits_has_a_place_in_line(self) -> None:
        """Positions are 1 to n, each once."""
        seen = sorted(self.queue.place(number, max(1, self.places)).position for number in self.waiting)
        assert seen == list(range(1, len(self.waiting) + 1))


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


@given(
    costs=st.dictionaries(st.sampled_from((A, B, C)), st.lists(st.integers(1, 400), min_size=1), min_size=2),
    places=st.integers(1, 4),
)
@settings(max_examples=15, deadline=None)
def test_whoever_always_waits_is_served_the_same(costs: dict[Address, list[int]], places: int) -> None:
    """Shares of renters that never run out of requests differ by no more than what may be at work at once, whatever they ask for."""
    queue = FairQueue(longest=1000, per_renter=100)
    numbers = iter(range(1, 100_000))
    renter_of: dict[int, Address] = {}
    asked = dict.fromkeys(costs, 0)

    def ask(renter: Address) -> None:
        number = next(numbers)
        renter_of[number] = renter
        queue.ask(number, renter, places)

    for renter in costs:
        for _ in range(places + 1):
            ask(renter)
    running: list[int] = []
    bound = 2 * places * ANSWER_WEIGHT * max(max(each) for each in costs.values())
    for _ in range(60):
        while (number := queue.next(places, 0.0)) is not None:
            running.append(number)
            ask(renter_of[number])
        done = running.pop(0)
        renter = renter_of[done]
        queue.charge(done, answer=costs[renter][asked[renter] % len(costs[renter])])
        asked[renter] += 1
        queue.leave(done, 1.0)
        served = [queue.served(who) for who in costs]
        assert max(served) - min(served) <= bound


def test_a_flood_of_one_renter_does_not_hold_up_another() -> None:
    """Whoever comes with a first request is next, however many of somebody else's wait."""
    queue = FairQueue(longest=100, per_renter=100)
    for number in range(1, 40):
        queue.ask(number, A, 1)
    assert queue.next(1, 0.0) == 1
    queue.ask(100, B, 1)
    assert queue.place(100, 1).position == 2  # as much was served to A, which was here first
    queue.charge(1, answer=1)
    assert queue.place(100, 1).position == 1
    queue.leave(1, 5.0)
    assert queue.next(1, 5.0) == 100


def test_nobody_saves_up() -> None:
    """A renter that was away while others were served gets no more than its share when it comes back; one in debt stays so."""
    queue = FairQueue(longest=100, per_renter=100)
    for number in range(1, 11):
        queue.ask(number, A, 1)
        assert queue.next(1, 0.0) == number
        queue.charge(number, answer=100)
        queue.leave(number, 1.0)
    queue.ask(11, B, 1)
    assert queue.served(B) == queue.served(A) == 2000
    assert queue.next(1, 1.0) == 11
    queue.charge(11, answer=10)
    queue.ask(12, A, 1)
    assert queue.served(A) == 2020  # B is here, and was served more than A by now
    queue.leave(11, 2.0)


def test_the_wait_is_told_from_what_answers_took() -> None:
    """Position by position, divided by the places; what is told moves towards what is seen."""
    queue = FairQueue(longest=100, per_renter=100)
    assert queue.expected(1) == 0
    queue.ask(1, A, 1)
    assert queue.next(1, 0.0) == 1
    for number, renter in ((2, A), (3, A), (4, B)):
        queue.ask(number, renter, 1)
    assert [queue.place(number, 1)[:2] for number in (2, 4, 3)] == [(1, 3), (2, 3), (3, 3)]
    assert queue.place(2, 1).seconds == 10
    queue.leave(1, 110.0)
    assert queue.place(2, 1).seconds == 30  # a fifth of the way from 10 to 110
    assert queue.place(3, 3).seconds == 30
    assert queue.expected(2) == 60
    with pytest.raises(Refused, match="0 requests wait already") as refused:
        FairQueue(longest=0, per_renter=1).ask(1, A, 1)
    assert refused.value.retryable


def test_counters_of_those_who_left_are_bounded() -> None:
    """A stranger with a thousand accounts costs a bounded memory."""
    queue = FairQueue(longest=10, per_renter=1)
    for number in range(RENTERS_KEPT + 50):
        queue.ask(number, Address(number.to_bytes(20, "big")), 1)
        assert queue.next(1, 0.0) == number
        queue.leave(number, 1.0)
    assert len(queue._served) == RENTERS_KEPT
