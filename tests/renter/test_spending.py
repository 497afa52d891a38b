"""What each API key of the gateway has cost is what was signed and settled for it: through crashes, tails and other users of a job."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from tests.renter.world import MODEL, World, world_of

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits
from fabstir.protocol.renter_log import VoucherSigned
from fabstir.renter import Market
from fabstir.renter.gateway_keys import KeyCard
from fabstir.renter.spending import STREAM, Spending, Spent, Took, decode_event, encode_event
from fabstir.testing.journal import MemoryJournal, SimulatedCrash, WriteHook, crash_at

UNIT = 1_000_000
"""A price of one base unit for each token."""
ALICE = KeyCard(id="a" * 16, name="alice", sha256="0" * 64)
BOB = KeyCard(id="b" * 16, name="bob", sha256="1" * 64)
JOB = JobId(b"\x01" * 32)


async def ask(market: Market, key: KeyCard | None, session: Any, question: str = "count 100") -> None:
    """One request of `key`."""
    async with market.spending.bill(key) as bill:
        async for _ in session.prompt(question, max_tokens=400, allow=bill.allow):
            pass


async def one_life(world: World) -> None:
    """A process: two keys and the owner share a session."""
    async with world.market() as market, market.session(MODEL) as session:
        for key in (ALICE, None, BOB, ALICE):
            await ask(market, key, session)


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("write", range(1, 27, 2))
async def test_a_crash_at_any_write_forgets_nothing(write: int, phase: Any) -> None:
    """At each write in turn: what was signed while a key used the job is booked to that key by the next process, once."""
    async with world_of(UNIT) as world:
        world.journal = MemoryJournal(_dying(world, write, phase))
        with contextlib.suppress(SimulatedCrash):
            await one_life(world)
        world.journal, world.hosts[0].up = world.journal.reopen(), True
        owed = await _signed_by_key(world)
        for _ in range(2):  # the second time nothing is left to book
            async with world.market() as market:
                spent = {key.id: market.spending.spent(key) for key in (ALICE, BOB)}
                assert spent == {key.id: owed.get(key.id, 0) for key in (ALICE, BOB)}
            world.journal = world.journal.reopen()


def _dying(world: World, write: int, phase: Any) -> WriteHook:
    """The renter's process dies at this write, and its connections with it."""
    crash = crash_at(write, phase)

    def hook(number: int, when: Any) -> None:
        try:
            crash(number, when)
        except SimulatedCrash:
            world.hosts[0].up = False
            world.hosts[0].cut()
            raise

    return hook


async def _signed_by_key(world: World) -> dict[str, int]:
    """By the writes of the journal in their order: each voucher to whoever took the job last before it."""
    owed: dict[str, int] = {}
    for stream in [stream for stream in await world.journal.streams() if stream.startswith("rent:")]:
        job = JobId(bytes.fromhex(stream.removeprefix("rent:")))
        took = [event for event in await _spending(world) if isinstance(event, Took) and event.job == job]
        amounts = [event.amount for event in await world.log(job) if isinstance(event, VoucherSigned)]
        assert took or not amounts  # nothing is signed before it is written for whom
        for turn, following in zip(took, [*took[1:], None], strict=False):
            upto = following.before if following else max(amounts, default=0)
            if turn.key:
                owed[turn.key] = owed.get(turn.key, 0) + upto - turn.before
    return owed


async def _spending(world: World) -> list[Any]:
    return [decode_event(data) for data in await world.journal.read(STREAM)]


async def test_what_several_users_of_a_job_cost_adds_up() -> None:
    """To what was signed for; the owner's part is nobody's."""
    async with world_of(UNIT) as world, world.market() as market, market.session(MODEL) as session:
        await ask(market, ALICE, session, "count 10")
        await ask(market, None, session, "count 20")
        await ask(market, BOB, session, "count 30")
        await ask(market, ALICE, session, "count 40")
        assert (market.spending.spent(ALICE), market.spending.spent(BOB)) == (11 + 41, 31)
        assert session.jobs[0].ledger.signed == 11 + 21 + 31 + 41


async def test_a_job_that_settled_unseen_is_booked_at_the_next_start() -> None:
    """The process wrote that the job is settled, and died before it booked what the settlement cost."""
    async with world_of(UNIT) as world:
        async with world.market() as market, market.session(MODEL) as session:
            await ask(market, ALICE, session, "count 10")
        world.close_by_host(world.hosts[0])
        async with world.market() as market:
            await market.settle()
            assert market.unsettled == ()
        async with world.market() as market:
            assert market.spending.spent(ALICE) == 11
        final = [event for event in await _spending(world) if isinstance(event, Spent) and event.final]
        assert len(final) == 1


async def test_a_journal_that_cannot_be_read_is_a_fault() -> None:
    """Nothing is guessed about money."""
    journal = MemoryJournal()
    await journal.append(STREAM, [encode_event(Took("a" * 16, JOB, BaseUnits(1))), b"\xff"])
    with pytest.raises(FabstirError, match="journal_failed"):
        await Spending(journal).restore(())
