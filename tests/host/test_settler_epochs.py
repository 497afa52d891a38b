"""Epochs: who is due at the same time is proven together, who cannot wait is not kept waiting, and no crash costs anything."""

from __future__ import annotations

from collections import Counter
from itertools import count
from types import MappingProxyType

import pytest
from msgspec.structs import replace
from tests.host.settler_world import World

from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Hash32, ModelId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.host_log import EpochJoined, HostLedger

REQUIRED = ProofPolicy.REQUIRED


def counted(market: World) -> Counter[str]:
    """Transactions by the first word of their key, from now on."""
    sent: Counter[str] = Counter()

    def note(key: str, phase: str) -> None:
        if phase == "after":
            sent[key.partition(":")[0]] += 1

    market.chain.on_transaction = note
    return sent


async def due(market: World, jobs: int, **other: object) -> list[HostLedger]:
    """So many finished jobs, each of another length."""
    return [
        await market.job(served=40 * n, signed=40 * n, salt=n, policy=REQUIRED, **other)  # type: ignore[arg-type]
        for n in range(1, jobs + 1)
    ]


async def paid(market: World, ledgers: list[HostLedger]) -> bool:
    states = [await market.state(ledger) for ledger in ledgers]
    return all(
        state.closed and state.owed == ledger.amount(ledger.acknowledged)
        for state, ledger in zip(states, ledgers, strict=True)
    )


async def test_jobs_that_are_due_together_are_proven_together() -> None:
    """One commitment, one proof, one redemption for all; then each closes. Each is paid to the last unit."""
    market = World()
    ledgers = await due(market, 9)
    sent = counted(market)
    await market.settle()
    assert sent == {"epoch": 1, "prove_epoch": 1, "redeem_epoch": 1, "close": 9}
    assert await paid(market, ledgers)
    assert market.settler.problems == {} and market.book.ledgers() == ()


async def test_one_epoch_is_redeemed_in_as_many_calls_as_it_has_currencies_and_models() -> None:
    """The contract is told token and model once for all claims of a call; each session is paid all the same."""
    market = World()
    alike: dict[int, dict[str, object]] = {
        1: {},
        2: {"token": ZERO_ADDRESS},
        3: {},
        4: {"model_id": ModelId(bytes(32))},
        5: {"token": ZERO_ADDRESS},
    }
    ledgers = [await market.job(40 * n, 40 * n, salt=n, policy=REQUIRED, **other) for n, other in alike.items()]  # type: ignore[arg-type]
    sent = counted(market)
    await market.settle()
    assert sent == {"epoch": 1, "prove_epoch": 1, "redeem_epoch": 3, "close": 5}
    assert await paid(market, ledgers)


async def test_one_alone_is_proven_alone() -> None:
    """An epoch of one would cost more and look at less."""
    market = World()
    ledgers = await due(market, 1)
    sent = counted(market)
    await market.settle()
    assert sent == {"commit": 1, "prove": 1, "close": 1}
    assert await paid(market, ledgers)


async def test_who_comes_while_an_epoch_is_on_its_way_is_in_the_next() -> None:
    """Nobody throws the dice twice at a time: three that come later share the second epoch."""
    market = World()
    ledgers = await due(market, 2)
    sent = counted(market)
    await market.settler.settle()
    ledgers += [await market.job(served=10, signed=10, salt=n, policy=REQUIRED) for n in (7, 8, 9)]
    await market.settle()
    assert sent == {"approve": 3, "open": 3, "epoch": 2, "prove_epoch": 2, "redeem_epoch": 2, "close": 5}
    assert await paid(market, ledgers)


async def test_running_sessions_come_again_with_all_their_tokens() -> None:
    """A session that goes on is in one epoch after another, each over everything signed; nothing is committed or paid twice."""
    market = World(redeem_above=BaseUnits(1))
    ledgers = [await market.job(served=300, signed=100, salt=n, finished=False, policy=REQUIRED) for n in (1, 2)]
    await market.settle(6)
    assert [(await market.state(ledger)).signed for ledger in ledgers] == [100, 100]
    for ledger in ledgers:
        await market.sign(ledger, 300)
    sent = counted(market)
    await market.settle(6)
    assert sent == {"epoch": 1, "prove_epoch": 1, "redeem_epoch": 1}
    for ledger in ledgers:
        state = await market.state(ledger)
        assert (state.closed, state.signed, state.owed) == (False, 300, ledger.amount(Tokens(300)))
        assert ledger.epoch is not None and ledger.epoch.place.session.tokens == 300


async def test_a_restart_between_any_two_passes_settles_the_same() -> None:
    """Journal and chain are all there is: the same transactions, the same money."""
    market = World()
    ledgers = await due(market, 5)
    sent = counted(market)
    for _ in range(12):
        await market.settler.settle()
        await market.restart()
        market.chain.mine()
    assert sent == {"epoch": 1, "prove_epoch": 1, "redeem_epoch": 1, "close": 5}
    assert await paid(market, ledgers)


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("step", ["epoch", "prove_epoch", "redeem_epoch", "close"])
async def test_a_host_that_dies_at_any_transaction_goes_on(step: str, phase: str) -> None:
    """Before it was sent, or mined without the host's knowledge: another process with the same journal ends it, and nothing is paid
    twice."""
    market = World()
    ledgers = await due(market, 4)
    once = count()

    def die(key: str, now: str) -> None:
        if key.startswith(step + ":") and now == phase and next(once) == 0:
            raise error("transaction_lost", detail="the process ends here")

    market.chain.on_transaction = die
    for _ in range(14):
        await market.settler.settle()
        await market.restart()
        market.chain.mine()
    assert next(once) > 0, "the step was never taken"
    assert await paid(market, ledgers)


async def test_a_crash_while_places_are_written_leaves_nothing_behind() -> None:
    """Some logs name an epoch that was never committed: it is not on chain, so it is nothing, and all come into a new one."""
    other, market = World(), World()
    ledger = (await due(other, 3))[0]
    await other.settler.settle()
    ledgers = await due(market, 3)
    assert ledger.epoch is not None
    async with market.book.exclusive(ledgers[0]):
        await market.book.record(ledgers[0], EpochJoined(ledger.epoch.place, 1))
    await market.restart()
    market.chain.mine(3)
    sent = counted(market)
    await market.settle()
    assert sent == {"epoch": 1, "prove_epoch": 1, "redeem_epoch": 1, "close": 3}
    assert await paid(market, ledgers)


async def test_a_job_whose_close_is_requested_waits_for_nobody() -> None:
    """The renter's window runs: although an epoch is on its way, the job commits and proves on its own."""
    market = World()
    await due(market, 2)
    await market.settler.settle()  # their epoch waits for its challenge
    late = await market.job(served=50, signed=50, salt=9, finished=False, policy=REQUIRED)
    await market.renter.request_close("leave", late.terms)
    sent = counted(market)
    await market.settle()
    assert sent == {"commit": 1, "prove": 1, "prove_epoch": 1, "redeem_epoch": 1, "close": 3}
    assert await paid(market, [late])


async def test_a_job_near_its_expiry_waits_for_nobody() -> None:
    """From the margin before it on, it is proven alone, with others due or not."""
    market = World()
    ledgers = await due(market, 2, expires_at=int(market.clock.now()) + 3_000)
    sent = counted(market)
    await market.settle()
    assert sent == {"commit": 2, "prove": 2, "close": 2}
    assert await paid(market, ledgers)


async def test_unsigned_tails_have_their_own_commitment() -> None:
    """A dispute must be able to open it: whoever claims a tail is in no epoch."""
    market = World(claim_tail_above=BaseUnits(1))
    ledgers = [await market.job(served=60, signed=40, salt=n, policy=REQUIRED) for n in (1, 2)]
    sent = counted(market)
    await market.settle()
    assert (sent["commit"], sent["prove"], sent["tail"], sent["epoch"]) == (2, 2, 2, 0)
    assert [(await market.state(ledger)).proven for ledger in ledgers] == [60, 60]


async def test_a_dead_prover_holds_the_epoch_and_says_so() -> None:
    """Everybody in it has the reason in `problems`; when it is back within the challenge's time, all are paid by that epoch."""
    market = World()
    ledgers = await due(market, 3)
    sent = counted(market)
    await market.settler.settle()
    market.prover.unavailable = True
    await market.settle(5)
    assert {"prover_unavailable" in market.settler.problems[ledger.job] for ledger in ledgers} == {True}
    market.prover.unavailable = False
    await market.settle()
    assert sent == {"epoch": 1, "prove_epoch": 1, "redeem_epoch": 1, "close": 3}
    assert await paid(market, ledgers) and market.settler.problems == {}


async def test_a_missed_challenge_costs_an_epoch_and_no_money() -> None:
    """The host slept for 300 blocks: the same sessions are committed again."""
    market = World()
    ledgers = await due(market, 3)
    sent = counted(market)
    await market.settler.settle()
    market.chain.mine(300)
    await market.settle()
    assert sent == {"epoch": 2, "prove_epoch": 1, "redeem_epoch": 1, "close": 3}
    assert await paid(market, ledgers)


async def test_an_epoch_that_no_log_knows_is_waited_out() -> None:
    """A restored backup: it cannot be answered, and after its time the next is committed. Nobody near a deadline waits with it."""
    market = World()
    await market.host.commit_epoch("unknown", Hash32(b"\x01" * 32), Tokens(5))
    ledgers = await due(market, 2)
    await market.settle(20)
    assert not await paid(market, ledgers)
    market.chain.mine(260)
    await market.settle()
    assert await paid(market, ledgers)


async def test_a_job_that_closes_meanwhile_stays_until_its_epoch_is_proven() -> None:
    """The challenge may fall to it: its records are kept. The others are paid, and then the book forgets it."""
    market = World()
    ledgers = await due(market, 3)
    await market.settler.settle()
    gone = ledgers[0]
    await market.renter.request_close("leave", gone.terms)
    await market.clock.advance(gone.terms.challenge)
    await market.renter.finalize("end", gone.terms)
    market.chain.mine()
    await market.settler.settle()
    assert market.book.get(gone.job) is gone
    market.chain.mine(3)
    await market.settle()
    assert await paid(market, ledgers[1:])
    assert market.book.ledgers() == ()


async def test_a_claim_that_is_refused_does_not_hold_up_the_others() -> None:
    """One job was closed between the look and the redemption: the batch is split, and the rest is paid at once."""
    market = World(redeem_above=BaseUnits(1))
    ledgers = [await market.job(served=30, signed=30, salt=n, finished=False, policy=REQUIRED) for n in range(1, 6)]
    for _ in range(4):
        await market.settler.settle()
        market.chain.mine()
    ended = False

    def end(key: str, phase: str) -> None:
        nonlocal ended
        if key.startswith("redeem_epoch:") and phase == "before" and not ended:
            ended = True
            closed = market.chain.ledger.market.jobs[ledgers[2].job]
            jobs = {**market.chain.ledger.market.jobs}
            jobs[ledgers[2].job] = type(closed)(closed.terms, replace(closed.state, closed=True))
            state = replace(market.chain.ledger.market, jobs=MappingProxyType(jobs))
            market.chain.ledger = replace(market.chain.ledger, market=state)

    market.chain.on_transaction = end
    await market.settle(3)
    assert ended
    signed = [(await market.state(ledger)).signed for ledger in ledgers]
    assert signed == [30, 30, 0, 30, 30]
