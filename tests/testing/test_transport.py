"""The connection in memory keeps the contract of the transport port."""

from __future__ import annotations

import asyncio

import pytest

from fabstir.domain.errors import Interrupted
from fabstir.ports.transport import Transport
from fabstir.testing.transport import TransportEnd, transport_pair


def _implements(end: TransportEnd) -> Transport:
    """Checked by mypy."""
    return end


async def test_messages_arrive_in_order_both_ways() -> None:
    """Nothing is lost, nothing is mixed up."""
    host, renter = transport_pair()
    for number in range(10):
        await host.send(b"h%d" % number)
        await renter.send(b"r%d" % number)
    assert [await renter.receive() for _ in range(10)] == [b"h%d" % n for n in range(10)]
    assert [await host.receive() for _ in range(10)] == [b"r%d" % n for n in range(10)]


async def test_sending_waits_for_a_peer_that_does_not_read() -> None:
    """Capacity messages are under way, the next one waits until there is room."""
    host, renter = transport_pair(capacity=2)
    await host.send(b"1")
    await host.send(b"2")
    third = asyncio.create_task(host.send(b"3"))
    await asyncio.sleep(0)
    assert not third.done()
    assert await renter.receive() == b"1"
    await third
    assert [await renter.receive(), await renter.receive()] == [b"2", b"3"]


async def test_what_was_sent_before_a_close_still_arrives() -> None:
    """Then both ends raise, again and again, and know the code."""
    host, renter = transport_pair()
    await host.send(b"last")
    await host.close("draining")
    await host.close("again")
    assert await renter.receive() == b"last"
    for _ in range(2):
        with pytest.raises(Interrupted, match="host_unreachable.*draining"):
            await renter.receive()
        with pytest.raises(Interrupted):
            await host.send(b"late")
    assert (host.code, renter.code) == ("draining", "draining")


async def test_abort_ends_whoever_waits() -> None:
    """A send into a full connection and a receive from an empty one end at once."""
    host, renter = transport_pair(capacity=1)
    await host.send(b"1")
    stuck, waiting = asyncio.create_task(host.send(b"2")), asyncio.create_task(host.receive())
    await asyncio.sleep(0)
    renter.abort()
    for task in (stuck, waiting):
        with pytest.raises(Interrupted):
            await task
