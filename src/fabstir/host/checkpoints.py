"""Closes a job's checkpoints, and makes those again that cannot be proven any more.

A circuit that opens what was served commits to it when the checkpoint closes; what is committed so can be proven by no other circuit. So
before a tree is committed on chain, every checkpoint in it is one that can be proven: where a process that started again, or has dropped
what it held, cannot, the records in the journal are committed once more, by the weaker circuit. Trees that were committed before keep the
checkpoints that they had (`HostLedger.committed`). Decides nothing about when.
"""

from __future__ import annotations

from typing import Final

from fabstir.host.jobs import JobBook
from fabstir.host.proving import Proving
from fabstir.ops.metrics import Metrics
from fabstir.ports.prover import Commitment, Prover
from fabstir.protocol.host_log import CheckpointClosed, CheckpointRenewed, HostLedger
from fabstir.protocol.settlement_plan import CloseCheckpoint


class Checkpoints:
    """Part of the settler; holds nothing."""

    def __init__(self, book: JobBook, prover: Prover, proving: Proving) -> None:
        self._book: Final = book
        self._prover: Final = prover
        self._proving: Final = proving

    async def close(self, ledger: HostLedger, action: CloseCheckpoint, metrics: Metrics) -> None:
        """The next checkpoint, in the log. Raises LocalFault (`prover_unavailable`, `journal_failed`)."""
        made = await self._prover.commit(ledger.records_between(action.first, action.tokens))
        async with self._book.exclusive(ledger):
            if ledger.checkpointed != action.first:
                return
            await self._book.record(ledger, CheckpointClosed(made.digest, made.opening, action.tokens))
        self._tell(ledger, made, metrics)

    async def renew(self, ledger: HostLedger, metrics: Metrics) -> None:
        """Make again what cannot be proven. Raises as `close`."""
        first = 0
        for index, checkpoint in enumerate(tuple(ledger.checkpoints)):
            records = ledger.records_between(first, checkpoint.tokens)
            first += checkpoint.tokens
            if await self._prover.provable(checkpoint.commitment, records):
                continue
            made = await self._prover.commit(records)
            async with self._book.exclusive(ledger):
                await self._book.record(ledger, CheckpointRenewed(index, made.digest, made.opening))
            self._tell(ledger, made, metrics)

    def _tell(self, ledger: HostLedger, made: Commitment, metrics: Metrics) -> None:
        if made.weaker:
            self._proving.committed_weaker(ledger.job, made.weaker, metrics)
