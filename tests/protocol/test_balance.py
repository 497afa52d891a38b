"""Which engine gets a request, and when one that failed is left alone."""

from __future__ import annotations

import pytest

from fabstir.protocol.balance import SESSIONS_KEPT, Balance, Member
from fabstir.protocol.breaker import LONGEST_REST_SECONDS, Breaker, Circuit


def balance(*places: int) -> tuple[Balance, list[Member]]:
    made = Balance()
    made.members = [Member(f"engine-{n}", count) for n, count in enumerate(places)]
    return made, made.members


def test_the_emptiest_engine_gets_the_next_request() -> None:
    """By the part of its places that is taken; the first of several that are equal."""
    chooser, (small, large) = balance(2, 4)
    taken = [chooser.take("", 0.0) for _ in range(6)]
    assert taken == [small, large, large, small, large, large]
    assert chooser.places(0.0) == 6


def test_a_session_goes_back_to_the_engine_that_holds_its_prefix() -> None:
    """As long as there is room; then it moves, and belongs there from then on."""
    chooser, (one, two) = balance(1, 1)
    assert chooser.take("s", 0.0) is one
    assert chooser.take("other", 0.0) is two
    chooser.done(two)
    assert chooser.take("s", 0.0) is two  # `one` is full: not waiting is worth more than the prefix
    chooser.done(one)
    chooser.done(two)
    assert chooser.take("s", 0.0) is two
    for number in range(SESSIONS_KEPT + 10):
        chooser.take(str(number), 0.0)
    assert len(chooser._served) == SESSIONS_KEPT


def test_an_engine_that_fails_is_left_alone_and_tried_again() -> None:
    """Three failures within a minute; one probe after the rest; where nothing else is there, it is tried all the same."""
    chooser, (bad, good) = balance(4, 4)
    for _ in range(3):
        bad.breaker.failed(0.0, "engine_gone")
    assert [chooser.take("", 1.0) for _ in range(3)] == [good] * 3
    assert chooser.places(1.0) == 4
    assert chooser.take("", 15.0) is bad  # the probe
    assert chooser.take("", 15.0) is good  # one only
    bad.breaker.succeeded()
    assert chooser.take("", 15.0) is bad
    good.leaving = True
    for _ in range(3):
        bad.breaker.failed(20.0, "engine_gone")
    assert chooser.places(21.0) == 1
    assert chooser.take("", 21.0) is bad
    assert chooser.take("", 21.0, frozenset((bad,))) is None
    chooser.remove(bad)
    assert chooser.take("", 21.0) is None
    assert chooser.places(21.0) == 0


def test_what_happens_seldom_opens_nothing() -> None:
    """Failures further apart than the window, or with a success between them, are not added up."""
    breaker = Breaker()
    for at in (0.0, 50.0, 100.0, 150.0):
        breaker.failed(at, "x")
    assert breaker.state is Circuit.CLOSED
    breaker.failed(151.0, "x")
    breaker.succeeded()
    breaker.failed(152.0, "x")
    assert breaker.allows(152.0)


def test_each_probe_that_fails_doubles_the_rest() -> None:
    """Up to a bound; a probe that says nothing lets the next one go."""
    breaker, now = Breaker(), 0.0
    for _ in range(3):
        breaker.failed(now, "x")
    waits = []
    for _ in range(6):
        waits.append(breaker.wait(now))
        now += waits[-1]
        assert breaker.allows(now)
        breaker.begin()
        assert not breaker.allows(now)
        breaker.failed(now, "x")
    assert waits == [15.0, 30.0, 60.0, 120.0, 120.0, LONGEST_REST_SECONDS]
    now += breaker.wait(now)
    breaker.begin()
    breaker.undecided()
    assert breaker.allows(now)
    assert breaker.reason == "x"


@pytest.mark.parametrize("session", ["", "s"])
def test_nothing_comes_from_no_engines(session: str) -> None:
    """Before the first start and after the last stop."""
    chooser, _ = balance()
    assert chooser.take(session, 0.0) is None
    assert chooser.places(0.0) == 0
