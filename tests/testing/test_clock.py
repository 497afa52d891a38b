"""ManualClock: time moves only on request, and wakes sleepers in one order only."""

from __future__ import annotations

import asyncio

import pytest

from fabstir.testing.clock import ManualClock


async def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    """However tasks went to sleep, they wake by deadline, and by order of arrival where deadlines are equal."""
    clock = ManualClock(now=1000.0)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 5.0), ("first", 2.0), ("second", 2.0)):
            group.create_task(sleeper(name, seconds))
        await clock.advance(2.0)
        assert woken == [("first", 1002.0), ("second", 1002.0)]
        await clock.advance(10.0)
    assert woken[2] == ("late", 1005.0)
    assert clock.now() == 1012.0


async def test_a_sleeper_that_sleeps_again_wakes_within_one_advance() -> None:
    """A periodic timer ticks as often as its period fits into the time that passed."""
    clock = ManualClock()
    ticks: list[float] = []

    async def periodic() -> None:
        while True:
            await clock.sleep(1.0)
            ticks.append(clock.monotonic())

    task = asyncio.create_task(periodic())
    await clock.advance(3.5)
    assert ticks == [1.0, 2.0, 3.0]
    assert clock.next_wake == 0.5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleepers == 0


async def test_time_does_not_go_back() -> None:
    """A negative step is a mistake of the test and says so."""
    with pytest.raises(ValueError, match="does not go back"):
        await ManualClock().advance(-1.0)
