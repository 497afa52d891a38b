"""Several sessions of one host, a process on a devnet, settled by one epoch: one commitment, one ezkl proof, one redemption."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fabstir.bootstrap.renter import renter_market
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.keys import load_key
from fabstir.demo.accounts import host_ledgers, withdraw_all
from fabstir.domain.money import BaseUnits, fee_of
from fabstir.protocol.signing import SigningKey
from fabstir.renter.session import Session
from tests.host.world import eventually
from tests.scenarios.host_place import SETTLE_SECONDS, HostPlace, host_place, registered

pytestmark = [pytest.mark.real, pytest.mark.scenario]
SESSIONS = 3
COMMITTED = b"EpochCommitted(address,bytes32,uint32,uint256)"
PROVEN = b"EpochProven(address,bytes32,uint32,bytes32,bytes32,bytes32)"
REDEEMED = b"VoucherRedeemed(bytes32,uint96,uint32,bytes32)"
OWN_PROOF = b"ProofCommitted(bytes32,uint32,bytes32,uint256)"
DUE_AT_ONCE = 1


async def test_sessions_are_paid_by_one_proof_of_a_host_that_was_killed(tmp_path: Path) -> None:
    """Policy `required`, three running sessions. The host is killed with everything unpaid; when it is back all are due, it commits an
    epoch, and is killed before the block that draws the token. Back again it proves that same epoch and redeems all sessions in one
    transaction. Every session is paid what its renter signed, to the last unit, and nothing stays in the contract. On a busy machine one of
    the three may come too late for the epoch: then it alone is proven by itself."""
    async with host_place(tmp_path) as now, renter_market(now.renter) as market:
        account = SigningKey(load_key(now.renter.renter.key_file, chain_id=CHAIN_ID)).address
        had = await now.net.usdc_of(account)
        await now.host.start()
        await registered(market)
        sessions = [await market.start_session("tiny-chat") for _ in range(SESSIONS)]
        await asyncio.gather(*(_talk(session, 20 * n) for n, session in enumerate(sessions, 1)))
        await now.host.kill()
        now.configure("", redeem_above=DUE_AT_ONCE)
        await _commit_and_die(now)
        await now.host.start()

        async def redeemed() -> bool:
            return len(await now.events(now.net.info.market, REDEEMED)) == SESSIONS

        await eventually(redeemed, within=SETTLE_SECONDS)
        for session in sessions:
            await session.close()
        settled = [one for session in sessions for one in await session.settled(SETTLE_SECONDS)]
        await now.host.stop()
        ledgers = await host_ledgers(now.host.config)
        signed = {job.ledger.job: job.ledger.signed for session in sessions for job in session.jobs}
        assert {job: ledger.acknowledged for job, ledger in ledgers.items()} == signed
        owed = {job: BaseUnits(await now.owed(job)) for job in ledgers}
        assert owed == {job: ledger.amount(ledger.served) for job, ledger in ledgers.items()}
        assert len(owed) == SESSIONS and all(one.paid_out for one in settled)
        assert await _steps(now) in ((1, 1, 1, 0), (1, 1, 2, 1))
        assert await now.net.usdc_of(account) == had - sum(owed.values())
        withdrawn = await withdraw_all(now.renter, tmp_path / "host-a" / "key", tmp_path / "withdrawal")
        assert withdrawn == sum(amount - fee_of(amount) for amount in owed.values())
        fees = sum(fee_of(amount) for amount in owed.values())
        assert await now.net.usdc_of(now.net.info.market) == fees


async def _talk(session: Session, tokens: int) -> None:
    async for _ in session.prompt("Write about bees.", temperature=0.8, max_tokens=tokens):
        pass


async def _commit_and_die(now: HostPlace) -> None:
    """Blocks come one by one until the epoch's commitment is in one; then the host is killed, and only after that they go on."""
    await now.control.hold_blocks()
    await now.host.start()

    async def committed() -> bool:
        await now.control.mine()
        return bool(await now.events(now.net.info.epochs, COMMITTED))

    await eventually(committed, within=SETTLE_SECONDS)
    await now.host.kill()
    assert await now.events(now.net.info.epochs, PROVEN) == []
    await now.control.automine()
    await now.rpc.request("evm_setIntervalMining", 1)


async def _steps(now: HostPlace) -> tuple[int, int, int, int]:
    """Commitments and proofs of epochs, transactions that redeemed, proofs of single sessions."""
    info = now.net.info
    redemptions = {log["transactionHash"] for log in await now.events(info.market, REDEEMED)}
    return (
        len(await now.events(info.epochs, COMMITTED)), len(await now.events(info.epochs, PROVEN)), len(redemptions),
        len(await now.events(info.market, OWN_PROOF)),
    )  # fmt: skip
