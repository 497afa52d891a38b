"""What a session sees of its connection."""

from __future__ import annotations

import asyncio

import pytest

from fabstir.domain.errors import Interrupted
from fabstir.host.link import Link
from fabstir.protocol.messages import Ping, Pong, encode
from fabstir.testing.clock import ManualClock
from fabstir.testing.transport import transport_pair


async def test_nobody_there_is_not_an_error_of_the_sender() -> None:
    """A message to a renter that left is dropped, and from then on nothing is tried any more."""
    host, renter = transport_pair()
    link = Link(host, ManualClock())
    assert await link.send(Pong(id=1)) and not link.gone
    renter.abort()
    assert not await link.send(Pong(id=2)) and link.gone
    assert not await link.send(Pong(id=3))


async def test_a_message_that_is_not_taken_is_noticed() -> None:
    """Since when, while it waits; zero as soon as it is taken."""
    clock = ManualClock()
    host, renter = transport_pair(capacity=1)
    link = Link(host, clock)
    await link.send(Pong(id=1))
    waiting = asyncio.create_task(link.send(Pong(id=2)))
    await clock.advance(12)
    assert link.stalled(clock.monotonic()) == 12
    await renter.receive()
    assert await waiting and link.stalled(clock.monotonic()) == 0


async def test_the_first_reason_stays() -> None:
    """Who cut the connection off is not overwritten by what follows from it."""
    host, renter = transport_pair()
    link = Link(host, ManualClock())
    await renter.send(encode(Ping(id=1)))
    assert await link.receive() == Ping(id=1)
    link.drop("client_too_slow")
    await link.close("ended")
    assert link.code == "client_too_slow"
    with pytest.raises(Interrupted):
        await link.receive()
