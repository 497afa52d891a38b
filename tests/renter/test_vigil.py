"""What a renter does between two questions, and when its host leaves: pings, silence, handoff, and conversations that change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from tests.renter.world import MODEL, counting, eventually, world_of

from fabstir.protocol.messages import ChatMessage


async def text(answer: AsyncGenerator[str, None]) -> str:
    return "".join([piece async for piece in answer])


@pytest.mark.parametrize(("asks", "word"), [(5.0, b'"pong"'), (1e6, b'"ping"')])
async def test_an_idle_connection_is_kept_by_either_side(asks: float, word: bytes) -> None:
    """A person who thinks for ten minutes keeps connection and session: whoever asks first is answered."""
    async with (
        world_of(200_000, ping_seconds=asks) as world,
        world.market() as market,
        market.session(MODEL) as session,
    ):
        assert await text(session.prompt("one")) == "You said: one"
        await world.clock.advance(600)
        assert sum(word in message for message in world.hosts[0].sent) >= 30
        assert await text(session.prompt("two")) == "You said: two"
        assert world.hosts[0].dialled == 1


async def test_a_host_that_is_gone_without_a_word_is_noticed_while_nobody_asks() -> None:
    """Half-open: nothing arrives, nothing breaks. The next question goes to a new connection without waiting for the old one."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        assert await text(session.prompt("one")) == "You said: one"
        world.hosts[0].tamper = lambda message: None
        await world.clock.advance(60)
        world.hosts[0].tamper = lambda message: message
        world.hosts[0].cut()
        await eventually(lambda: len(world.hosts[0].node._running.reception) == 0)  # type: ignore[union-attr]
        assert await text(session.prompt("two")) == "You said: two"
        assert world.hosts[0].dialled == 2


async def test_a_host_that_stops_answering_pings_in_an_answer_is_left_before_patience_ends() -> None:
    """Two periods instead of `answer_patience`; what was delivered is kept, the next host goes on after it."""
    async with (
        world_of(100_000, 200_000) as world,
        world.market(answer_patience=1e6) as market,
        market.session(MODEL) as session,
    ):
        gate = world.hosts[0].engine.gate(5)
        asking = asyncio.create_task(text(session.prompt("count 20")))
        await gate.reached.wait()
        world.hosts[0].tamper = lambda message: None
        for _ in range(120):
            await world.clock.advance(1)
            if asking.done():
                break
        assert await asking == counting(20)
        assert world.hosts[1].dialled == 1
        world.hosts[0].up = False


async def test_a_slow_engine_is_waited_for_as_long_as_its_host_answers() -> None:
    """Pongs keep the connection, and patience still ends: an answer is more than a sign of life."""
    async with (
        world_of(200_000) as world,
        world.market(answer_patience=100.0) as market,
        market.session(MODEL) as session,
    ):
        gate = world.hosts[0].engine.gate(5)
        asking = asyncio.create_task(text(session.prompt("count 20")))
        await gate.reached.wait()
        await world.clock.advance(90)
        assert world.hosts[0].dialled == 1
        gate.open.set()
        assert await asking == counting(20)


async def test_an_idle_session_moves_when_its_host_leaves() -> None:
    """The job is ended there with the host's signature, its rest comes back, and the next host is asked with the whole conversation."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        assert await text(session.prompt("one")) == "You said: one"
        await world.clock.advance(2)
        drain = asyncio.create_task(world.hosts[0].node.drain())
        await drain
        assert session.jobs[0].ledger.released
        assert await text(session.prompt("two")) == "You said: two"
        assert len(world.hosts[1].engine.requests[-1].messages) == 3
        assert world.hosts[0].dialled == 1


async def test_an_answer_moves_when_its_host_leaves() -> None:
    """One stream for the person, each token paid once, each job with its own host; the host that left is not blamed."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        gate = world.hosts[0].engine.gate(7)
        asking = asyncio.create_task(text(session.prompt("count 30")))
        await gate.reached.wait()
        await eventually(lambda: world.hosts[0].node._running.reception.generating == 1)  # type: ignore[union-attr]
        drain = asyncio.create_task(world.hosts[0].node.drain())
        await world.clock.advance(121)
        assert await asking == counting(30)
        await drain
        first, second = (host.ledgers[0] for host in world.hosts)
        assert first.served == first.acknowledged == 7
        assert session.jobs[0].ledger.released and first.finished == "ended by the renter"
        assert second.served == 31 - 7
        assert [len(request.prefix) > 0 for request in world.hosts[1].engine.requests] == [True]


async def test_another_conversation_comes_with_the_question() -> None:
    """No second introduction: a gateway's client brings its conversation each time."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        await session.connect()
        for n in range(3):
            talk = (ChatMessage("user", f"q{n}"), ChatMessage("assistant", f"a{n}"))
            await session.rebase(talk)
            assert await text(session.prompt("next")) == "You said: next"
            assert world.hosts[0].engine.requests[-1].messages[:-1] == talk
        assert not any(b"session_resume" in message for message in world.hosts[0].sent)


async def test_a_cleared_session_begins_anew_at_the_same_host() -> None:
    """The host forgets at once, not with the next question; the job stays."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        assert await text(session.prompt("secret")) == "You said: secret"
        await session.clear()
        assert session.conversation == () and any(b"session_clear" in message for message in world.hosts[0].sent)
        assert await text(session.prompt("fresh")) == "You said: fresh"
        assert len(world.hosts[0].engine.requests[-1].messages) == 1
        assert len(session.jobs) == 1 and not any(b"session_resume" in message for message in world.hosts[0].sent)
