"""Checkpoints whose commitments only their own circuit can prove: what happens to them where the process lost what it needs."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs
from tests.host.settler_world import World

from fabstir.domain.money import Tokens
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.host_log import CheckpointClosed, CheckpointRenewed, HostLedger, SessionFinished
from fabstir.protocol.settlement import BLOCKHASH_WINDOW
from fabstir.testing.prover import CIRCUIT_ID


async def _paid(market: World, ledger: HostLedger) -> bool:
    state = await market.state(ledger)
    return state.closed and state.owed == ledger.amount(ledger.acknowledged)


async def _finish(market: World, ledger: HostLedger) -> None:
    async with market.book.exclusive(ledger):
        await market.book.record(ledger, SessionFinished("ended by the renter"))


async def test_what_is_held_is_proven_by_its_own_circuit() -> None:
    """Nothing is made again, nothing is said, the host is paid."""
    market = World(own=b"own")
    ledger = await market.job(served=300, signed=300, policy=ProofPolicy.REQUIRED)
    with capture_logs() as logs:
        await market.settle()
    assert await _paid(market, ledger)
    assert market.settler.proven_weaker() == 0 and not any(row["event"] == "proof_weaker" for row in logs)
    assert not any(isinstance(event, CheckpointRenewed) for event in await market.events(ledger))


@pytest.mark.parametrize("salts", [(1,), (1, 2, 3)])
async def test_what_was_lost_before_a_tree_is_committed_is_made_again(salts: tuple[int, ...]) -> None:
    """A restart between a checkpoint and the end of its session, of one job and of several that settle in one epoch: the checkpoint is
    committed for the weaker circuit, the log says so with the reason, and all is paid."""
    market = World(own=b"own")
    for salt in salts:
        await market.job(served=300, signed=300, finished=False, salt=salt, policy=ProofPolicy.REQUIRED)
    await market.settle(1)
    await market.restart()
    market.prover.forgetful = True
    ledgers = market.book.ledgers()
    assert [len(ledger.checkpoints) for ledger in ledgers] == [1] * len(salts)
    for ledger in ledgers:
        await _finish(market, ledger)
    with capture_logs() as logs:
        await market.settle()
    said = [row for row in logs if row["event"] == "proof_weaker"]
    assert {row["job_id"] for row in said} == {ledger.job for ledger in ledgers} and len(said) == len(salts)
    assert {row["reason"] for row in said} == {"forgotten by the test"}
    for ledger in ledgers:
        assert await _paid(market, ledger)
        events = await market.events(ledger)
        assert [event.index for event in events if isinstance(event, CheckpointRenewed)] == [0]


@pytest.mark.parametrize("salts", [(1,), (1, 2)])
async def test_what_is_lost_while_it_is_challenged_waits_for_the_end_of_the_challenge(salts: tuple[int, ...]) -> None:
    """Until then there is a reason in health and no transaction; then it is committed again, for the weaker circuit, and paid."""
    market = World(own=b"own")
    ledgers = [await market.job(served=30, signed=30, salt=salt, policy=ProofPolicy.REQUIRED) for salt in salts]
    await market.settle(1)
    market.prover.forgetful = True
    await market.settle(10)
    assert {job: said.split(":")[0] for job, said in market.settler.problems.items()} == dict.fromkeys(
        (ledger.job for ledger in ledgers), "proof_failed"
    )
    for _ in range(BLOCKHASH_WINDOW):
        market.chain.mine()
    await market.settle()
    assert market.settler.problems == {}
    for ledger in ledgers:
        assert await _paid(market, ledger)


async def test_a_part_that_is_lost_does_not_weaken_the_rest() -> None:
    """Checkpoints that can be opened stay as they are; only the one that cannot be proven any more is another."""
    market = World(own=b"own")
    ledger = await market.job(served=300, signed=300, finished=False)
    market.prover.forgetful = True
    await market.settle(1)
    market.prover.forgetful = False
    await _finish(market, ledger)
    await market.settle()
    assert await _paid(market, ledger)
    closed = [event for event in await market.events(ledger) if isinstance(event, CheckpointClosed)]
    own = [market.prover.commit(ledger.records_between(first, size)) for first, size in ((0, 256), (256, 44))]
    assert [event.commitment == (await made).digest for event, made in zip(closed, own, strict=True)] == [False, True]
    assert [event.tokens for event in closed] == [Tokens(256), Tokens(44)] and market.prover.circuit_id == CIRCUIT_ID
