"""Sessions in encrypted channels: what is between renter and host sees frames, and whatever it does, nothing goes on in plain text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.renter.world import Host, World, counting

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.transport import Transport
from fabstir.protocol.channel import accept, is_frame, largest_message, opens_channel
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.signing import Market, SigningKey
from fabstir.testing.transport import TransportEnd, transport_pair

Change = Callable[[bytes | str], bytes | str | None]
SECRET = "the launch code is 4711"


class Middle:
    """Whoever carries the connection: sees each message on its way to the renter and may give it another one, or none."""

    def __init__(self, end: TransportEnd, seen: list[bytes | str], change: Change) -> None:
        self._end = end
        self._seen = seen
        self._change = change

    async def send(self, message: bytes) -> None:
        self._seen.append(message)
        await self._end.send(message)

    async def receive(self) -> bytes | str:
        while True:
            message = await self._end.receive()
            self._seen.append(message)
            if (changed := self._change(message)) is not None:
                return changed

    async def close(self, code: str) -> None:
        await self._end.close(code)

    def abort(self) -> None:
        self._end.abort()


class Between(World):
    """A world whose offers name the channel, with somebody in between."""

    def __init__(self) -> None:
        super().__init__()
        self.channel = (1,)
        self.change: Change = lambda message: message
        self.seen: list[bytes | str] = []
        self.connections: list[asyncio.Task[None]] = []

    async def dial(self, url: str) -> Transport:
        host: Host = self._at(url)
        host.dialled += 1
        if not host.up:
            raise error("host_unreachable", url)
        there, here = transport_pair()
        host.ends.append(here)
        self.connections.append(asyncio.create_task(host.node.connect(there)))
        return Middle(here, self.seen, self.change)

    async def stop(self) -> None:
        for task in self.connections:
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)
        for host in self.hosts:
            await host.stop()

    @property
    def plain(self) -> list[bytes | str]:
        """What passed in between and is no frame, the handshakes aside."""
        texts = [message for message in self.seen if isinstance(message, str) or not is_frame(message)]
        return [text for text in texts if not opens_channel(text) and b"channel_ready" not in _bytes(text)]


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


async def asked(world: Between, question: str = "count 40", **settings: Any) -> str:
    """The answer of a session of its own."""
    async with world.market(**settings) as market, market.session("scripted") as session:
        return "".join([piece async for piece in session.prompt(question)])


async def failure(world: Between, **settings: Any) -> FabstirError:
    with pytest.raises(FabstirError) as caught:
        await asked(world, **settings)
    return caught.value


async def test_nothing_of_a_session_is_visible_in_between() -> None:
    """Not a word, a token, an id, an amount: the handshake in plain, then frames; and both sides settle as ever."""
    world = Between()
    host = await world.host()
    try:
        assert await asked(world, f"say {SECRET}") != ""
        assert await asked(world) == counting(40)
        assert world.plain == []
        assert len(world.seen) > 20
        everything = b"".join(map(_bytes, world.seen))
        for word in (SECRET, "4711", "scripted", "tokens", "session_id", "job_id", "voucher", "count"):
            assert word.encode() not in everything
        assert all(ledger.acknowledged == ledger.served for ledger in host.ledgers)
    finally:
        await world.stop()


async def test_plain_text_is_used_where_no_host_offers_a_channel_and_none_is_required() -> None:
    """A host of before still serves; whoever requires encryption is told why nobody is left."""
    world = Between()
    world.channel = ()
    await world.host()
    try:
        assert await asked(world) == counting(40)
        assert world.plain
        world.seen.clear()
        fault = await failure(world, require_encryption=True)
        assert fault.code == "no_host" and "offers no encrypted channel" in fault.detail
        assert world.seen == []
    finally:
        await world.stop()


async def test_a_channel_of_another_version_is_none() -> None:
    """It is not opened in the hope that it works."""
    world = Between()
    world.channel = (2,)
    await world.host()
    try:
        assert (await failure(world, require_encryption=True)).code == "no_host"
        assert world.seen == []
    finally:
        await world.stop()


@pytest.mark.parametrize("kind", ["declines", "impersonates"])
@pytest.mark.parametrize("required", [True, False])
async def test_a_channel_that_does_not_stand_is_never_replaced_by_plain_text(kind: str, required: bool) -> None:
    """A proxy that answers with an error, or in the host's place, gets no message, on no connection; nothing is deposited."""
    world = Between()
    host = await world.host()
    stranger = SigningKey(bytes([99]) * 32)

    def change(message: bytes | str) -> bytes | str:
        if kind == "declines":
            return b'{"type":"error","code":"message_unknown","message":"m","retryable":false}'
        opening = next(seen for seen in world.seen if opens_channel(seen))
        market = Market(host.node.offer.market.chain_id, host.node.offer.market.address)
        return accept(opening, market, stranger, bytes(range(32)))[0]

    world.change = change
    try:
        fault = await failure(world, require_encryption=required)
        assert fault.code == "hosts_exhausted"
        assert ("channel_refused" if kind == "declines" else "channel_untrusted") in fault.detail
        assert world.plain == [] and not host.ledgers
        assert [end.code for end in host.ends] == ["aborted"]
    finally:
        await world.stop()


async def test_a_session_that_was_encrypted_goes_to_no_host_without_a_channel() -> None:
    """What was said in a channel is not repeated in plain text because a connection broke."""
    world = Between()
    await world.host()
    try:
        async with world.market() as market, market.session("scripted") as session:
            assert "".join([piece async for piece in session.prompt("count 4")]) == counting(4)
            world.channel = ()  # whoever cuts the connection also rewrites the offers
            world.hosts[0].cut()
            world.hosts[0].up = False
            await world.host()
            market._directory._asked_at = None
            with pytest.raises(FabstirError, match="offers no encrypted channel"):
                _ = [piece async for piece in session.prompt(f"say {SECRET}")]
        assert world.plain == []
    finally:
        await world.stop()


@pytest.mark.parametrize("how", ["flip", "repeat", "drop", "plain"])
async def test_an_answer_goes_on_after_somebody_tampered_with_it(how: str) -> None:
    """The frame is noticed, the connection closed, the session resumed in a new channel; each token is paid once."""
    world = Between()
    host = await world.host()
    frames = 0
    last: bytes | str = b""

    def change(message: bytes | str) -> bytes | str | None:
        nonlocal frames, last
        if not isinstance(message, bytes) or not is_frame(message):
            return message
        frames += 1
        before, last = last, message
        if frames != 12:
            return message
        changed = message[:-1] + bytes((message[-1] ^ 1,))
        return {"flip": changed, "repeat": before, "drop": None, "plain": b'{"type":"pong"}'}[how]

    world.change = change
    try:
        assert await asked(world, "count 60") == counting(60)
        assert host.dialled == 2 and world.plain == []
        [ledger] = host.ledgers
        assert ledger.acknowledged == ledger.served
    finally:
        await world.stop()


async def test_a_host_that_does_not_answer_the_opening_is_given_up() -> None:
    """After the patience of a greeting, not never."""
    world = Between()
    await world.host()
    world.change = lambda message: None
    try:
        waiting = asyncio.ensure_future(failure(world, require_encryption=True))
        while not waiting.done():
            await asyncio.sleep(0)
            if world.seen:
                await world.clock.advance(20)
        fault = waiting.result()
        assert fault.code == "hosts_exhausted" and "no channel_ready within 15 s" in fault.detail
        assert len(world.seen) >= 1 and world.plain == []
    finally:
        await world.stop()


async def test_a_conversation_must_fit_with_its_padding() -> None:
    """Padded frames are larger; a host drops the connection over one beyond its bound, so it is not sent."""
    world = Between()
    await world.host(max_message_bytes=16_384)
    try:
        assert largest_message(16_384) == 8_190
        async with world.market() as market:
            long = (ChatMessage("user", "x" * 7_000), ChatMessage("assistant", "y"))
            async with market.session("scripted", context=long) as session:
                with pytest.raises(FabstirError, match="message_too_large"):
                    _ = [piece async for piece in session.prompt("hi")]
            assert world.seen == []
            async with market.session("scripted") as session:
                assert "".join([piece async for piece in session.prompt("count 4")]) == counting(4)
                with pytest.raises(FabstirError, match="message_too_large.*the host reads 8190"):
                    _ = [piece async for piece in session.prompt("x" * 9_000)]
    finally:
        await world.stop()
