"""The demo's books: what each session came to, and whether money was conserved to the last unit.

Every number comes from where it is kept: the chain, the hosts' journals, the renter's journal. None is assumed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from fabstir.bootstrap.parts import connect_chain, open_journal
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.keys import load_key
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.ids import Address, JobId, to_hex
from fabstir.domain.money import BaseUnits, fee_of
from fabstir.ops.config import Config
from fabstir.ops.settings import load
from fabstir.ports.chain import ChainInfo
from fabstir.ports.clock import Clock
from fabstir.protocol.host_log import HostLedger, decode_event
from fabstir.renter.answer import AnswerReport

STREAM_PREFIX: Final = "job:"


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One job, settled. Money in base units of USDC."""

    job: str
    host: str
    tokens_served: int
    tokens_acknowledged: int
    tokens_proven: int
    deposit: int
    paid: int
    """Host's part and fee together."""
    fee: int
    refund: int
    gas: int
    """Of every transaction about this job."""
    proof_valid: bool
    ttft_ms: float
    tokens_per_s: float
    prove_s: float

    @property
    def holds(self) -> bool:
        """Everything that was acknowledged is proven and paid, and nothing was served that is not within W of it."""
        return self.proof_valid and self.paid > 0 and self.deposit == self.paid + self.refund


class Conservation(msgspec.Struct, frozen=True, kw_only=True):
    """What went in and what came out, in base units."""

    renter_paid: int
    """What the renter's account has less than before."""
    hosts_withdrew: int
    treasury_withdrew: int
    left_in_contract: int

    @property
    def holds(self) -> bool:
        """To the last unit."""
        return self.left_in_contract == 0 and self.renter_paid == self.hosts_withdrew + self.treasury_withdrew


async def host_ledgers(config_file: Path) -> dict[JobId, HostLedger]:
    """What a stopped host wrote down."""
    config = load(config_file, {})
    journal = open_journal(config.host.data_dir, CHAIN_ID)
    try:
        ledgers = [
            HostLedger.replay([decode_event(data) for data in await journal.read(stream)])
            for stream in await journal.streams()
            if stream.startswith(STREAM_PREFIX)
        ]
    finally:
        await journal.close()
    return {ledger.job: ledger for ledger in ledgers}


async def withdraw_all(config: Config, key_file: Path, directory: Path) -> BaseUnits:
    """Let the account of `key_file` take out what the market owes it; returns how much that was."""
    journal = open_journal(directory, CHAIN_ID)
    try:
        chain = await connect_chain(config, load_key(key_file, chain_id=CHAIN_ID), journal)
        try:
            owed = await chain.earnings(chain.info.usdc, chain.account)
            if owed:
                await chain.withdraw("demo:withdraw", chain.info.usdc, chain.account)
            return owed
        finally:
            await chain.close()
    finally:
        await journal.close()


async def gas_of(rpc_url: str, info: ChainInfo, job: JobId, clock: Clock) -> int:
    """Gas of every transaction that left an event about `job`."""
    rpc = JsonRpc([rpc_url], clock)
    try:
        query = {"address": to_hex(info.market), "fromBlock": "0x0", "topics": [None, to_hex(job)]}
        logs: list[dict[str, Any]] = await rpc.request("eth_getLogs", query)
        gas = 0
        for transaction in {log["transactionHash"] for log in logs}:
            gas += int((await rpc.request("eth_getTransactionReceipt", transaction))["gasUsed"], 16)
        return gas
    finally:
        await rpc.close()


def session_row(ledger: HostLedger, proven: int, gas: int, answers: list[AnswerReport], host: Address) -> SessionRow:
    """One line of the table, from the host's log of a closed job and the renter's view of its answers."""
    closed, voucher = ledger.closed, ledger.voucher
    paid = closed.owed if closed else BaseUnits(0)
    own = [answer for answer in answers if answer.hosts == (host,)]
    times = [answer.ttft_s for answer in own if answer.ttft_s is not None]
    speeds = [answer.tokens_per_s for answer in own]
    return SessionRow(
        job=to_hex(ledger.job),
        host=to_hex(host),
        tokens_served=ledger.served,
        tokens_acknowledged=ledger.acknowledged,
        tokens_proven=proven,
        deposit=ledger.deposit,
        paid=paid,
        fee=fee_of(paid),
        refund=closed.refund if closed else 0,
        gas=gas,
        proof_valid=voucher is not None and proven >= voucher.tokens and bool(ledger.proofs),
        ttft_ms=round(1000 * min(times), 2) if times else 0.0,
        tokens_per_s=round(max(speeds), 1) if speeds else 0.0,
        prove_s=round(sum(proof.prove_seconds for proof in ledger.proofs), 3),
    )
