"""A host that goes down, and a renter that is gone: who is told, how long is waited, and what is in the log."""

from __future__ import annotations

import asyncio

import msgspec
from tests.host.world import Renter, World, eventually, some_terms

from fabstir.protocol.capabilities import OF_RENTER
from fabstir.protocol.messages import Error, Handoff, Notice, Ping, Pong, SessionEnd, StateSync, StreamChunk
from fabstir.testing.engine import ScriptedEngine


async def knowing(world: World) -> Renter:
    """A renter that understands everything, with a session."""
    renter = Renter(world.connect(), world.chain.open(some_terms()))
    await renter.open(renter.init(capabilities=OF_RENTER))
    return renter


async def test_an_idle_session_is_handed_over_and_ended() -> None:
    """The host waits for the renter's goodbye, signs the close, and is down before the grace is over."""
    async with World().running() as world:
        renter = await knowing(world)
        await renter.chat("hello")
        drain = asyncio.create_task(world.node.drain())
        handoff = await renter.until(Handoff)
        assert (handoff.tokens_served, handoff.message_index) == (renter.transcript.tokens, 1)
        assert not drain.done()
        await renter.send(SessionEnd(session_id="chat"))
        assert (await renter.until(SessionEnd)).close_signature is not None
        await drain
        assert world.ledger(renter).finished == "ended by the renter"


async def test_an_answer_that_takes_too_long_is_handed_over_in_its_middle() -> None:
    """After `drain_timeout` the engine is stopped; what arrived is acknowledged, and nobody is cut off."""
    engine = ScriptedEngine()
    async with World(engine=engine, ping_seconds=1e6).running() as world:
        renter = await knowing(world)
        engine.gate(5)
        await renter.ask("count 100")
        await renter.until(StreamChunk)
        drain = asyncio.create_task(world.node.drain())
        await eventually(lambda: world.clock.sleepers > 0)
        await world.clock.advance(world.settings.drain_timeout)
        handoff = await renter.until(Handoff)
        assert 0 < handoff.tokens_served < 100
        assert world.ledger(renter).served == handoff.tokens_served and engine.cancelled == 1
        assert (await renter.refused(renter.prompt("more", message_index=1))).code == "draining"
        await renter.send(SessionEnd(session_id="chat"))
        await renter.until(SessionEnd)
        await drain


async def test_who_says_nothing_is_disconnected_after_the_grace() -> None:
    """The job stays open for a resume elsewhere or later."""
    async with World().running() as world:
        renter = await knowing(world)
        drain = asyncio.create_task(world.node.drain())
        await renter.until(Handoff)
        await world.clock.advance(world.settings.ack_grace)
        await drain
        assert not world.ledger(renter).finished


async def test_a_renter_that_knows_no_handoff_gets_its_notice() -> None:
    """As before: its answer ends, then it is disconnected."""
    async with World().running() as world:
        renter = await world.renter()
        await renter.chat("hello")
        await world.node.drain()
        assert (await renter.until(Notice)).code == "draining"


async def test_a_renter_that_answers_pings_stays_and_one_that_does_not_goes() -> None:
    """Asked after `ping_seconds` of silence; after as much again the job is free for another connection."""
    async with World().running() as world:
        renter = await knowing(world)
        for _ in range(3):
            await world.clock.advance(world.settings.ping_seconds)
            ping = await renter.until(Ping)
            await renter.send(Pong(id=ping.id))
            await eventually(lambda: "heard" in repr(world.actors()[0].core._core.heartbeat))
        await world.clock.advance(world.settings.ping_seconds)
        await renter.until(Ping)
        await world.clock.advance(world.settings.ping_seconds)
        await eventually(lambda: not world.actors())
        again = Renter(world.connect(), renter.terms).continues(renter)
        await again.open(again.resume(capabilities=("state",)))
        assert (await again.until(StateSync)).messages == 0


async def test_rubbish_is_a_sign_of_life() -> None:
    """What cannot be read was sent by somebody."""
    async with World().running() as world:
        renter = await knowing(world)
        await world.clock.advance(world.settings.ping_seconds - 1)
        await renter.refused("{")
        await world.clock.advance(world.settings.ping_seconds - 1)
        assert await renter.chat("still here") == "You said: still here"


async def test_a_whole_conversation_in_one_prompt() -> None:
    """A client that keeps nothing at the host: each prompt brings what was said before, over one connection."""
    async with World().running() as world:
        renter = await knowing(world)
        assert await renter.chat("one") == "You said: one"
        told, renter.context = tuple(renter.context), []
        await renter.chat("two", conversation_context=())
        assert len(world.engine.requests[-1].messages) == 1
        renter.context = [*told]
        await renter.chat("three", conversation_context=told)
        assert len(world.engine.requests[-1].messages) == 3


async def test_an_error_has_one_shape_everywhere() -> None:
    """Code, category, whether to try again, words, and what to do."""
    async with World().running() as world:
        renter = await knowing(world)
        for fault in (await renter.refused("{"), await renter.refused(renter.prompt("q", message_index=9))):
            assert isinstance(fault, Error)
            assert msgspec.structs.asdict(fault).keys() >= {"code", "category", "retryable", "message", "next_step"}
            assert fault.category == "peer_fault" and fault.next_step
