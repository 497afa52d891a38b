"""Deposits: what is written before what, what a crash leaves behind, how the money comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.renter.world import MODEL, WALLET, World, counting, eventually, world_of

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import to_hex
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.messages import ReceiptAck, decode_from_renter
from fabstir.protocol.renter_log import JobOpened, JobPlanned, JobSettled, VoucherSigned
from fabstir.renter import Session, Stage
from fabstir.testing.journal import MemoryJournal, SimulatedCrash, WriteHook, crash_at


async def talk(session: Session, question: str = "count 200") -> str:
    return "".join([piece async for piece in session.prompt(question, max_tokens=400)])


# -- what is written before what --------------------------------------------------------------------------------------------


async def test_a_job_is_in_the_journal_before_its_transactions_are_sent() -> None:
    """With its session key: whatever dies afterwards, the deposit can be found again."""
    seen: list[tuple[str, int]] = []
    async with world_of(200_000) as world:
        world.chain.on_transaction = lambda key, phase: seen.append((f"{phase} {key[:5]}", world.journal.writes))
        async with world.market() as market, market.session(MODEL) as session:
            await session.connect()
            [job] = session.jobs
        assert seen[:4] == [("before appro", 1), ("after appro", 1), ("before open:", 1), ("after open:", 1)]
        planned, opened = (await world.log(job.id))[:2]
        assert isinstance(planned, JobPlanned) and isinstance(opened, JobOpened)
        assert planned.terms == job.ledger.terms


async def test_a_voucher_is_in_the_journal_before_it_is_on_the_wire() -> None:
    """For each one: a restarted renter knows everything that it ever signed."""
    async with world_of(200_000) as world:
        on_wire: list[int] = []
        journaled: list[int] = []
        async with world.market() as market, market.session(MODEL) as session:
            await session.connect()
            [job], host = session.jobs, world.hosts[0]

            def spy(message: bytes) -> None:
                said = decode_from_renter(message)
                if isinstance(said, ReceiptAck):
                    written = world.journal._disk.events["rent:" + job.id.hex()]
                    journaled.append(sum(b"voucher_signed" in event for event in written))
                    on_wire.append(said.tokens)

            host.sent = _Spied(spy)
            session._access.link._transport._sent = host.sent  # type: ignore[union-attr]
            assert await talk(session) == counting(200)
            assert len(on_wire) >= 4
            assert journaled == list(range(1, len(on_wire) + 1))


class _Spied(list[bytes]):
    def __init__(self, spy: Any) -> None:
        super().__init__()
        self._spy = spy

    def append(self, message: bytes) -> None:
        self._spy(message)
        super().append(message)


async def test_a_journal_that_fails_stops_the_signing() -> None:
    """The voucher is not sent; the person gets `journal_failed`; the job is not used again."""
    async with world_of(200_000) as world:

        def full(write: int, phase: str) -> None:
            if write > 3 and phase == "before":
                raise error("journal_failed", "disk full")

        journal = MemoryJournal(full)
        async with world.market(journal) as market, market.session(MODEL) as session:
            with pytest.raises(FabstirError, match="journal_failed"):
                await talk(session)
            [job], [ledger] = session.jobs, world.hosts[0].ledgers
            assert ledger.acknowledged == 32
            assert sum(b"receipt_ack" in message for message in world.hosts[0].sent) == 1
            assert job.spoiled is not None


# -- how a deposit is paid -------------------------------------------------------------------------------------------------


async def test_exactly_the_deposit_is_approved_and_used_up() -> None:
    """No allowance stands open afterwards, whatever is opened at the same time."""
    async with (
        world_of(200_000) as world,
        world.market() as market,
        market.session(MODEL) as one,
        market.session(MODEL) as two,
    ):
        await asyncio.gather(one.connect(), two.connect())
        assert world.chain.allowances == {WALLET.address: 0}
        assert len(world.chain.state.jobs) == 2


async def test_a_job_is_nobody_elses_from_the_moment_it_is_planned() -> None:
    """Between the deposit and the greeting, too: two sessions that open at the same time never get the same job."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        connecting = asyncio.create_task(session.connect())
        while not connecting.done():
            assert all(job.in_use for job in market.unsettled)
            await asyncio.sleep(0)
        [job] = market.unsettled
        assert job.ledger.opened


async def test_a_job_that_nobody_waited_for_serves_the_next_session() -> None:
    """Its deposit is there already."""
    async with world_of(200_000) as world, world.market() as market:
        async with market.session(MODEL) as session:
            connecting = asyncio.create_task(session.connect())
            await eventually(lambda: bool(market.unsettled))
            connecting.cancel()
            await eventually(lambda: any(job.ledger.opened and not job.in_use for job in market.unsettled))
        async with market.session(MODEL) as session:
            await session.connect()
            assert session.jobs == market.unsettled
        assert len(world.chain.state.jobs) == 1


async def test_a_signed_transfer_pays_in_one_transaction() -> None:
    """EIP-3009: the authorisation is good for this job and nothing else."""
    async with world_of(200_000) as world, world.market(authorize=True) as market:
        async with market.session(MODEL) as session:
            assert await talk(session, "hi") == "You said: hi"
        assert [key.split(":")[0] for key in world.chain.mined] == ["register", "open"]


async def test_a_wallet_that_is_not_given_cannot_sign() -> None:
    """Said at the start, not at the first deposit."""
    async with world_of() as world:
        with pytest.raises(FabstirError, match="key_missing"):
            type(world.market())(
                world.chain.view(WALLET.address),
                world.journal,
                world.clock,
                settings=world.market(authorize=True).settings,
            )


async def test_a_refused_deposit_is_told_and_frees_the_budget() -> None:
    """The contract's word reaches the person; nothing is counted as spent."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:

        def refuse(key: str, phase: str) -> None:
            if key.startswith("open:"):
                raise error("chain_reverted", "ERC20InsufficientBalance")

        world.chain.on_transaction = refuse
        with pytest.raises(FabstirError, match="chain_reverted.*InsufficientBalance"):
            await talk(session)
        assert session.budget_left == 1_000_000
        assert [end.code for end in world.hosts[0].ends] == ["aborted"]  # it does not wait for a greeting
        world.chain.on_transaction = lambda key, phase: None
        assert await talk(session, "hi") == "You said: hi"


async def test_a_transaction_of_unknown_fate_keeps_its_part_of_the_budget() -> None:
    """It may still be mined; once it was, the deposit is used."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL, budget=250_000) as session:

        def lose(key: str, phase: str) -> None:
            if key.startswith("open:") and phase == "after":
                raise error("transaction_lost", "not mined in 60 s")

        world.chain.on_transaction = lose
        with pytest.raises(FabstirError, match="transaction_lost"):
            await talk(session)
        assert session.budget_left == 250_000 - 62_500
        world.chain.on_transaction = lambda key, phase: None
        [settlement] = await market.settle()
        assert settlement.stage is Stage.OPEN
        assert await talk(session, "hi") == "You said: hi"
        assert len(world.chain.state.jobs) == 1


async def test_an_opening_that_nobody_waits_for_any_more_is_not_lost() -> None:
    """The person gave up while the transaction was under way: the deposit serves the next question."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        asking = asyncio.create_task(talk(session))

        def give_up(key: str, phase: str) -> None:
            asking.cancel()

        world.chain.on_transaction = give_up
        with pytest.raises(asyncio.CancelledError):
            await asking
        world.chain.on_transaction = lambda key, phase: None
        await asyncio.gather(*market._jobs._opening)
        assert [job.ledger.opened for job in market.unsettled] == [True]
        assert await talk(session, "hi") == "You said: hi"
        assert len(world.chain.state.jobs) == 1


# -- restart ---------------------------------------------------------------------------------------------------------------


async def test_a_restarted_renter_goes_on_with_its_deposit() -> None:
    """Same job, same session key; it signs from where it stopped, never less or other than before."""
    async with world_of(200_000) as world:
        async with world.market() as market:
            session = await market.start_session(MODEL)
            assert await talk(session) == counting(200)
            world.hosts[0].cut()
        world.journal = world.journal.reopen()
        async with world.market() as market, market.session(MODEL) as session:
            assert await talk(session) == counting(200)
            [job] = session.jobs
            assert job.ledger.signed == world.hosts[0].ledgers[0].acknowledged == 402
            assert len(world.chain.state.jobs) == 1
            vouchers = [event.tokens for event in await world.log(job.id) if isinstance(event, VoucherSigned)]
            assert vouchers == sorted(vouchers)


async def test_a_deposit_that_is_nearly_used_up_is_not_gone_on_with() -> None:
    """Less than W tokens are left in it: a new job serves the next process."""
    async with world_of(1_000_000_000) as world:
        async with world.market(top_up=False) as market:
            session = await market.start_session(MODEL)
            assert await talk(session) == counting(200)
            world.hosts[0].cut()
        world.journal = world.journal.reopen()
        async with world.market() as market, market.session(MODEL) as session:
            assert await talk(session, "hi") == "You said: hi"
            assert len(world.chain.state.jobs) == 2


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("write", range(1, 13))
async def test_a_crash_at_any_write_loses_no_money(write: int, phase: Any) -> None:
    """At each write of a whole conversation in turn: what was signed is in the journal, the next process goes on with the
    deposit, and in the end every base unit is with the host or back.
    """
    async with world_of(200_000) as world:
        world.journal = MemoryJournal(_dying(world, write, phase))
        with pytest.raises(SimulatedCrash):
            await _whole_life(world)
        _start_again(world)
        for ledger in world.hosts[0].ledgers:  # nothing is with the host that the journal does not know
            vouchers = [event for event in await world.log(ledger.job) if isinstance(event, VoucherSigned)]
            assert ledger.acknowledged <= max((voucher.tokens for voucher in vouchers), default=0)
        await _whole_life(world)
        assert len(world.hosts[0].ledgers) == len(world.chain.state.jobs) == 1
        assert sum(ledger.acknowledged for ledger in world.hosts[0].ledgers) <= 2 * (201 + 4)
        world.close_by_host(world.hosts[0])
        world.journal = world.journal.reopen()
        await world.clock.advance(90_000)
        async with world.market() as market:
            for _ in range(3):
                await market.settle(reclaim=True)
            assert market.unsettled == ()
        state = world.chain.state
        assert sum(state.held.values()) == sum(state.earnings.values())
        owed = sum(account.state.owed for account in state.jobs.values())
        assert sum(state.repaid.values()) + owed == sum(account.state.deposit for account in state.jobs.values())


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


def _start_again(world: World) -> None:
    """The next process: nothing is left of the old one but its journal."""
    world.hosts[0].up = True
    for task in asyncio.all_tasks():
        if task.get_name() == "renter link watch":
            task.cancel()
    world.journal = world.journal.reopen()


async def _whole_life(world: World) -> None:
    async with world.market() as market:
        async with market.session(MODEL) as session:
            assert await talk(session) == counting(200)
            assert await talk(session, "hi") == "You said: hi"
        await market.settle()


async def test_a_job_that_was_planned_and_never_opened_is_forgotten_once_it_cannot_be() -> None:
    """Until its terms expire the transaction might still come; then the log is closed."""
    async with world_of(200_000) as world:
        world.journal = MemoryJournal(crash_at(1))
        with pytest.raises(SimulatedCrash):
            await _whole_life(world)
        world.journal = world.journal.reopen()
        async with world.market() as market:
            [planned] = await market.settle()
            assert planned.stage is Stage.PLANNED
            await world.clock.advance(90_000)
            [gone] = await market.settle()
            assert gone.stage is Stage.ABANDONED and gone.owed == gone.refund == 0
            assert market.unsettled == ()
        assert world.chain.state.jobs == {}


# -- getting the rest back -------------------------------------------------------------------------------------------------


async def opened(world: World, policy: ProofPolicy = ProofPolicy.FALLBACK, *, release: bool = True) -> Session:
    """A session that cost 201 tokens and is over; the host has not settled."""
    market = world.market(policy=policy)
    await market.__aenter__()
    session = await market.start_session(MODEL)
    assert await talk(session) == counting(200)
    if not release:
        await world.hosts[0].kill()
    await session.close()
    world.market_of_test = market  # type: ignore[attr-defined]
    return session


async def test_the_renter_closes_at_once_with_the_hosts_signature() -> None:
    """Policy fallback: what was signed is paid, the rest comes back, in one transaction of the renter."""
    async with world_of(200_000) as world:
        session = await opened(world)
        [settlement] = await session.settlements(reclaim=True)
        assert (settlement.stage, settlement.owed, settlement.refund) == (Stage.SETTLED, 40, 249_960)
        [job] = session.jobs
        assert isinstance((await world.log(job.id))[-1], JobSettled)
        assert f"close:{to_hex(job.id)}" in world.chain.mined


async def test_without_a_proof_the_renter_asks_to_close_and_waits_for_the_window() -> None:
    """Policy required: closing with what the host signed would need its proof. After the window `finalize` brings everything back."""
    async with world_of(200_000) as world:
        session = await opened(world, ProofPolicy.REQUIRED)
        [closing] = await session.settlements(reclaim=True)
        assert closing.stage is Stage.CLOSING
        assert closing.finalizable_at == int(world.clock.now()) + 900
        [still] = await session.settlements(reclaim=True)
        assert still.stage is Stage.CLOSING
        await world.clock.advance(900)
        [done] = await session.settlements(reclaim=True)
        assert (done.stage, done.owed, done.refund) == (Stage.SETTLED, 0, 250_000)


async def test_without_a_word_of_the_host_the_window_decides() -> None:
    """The host is gone: what it redeemed before is paid, the rest comes back."""
    async with world_of(200_000) as world:
        session = await opened(world, release=False)
        [job] = session.jobs
        assert job.ledger.released is None
        assert (await session.settlements(reclaim=True))[0].stage is Stage.CLOSING
        await world.clock.advance(900)
        assert (await session.settlements(reclaim=True))[0].stage is Stage.SETTLED


async def test_nothing_is_sent_without_being_asked_for() -> None:
    """Settlement is left to the host: looking costs nothing."""
    async with world_of(200_000) as world:
        session = await opened(world)
        sent = len(world.chain.mined)
        assert (await session.settlements())[0].stage is Stage.OPEN
        assert len(world.chain.mined) == sent
