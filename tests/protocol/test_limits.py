"""Token buckets: so many at once, so many a minute, and never more memory than was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.limits import MINUTE, Buckets, is_loopback, network_of

steps = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 90)), max_size=200)


@given(per_minute=st.integers(1, 30), steps=steps)
def test_nobody_gets_more_than_the_bucket_and_what_flowed_in(per_minute: int, steps: list[tuple[str, float]]) -> None:
    """In any stretch of time; and whoever waits as told is let in."""
    buckets, now = Buckets(per_minute), 0.0
    taken: dict[str, list[float]] = {name: [] for name in "abc"}
    for name, pause in steps:
        now += pause
        wait = buckets.take(name, now)
        if wait:
            assert Buckets(per_minute).take(name, now) == 0
            now += wait + 1e-6
            assert buckets.take(name, now) == 0
        taken[name].append(now)
    for times in taken.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                flowed = (times[last] - times[first]) * per_minute / MINUTE
                assert last - first + 1 <= per_minute + flowed + 1e-3


def test_it_holds_no_more_names_than_it_may() -> None:
    """A flood of names pushes out those that were used longest ago; names that are not used any more go by themselves."""
    buckets = Buckets(2, limit=8)
    for number in range(1000):
        assert buckets.take(str(number), 0.0) == 0
    assert len(buckets) == 8
    buckets.take("999", 0.0)
    assert buckets.take("999", 0.0) == pytest.approx(30)
    assert buckets.take("new", 120.0) == 0 and len(buckets) == 1


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix:" + "x" * 100, ("unix:" + "x" * 100)[:64]),
    ],
)
def test_whoever_has_an_address_of_a_network_has_all(address: str, network: str) -> None:
    """An IPv6 /64 is one caller; an IPv4 address written as IPv6 is itself."""
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("LOCALHOST", True), ("127.9.9.9", True), ("[::1]", True), ("::1", True)]
    + [
        (name, False)
        for name in ("localhost.example", "127.0.0.1.example", "0.0.0.0", "10.0.0.1", "", "[", "2130706433")
    ],
)
def test_only_this_machine_is_this_machine(host: str, loopback: bool) -> None:
    """Names that look like it are not."""
    assert is_loopback(host) is loopback
