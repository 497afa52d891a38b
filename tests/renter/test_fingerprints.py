"""Rung 2 with whole hosts and renters in memory: fingerprints reach the renter's file, and nothing waits for them."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.renter.test_failover import gather
from tests.renter.world import MODEL, World, eventually, world_of

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import to_hex
from fabstir.host import fingerprinting, node
from fabstir.protocol.messages import Fingerprints, FromHost, SessionReady
from fabstir.protocol.rungs import Rung
from fabstir.protocol.signing import SigningKey
from fabstir.protocol.transcript_file import SpokenTurn, check, encode_file, read_transcript
from fabstir.renter import Session
from fabstir.renter.access import Wish
from fabstir.renter.jobs import RenterJob
from fabstir.renter.keeping import Keeper
from fabstir.renter.link import FINGERPRINT_SECONDS

STRANGER = SigningKey(b"\x33" * 32)


def turns(keeper: Keeper, job: RenterJob) -> tuple[SpokenTurn, ...]:
    """What is kept, through the bytes of the file, once everything in it holds together."""
    file = read_transcript(encode_file(keeper.transcript(job.ledger)))
    check(file)
    return file.turns


async def talk(world: World, keeper: Keeper, *questions: str, rung: int | None = 2) -> RenterJob:
    """One session from start to end; its job."""
    async with world.market() as market:
        market.keeping(keeper)
        async with market.session(MODEL, rung=rung) as session:
            for question in questions:
                await gather(session.prompt(question))
            return session.jobs[-1]


async def test_they_reach_the_renters_file(tmp_path: Path) -> None:
    """Of every answer, the last one included, which the end waits for; at the price of the rung."""
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000, fingerprints=True, fingerprint_surcharge=30) as world:
        job = await talk(world, keeper, "count 90", "hello")
        assert job.ledger.terms.price == 260_000
        assert world.hosts[0].fingerprinter.asked == 2
    first, second = turns(keeper, job)
    assert (len(first.fingerprints), len(second.fingerprints)) == (-(-len(first.records) // 32), 1)
    assert len(first.records) > 64


async def test_only_who_asked_for_them_has_them(tmp_path: Path) -> None:
    """On another rung nothing is read again, and the price is the model's; who keeps no words keeps none, and is not kept waiting."""
    async with world_of(200_000, fingerprints=True, fingerprint_surcharge=30) as world:
        keeper = Keeper(tmp_path / "words", words=True)
        job = await talk(world, keeper, "hello", rung=1)
        assert [turn.fingerprints for turn in turns(keeper, job)] == [()]
        assert (job.ledger.terms.price, world.hosts[0].fingerprinter.asked) == (200_000, 0)
        world.hosts[0].fingerprinter.free.clear()
        bare = Keeper(tmp_path / "hashes", words=False)
        job = await talk(world, bare, "hello")
        assert check(bare.receipt(job.ledger)).tokens == job.ledger.signed


async def test_a_host_without_the_rung_is_not_taken() -> None:
    """The dearer one that makes them is; it says so as the session begins."""
    async with world_of(100_000) as world:
        maker = await world.host(200_000, fingerprints=True)
        said: list[FromHost] = []

        def listen(message: FromHost) -> FromHost:
            said.append(message)
            return message

        maker.tamper = listen
        async with world.market() as market, market.session(MODEL, rung=2) as session:
            await session.connect()
            assert session.jobs[0].host == maker.key.address
        [ready] = [message for message in said if isinstance(message, SessionReady)]
        assert {"fingerprints", "rung_2"} <= set(ready.capabilities)


async def test_no_answer_waits_for_them(tmp_path: Path) -> None:
    """The next one streams while those of the one before are being made, and both arrive in the end."""
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000, fingerprints=True) as world, world.market() as market:
        market.keeping(keeper)
        maker = world.hosts[0].fingerprinter
        maker.free.clear()
        async with market.session(MODEL, rung=2) as session:
            for _ in range(3):
                assert await gather(session.prompt("hello")) == "You said: hello"
            [job] = session.jobs
            assert [turn.fingerprints for turn in turns(keeper, job)] == [(), (), ()]
            maker.free.set()
        assert all(turn.fingerprints for turn in turns(keeper, job))


async def test_the_end_waits_for_them_and_not_for_ever(tmp_path: Path) -> None:
    """A host that cannot keep up is left in peace: money is settled all the same."""
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000, fingerprints=True) as world, world.market() as market:
        market.keeping(keeper)
        world.hosts[0].fingerprinter.free.clear()
        session = await _session(market)
        assert await gather(session.prompt("hello")) == "You said: hello"
        closing = asyncio.ensure_future(session.close())
        while not closing.done():
            await world.clock.advance(FINGERPRINT_SECONDS / 4)
        await closing
        [job] = session.jobs
        assert [turn.fingerprints for turn in turns(keeper, job)] == [()]
        [ledger] = world.hosts[0].ledgers
        assert ledger.released and ledger.exposed == 0


async def test_a_tampered_signature_is_refused(tmp_path: Path) -> None:
    """The host is left as for a false receipt; what it served before stays signed for, and nothing of it is kept."""
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000, fingerprints=True) as world:

        def falsify(message: FromHost) -> FromHost:
            if isinstance(message, Fingerprints):
                signature = to_hex(STRANGER.sign(bytes(32)))  # type: ignore[arg-type]
                return msgspec.structs.replace(message, signature=signature)
            return message

        world.hosts[0].tamper = falsify
        async with world.market() as market:
            market.keeping(keeper)
            session = await _session(market)
            assert await gather(session.prompt("hello")) == "You said: hello"
            link = session._access.link
            assert link is not None
            with pytest.raises(FabstirError, match="fingerprints_invalid"):
                await link.finish()
            await session.close()
            [job] = session.jobs
        assert [turn.fingerprints for turn in turns(keeper, job)] == [()]
        assert job.ledger.signed == world.hosts[0].ledgers[0].acknowledged > 0


async def test_a_maker_that_fails_costs_the_fingerprints_alone(tmp_path: Path) -> None:
    """Told in the log, by name; the answers go on."""
    keeper = Keeper(tmp_path, words=True)
    async with world_of(200_000, fingerprints=True) as world, world.market() as market:
        market.keeping(keeper)
        maker = world.hosts[0].fingerprinter
        maker.fault = error("engine_gone", "it died")
        with capture_logs() as lines:
            async with market.session(MODEL, rung=2) as session:
                await gather(session.prompt("one"))
                await eventually(lambda: _dropped(lines) == ["engine_gone: it died"])
                maker.fault = None
                await gather(session.prompt("two"))
                [job] = session.jobs
                await _advance_until_closed(world, session)
        assert [bool(turn.fingerprints) for turn in turns(keeper, job)] == [False, True]


@pytest.mark.parametrize(("bound", "value", "why"), [("CAPACITY", 1, "1 answers wait already"), ("DEADLINE", 0, "0 s")])
async def test_a_host_that_cannot_keep_up_drops_them(
    monkeypatch: pytest.MonkeyPatch, bound: str, value: int, why: str
) -> None:
    """Where too many wait, or it takes too long; each with a line in the log, and no answer is slower for it."""
    async with world_of(200_000) as world:
        if bound == "CAPACITY":
            monkeypatch.setattr(fingerprinting, "CAPACITY", value)
        else:
            monkeypatch.setattr(node, "Fingerprinting", partial(fingerprinting.Fingerprinting, deadline=value))
        host = await world.host(100_000, fingerprints=True)
        host.fingerprinter.free.clear()
        with capture_logs() as lines:
            async with world.market() as market, market.session(MODEL, rung=2) as session:
                for _ in range(2):
                    assert await gather(session.prompt("hello")) == "You said: hello"
                await eventually(lambda: bool(_dropped(lines)))
        assert why in _dropped(lines)[0]


async def test_a_connection_that_breaks_is_not_kept_for_them() -> None:
    """What is being made ends with the connection it is for: the job is free for the renter's next one at once."""
    async with world_of(200_000, fingerprints=True) as world, world.market() as market:
        host = world.hosts[0]
        host.fingerprinter.free.clear()
        session = await _session(market)
        await gather(session.prompt("hello"))
        await eventually(lambda: host.fingerprinter.asked == 1)
        host.cut()
        await eventually(lambda: host.node._running is not None and len(host.node._running.reception) == 0)
        assert await gather(session.prompt("hello again")) == "You said: hello again"
        await session.close()


async def test_a_host_that_offers_them_needs_somebody_who_makes_them() -> None:
    """It does not start."""
    world = World()
    host = await world.host()
    host.settings = msgspec.structs.replace(host.settings, fingerprints=True)
    await host.stop()
    other = host._new_node()
    other.fingerprinter = None
    with pytest.raises(FabstirError, match=r"config_invalid.*fingerprints"):
        await other.start()
    await other.stop()


def _dropped(lines: list[Any]) -> list[str]:
    return [line["reason"] for line in lines if line["event"] == "fingerprints_dropped"]


async def _session(market: Any) -> Session:
    """One that the test closes."""
    session: Session = await market.start_session(MODEL, wish=Wish(rung=Rung.FINGERPRINTS))
    return session


async def _advance_until_closed(world: World, session: Session) -> None:
    closing = asyncio.ensure_future(session.close())
    while not closing.done():
        await world.clock.advance(FINGERPRINT_SECONDS / 4)
    await closing
