"""How connections enter a host: in a channel, in plain text where that is allowed, and never from one into the other."""

from __future__ import annotations

import os

import pytest
from tests.api.served import named
from tests.host.table_chain import HOST
from tests.host.world import MARKET, Renter, World, eventually, some_terms

from fabstir.domain.errors import Interrupted
from fabstir.ports.sealed_transport import SealedTransport
from fabstir.protocol.channel import RenterHandshake
from fabstir.protocol.messages import Ping, Pong, SessionInit, encode
from fabstir.protocol.offer import WireOffer
from fabstir.testing.transport import TransportEnd


class Sealed:
    """The renter's wire in a channel."""

    def __init__(self, transport: SealedTransport) -> None:
        self.transport = transport

    async def send(self, message: bytes | str) -> None:
        await self.transport.send(message.encode() if isinstance(message, str) else message)

    async def receive(self) -> bytes | str:
        return await self.transport.receive()


async def enter(end: TransportEnd) -> SealedTransport:
    """The channel over `end`."""
    handshake = RenterHandshake(MARKET, HOST.address, os.urandom(32))
    await end.send(handshake.opening)
    return SealedTransport(end, handshake.finish(await end.receive()))


async def stranger(world: World) -> tuple[Renter, TransportEnd]:
    """A renter in a channel, whose session does not stand yet."""
    end = world.connect()
    return Renter(Sealed(await enter(end)), world.chain.open(some_terms())), end


async def test_a_session_in_a_channel_is_a_session() -> None:
    """Asked, answered, paid and ended as in plain text; the core has not changed."""
    async with World().running() as world:
        renter, _ = await stranger(world)
        await renter.open()
        assert await renter.chat("hello") == "You said: hello"
        await eventually(lambda: world.ledger(renter).exposed == 0)
        assert isinstance(renter.wire, Sealed)
        await renter.wire.transport.close("ended")
        await eventually(lambda: not world.jobs_at_work())


async def test_plain_text_is_taken_where_it_is_allowed() -> None:
    """Programs of others need no channel; a channel cannot be opened in the middle."""
    async with World().running() as world:
        renter = await world.renter()
        handshake = RenterHandshake(MARKET, HOST.address, bytes(range(32)))
        named(await renter.refused(handshake.opening), "message_unknown")
        assert await renter.chat("hello") == "You said: hello"


async def test_plain_text_is_refused_where_encryption_is_required() -> None:
    """Whatever it says, it is not looked at; the connection stands, and a channel may still be opened on it."""
    async with World(require_encryption=True).running() as world:
        end = world.connect()
        plain = Renter(end, world.chain.open(some_terms()))
        for message in (plain.init(), Ping(), "nonsense"):
            named(await plain.refused(message), "channel_required")
        assert not world.jobs_at_work()
        renter = Renter(Sealed(await enter(end)), plain.terms)
        await renter.open()
        assert await renter.chat("hello") == "You said: hello"


@pytest.mark.parametrize("required", [False, True])
async def test_the_offer_says_what_is_spoken(required: bool) -> None:
    """Version 1, and whether plain text is refused; as text, too."""
    async with World(require_encryption=required).running() as world:
        offer = world.node.offer
        assert (offer.channel, offer.channel_required) == ((1,), required)
        assert WireOffer.of(offer).offer() == offer


async def test_an_opening_that_is_none_is_answered_and_the_connection_stands() -> None:
    """In plain text, since there is no channel."""
    async with World().running() as world:
        end = world.connect()
        guest = Renter(end, world.chain.open(some_terms()))
        named(await guest.refused('{"type":"channel_open","key":"0x00"}'), "message_malformed")
        named(
            await guest.refused('{"type":"channel_open","protocol":9,"key":"0x' + "11" * 32 + '"}'), "channel_refused"
        )
        await enter(end)


@pytest.mark.parametrize(
    ("wrong", "code"), [("again", "channel_replayed"), ("gap", "channel_gap"), ("plain", "channel_tampered")]
)
async def test_a_frame_that_is_not_the_next_one_ends_the_connection(wrong: str, code: str) -> None:
    """With its name; it is counted, the session ends and can be resumed, and nobody else notices."""
    async with World().running() as world:
        renter, end = await stranger(world)
        await renter.open()
        assert isinstance(renter.wire, Sealed)
        channel = renter.wire.transport._channel
        frame = channel.seal(encode(Ping()))
        if wrong == "again":
            await end.send(frame)
            assert isinstance(await renter.next(), Pong)
            await end.send(frame)
        else:
            await end.send(channel.seal(encode(Ping())) if wrong == "gap" else encode(Ping()))
        await eventually(lambda: end.code == code)
        await eventually(lambda: not world.jobs_at_work())
        assert world.metrics.registry.get_sample_value("fabstir_request_failure_total", {"code": code}) == 1
        again, _ = await stranger(world)
        again = Renter(again.wire, renter.terms).continues(renter)
        await again.open(again.resume())
        assert await again.chat("hello") == "You said: hello"


async def test_a_cut_is_told_from_an_end() -> None:
    """The host that leaves says so inside the channel; a connection that merely stops was cut by somebody."""
    async with World().running() as world:
        left, _ = await stranger(world)
        await left.open()
        await world.node.drain()
        assert isinstance(left.wire, Sealed)
        with pytest.raises(Interrupted, match="host_unreachable.*closed with draining"):
            while True:
                await left.wire.receive()
    async with World().running() as world:
        cut, end = await stranger(world)
        await cut.open()
        end._peer.abort()
        assert isinstance(cut.wire, Sealed)
        for _ in range(2):
            with pytest.raises(Interrupted, match="channel_truncated"):
                await cut.wire.receive()
        with pytest.raises(Interrupted, match="channel_truncated"):
            await cut.wire.send("too late")


async def test_who_leaves_is_not_told_of_a_cut() -> None:
    """Closing and dropping are this side's own doing."""
    async with World().running() as world:
        for leave in ("close", "abort"):
            renter, _ = await stranger(world)
            assert isinstance(renter.wire, Sealed)
            transport = renter.wire.transport
            if leave == "close":
                await transport.close("ended")
                await transport.close("ended")
            else:
                transport.abort()
            with pytest.raises(Interrupted, match="host_unreachable"):
                await transport.receive()


async def test_errors_of_a_session_are_told_inside_the_channel() -> None:
    """What is refused, and why, is between the two."""
    async with World().running() as world:
        renter, _ = await stranger(world)
        fault = await renter.refused(
            SessionInit(session_id="chat", job_id="0x" + "00" * 32, terms=renter.init().terms, auth=renter.auth())
        )
        assert fault.code == "job_terms_mismatch"
