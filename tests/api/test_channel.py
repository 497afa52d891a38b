"""A whole market over real sockets, with a proxy in the middle that reads every frame as if it had ended TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from tests.api.middle import BINARY, TEXT, Frame, Recorder, between
from tests.renter.world import WALLET, Host, World, counting

from fabstir.api.app import host_app
from fabstir.api.server import listen, serve, url_of
from fabstir.domain.errors import FabstirError
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.channel import accept
from fabstir.protocol.signing import SigningKey
from fabstir.renter import Market, RenterSettings

SECRET = "my password is correct-horse-battery"


@contextlib.asynccontextmanager
async def market_behind(
    *, require: bool = True, host_requires: bool = False
) -> AsyncIterator[tuple[Market, Host, Recorder]]:
    """A renter whose only host is registered at the proxy's address."""
    world = World()
    host = await world.host(require_encryption=host_requires)
    listener, stop = listen("127.0.0.1", 0), asyncio.Event()
    app = host_app(host.node, max_connections=16)
    running = asyncio.create_task(serve(app, listener, max_message_bytes=1 << 20, stop=stop, drain=host.node.drain))
    try:
        async with between(url_of(listener)) as (url, recorder):
            host.url = url
            await host.register()
            settings = RenterSettings(policy=ProofPolicy.FALLBACK, require_encryption=require)
            chain = world.chain.view(WALLET.address)
            async with Market(chain, world.journal, world.clock, settings=settings) as market:
                yield market, host, recorder
    finally:
        stop.set()
        await running
        await host.stop()


async def asked(market: Market, *questions: str) -> list[str]:
    """The answers of one session."""
    async with market.session("scripted") as session:
        return ["".join([piece async for piece in session.prompt(question)]) for question in questions]


def words(recorder: Recorder) -> bytes:
    """Everything that the proxy could read: bytes, frames without mask, texts without compression."""
    return bytes(recorder.raw) + b"".join(frame.payload for _, frame in recorder.frames) + b"".join(recorder.texts)


@pytest.mark.parametrize("host_requires", [False, True])
async def test_no_word_and_no_token_is_visible_in_the_middle(host_requires: bool) -> None:
    """Two texts, the handshake; then binary frames of a few lengths, none of them compressed."""
    async with market_behind(host_requires=host_requires) as (market, host, recorder):
        answers = await asked(market, f"say {SECRET}", "count 30")
        assert SECRET in answers[0] and answers[1] == counting(30)
        assert [json.loads(text)["type"] for text in recorder.texts] == ["channel_open", "channel_ready"]
        sealed = [frame for _, frame in recorder.frames if frame.opcode == BINARY]
        assert len(sealed) > 30 and not any(frame.compressed for frame in sealed)
        assert {len(frame.payload) - 25 for frame in sealed} <= {512, 1024, 2048, 4096}
        seen = words(recorder)
        [ledger] = host.ledgers
        hidden = [SECRET, "correct-horse", "You said", "session_id", "stream_chunk", "receipt", "voucher", "count"]
        hidden += [ledger.job.hex(), ledger.terms.renter.hex(), ledger.terms.signer.hex(), counting(30)[:20]]
        assert [word for word in hidden if word.encode() in seen] == []
        assert ledger.acknowledged == ledger.served > 30


async def test_the_same_in_plain_text_is_visible() -> None:
    """The proxy does see what there is to see: without a channel, every word."""
    async with market_behind(require=False) as (market, host, recorder):
        offer = host.node.offer
        host.node._offer = type(offer)(
            **{name: getattr(offer, name) for name in offer.__struct_fields__ if name != "channel"}
        )
        await asked(market, f"say {SECRET}")
        assert SECRET.encode() in words(recorder)
        assert any(frame.compressed for _, frame in recorder.frames)


@pytest.mark.parametrize("how", ["flip", "repeat", "drop", "swap", "cut"])
@pytest.mark.parametrize("of_host", [True, False], ids=["to the renter", "to the host"])
async def test_a_proxy_that_tampers_is_noticed_and_costs_nothing(how: str, of_host: bool) -> None:
    """Whatever it does to a frame, in either direction: the connection ends, a new one goes on, no token is lost or paid twice."""
    async with market_behind() as (market, host, recorder):
        seen: list[Frame] = []

        def change(by_host: bool, frame: Frame) -> list[Frame] | None:
            if frame.opcode != BINARY or by_host is not of_host:
                return [frame]
            seen.append(frame)
            number = 3 if not of_host else 9
            if len(seen) == number + 1 and how == "swap":
                return [frame, seen[-2]]
            if len(seen) != number:
                return [frame]
            flipped = frame._replace(payload=frame.payload[:-1] + bytes((frame.payload[-1] ^ 1,)))
            return {"flip": [flipped], "repeat": [frame, frame], "drop": [], "swap": [], "cut": None}[how]

        recorder.change = change
        assert await asked(market, "count 60", "count 5") == [counting(60), counting(5)]
        assert recorder.upgrades == 2
        assert {json.loads(text)["type"] for text in recorder.texts} == {"channel_open", "channel_ready"}
        [ledger] = host.ledgers
        assert ledger.acknowledged == ledger.served


@pytest.mark.parametrize("require", [True, False])
async def test_a_proxy_that_answers_in_the_hosts_place_hears_nothing(require: bool) -> None:
    """It ends the channel with a key of its own, as it ended TLS: the renter leaves before it says a word, and deposits nothing."""
    async with market_behind(require=require) as (market, host, recorder):

        def change(by_host: bool, frame: Frame) -> list[Frame]:
            if not by_host or frame.opcode != TEXT:
                return [frame]
            answer, _ = accept(recorder.texts[0], host.node.offer.market, SigningKey(bytes([77]) * 32), bytes(32))
            return [Frame(128 | TEXT, answer)]

        recorder.change = change
        with pytest.raises(FabstirError, match="hosts_exhausted.*channel_untrusted"):
            await asked(market, f"say {SECRET}")
        assert [json.loads(text)["type"] for text in recorder.texts] == ["channel_open", "channel_ready"]
        assert not any(frame.opcode == BINARY for _, frame in recorder.frames)
        assert SECRET.encode() not in words(recorder)
        assert not host.ledgers
