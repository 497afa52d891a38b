"""The place where HTTP requests and a session meet: bounded both ways, and over for both sides at once."""

from __future__ import annotations

import asyncio

import pytest

from fabstir.domain.errors import Interrupted, Refused
from fabstir.host.http_transport import SAID, UNREAD, HttpTransport
from fabstir.protocol.messages import Notice, Ping, encode

WORD = encode(Notice(code="draining", message="x"))


async def test_a_reader_that_stops_stops_the_host() -> None:
    """No more than UNREAD messages wait; one that is taken lets the next one in."""
    transport = HttpTransport(lambda message: True)
    for _ in range(UNREAD):
        await transport.send(WORD)
    waiting = asyncio.create_task(transport.send(WORD))
    await asyncio.sleep(0)
    assert not waiting.done()
    await transport.heard()
    await waiting


async def test_what_belongs_to_no_answer_does_not_wait() -> None:
    """Nobody has to read it."""
    transport = HttpTransport(lambda message: False)
    for _ in range(2 * UNREAD):
        await transport.send(WORD)
    assert transport.empty


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_the_end_ends_every_wait(how: str) -> None:
    """Who sends, who receives and who reads: each is told that the host is gone. After a close, what was sent is read first."""
    transport = HttpTransport(lambda message: True)
    for _ in range(UNREAD):
        await transport.send(WORD)
    waits = [asyncio.create_task(transport.send(WORD)), asyncio.create_task(transport.receive())]
    await asyncio.sleep(0)
    if how == "abort":
        transport.abort()
    else:
        await transport.close("draining")
    for wait in waits:
        with pytest.raises(Interrupted, match="host_unreachable"):
            await wait
    while not transport.empty:
        await transport.heard()
    with pytest.raises(Interrupted, match="host_unreachable"):
        await transport.heard()
    with pytest.raises(Interrupted, match="host_unreachable"):
        transport.say(Ping())


async def test_requests_that_the_session_does_not_take_are_refused() -> None:
    """Once SAID of them wait."""
    transport = HttpTransport(lambda message: True)
    for _ in range(SAID):
        transport.say(Ping())
    with pytest.raises(Refused, match="rate_limited"):
        transport.say(Ping())
