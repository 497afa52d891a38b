"""The host's book: one ledger for each open job, rebuilt from the journal, and the only way to write to it.

Decides nothing about tokens or money; the cores do. It keeps memory and journal in step: after a write that failed
nobody knows what is on the disk, so that job's ledger is thrown away and read again before the job is served, and
nothing is admitted until writing works. Streams are named `job:<id in hexadecimal>`; events are
`fabstir.protocol.host_log`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import Terms
from fabstir.ports.journal import Journal
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.host_log import (
    DepositRaised,
    HostEvent,
    HostLedger,
    JobAdmitted,
    JobClosed,
    TurnEnded,
    decode_event,
    encode_event,
)

STREAM_PREFIX: Final = "job:"
PROBE_STREAM: Final = "probe"
"""Where recovery writes to learn whether writing works again."""
CLOSED_KEPT: Final = 1000
"""Summaries of closed jobs in memory; all of them are in the journal."""


def stream_of(job: JobId) -> str:
    """Name of the job's stream."""
    return STREAM_PREFIX + job.hex()


class ClosedJob(msgspec.Struct, frozen=True, kw_only=True):
    """What remains of a job once its contract paid out."""

    job: JobId
    terms: Terms
    deposit: BaseUnits
    served: Tokens
    acknowledged: Tokens
    owed: BaseUnits
    refund: BaseUnits
    reason: str
    at: float


class JobBook:
    """All jobs of this host.

    Memory: the ledgers of open jobs (about 80 bytes for each served token, until the job is closed) and CLOSED_KEPT summaries.
    """

    def __init__(self, journal: Journal) -> None:
        self.held: HeldRecords | None = None
        """What the records of open jobs were hashed from; the composition root puts it here where proofs open records."""
        self._journal = journal
        self._ledgers: dict[JobId, HostLedger] = {}
        self._locks: dict[JobId, asyncio.Lock] = {}
        self._suspect: set[JobId] = set()
        self._recovery = asyncio.Lock()
        self.fault: FabstirError | None = None
        """Why writing fails; None while it works."""
        self.closed: Final[deque[ClosedJob]] = deque(maxlen=CLOSED_KEPT)

    def __repr__(self) -> str:
        state = self.fault.code if self.fault else "ok"
        return f"<JobBook {state}: {len(self._ledgers)} open, {len(self._suspect)} to be read again>"

    # -- reading ---------------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Read every job. An answer that was cut off by the end of the last process is ended. Raises LocalFault (`journal_failed`)."""
        for stream in await self._journal.streams():
            if stream.startswith(STREAM_PREFIX):
                await self._load(stream)

    def get(self, job: JobId) -> HostLedger | None:
        """The ledger of an open job, if this host admitted it."""
        return self._ledgers.get(job)

    def ledgers(self) -> tuple[HostLedger, ...]:
        """Every open job, oldest first."""
        return tuple(self._ledgers.values())

    async def _load(self, stream: str) -> None:
        try:
            ledger = HostLedger.replay([decode_event(data) for data in await self._journal.read(stream)])
        except (msgspec.MsgspecError, ValueError) as unreadable:
            next_step = "Use the program that wrote it, or a copy of the journal that is whole."
            raise error("journal_failed", f"{stream}: {unreadable}", next_step) from unreadable
        if ledger.in_turn:
            ended = TurnEnded(ledger.message_index - 1, "host_restarted")
            await self._journal.append(stream, [encode_event(ended)])
            ledger.apply(ended)
        self._keep(ledger)

    # -- writing ---------------------------------------------------------------------------------------------------------

    async def admit(self, admitted: JobAdmitted) -> HostLedger:
        """The ledger of a job that was checked on chain: a new one is stored first, a changed deposit too."""
        ledger = HostLedger(admitted)
        known = self._ledgers.get(ledger.job)
        if known is None:
            await self._append(ledger.job, (admitted,))
            self._keep(ledger)
            return ledger
        if known.deposit < admitted.deposit:
            async with self.exclusive(known):
                await self.record(known, DepositRaised(admitted.deposit))
        return known

    async def adopt(self, events: Sequence[HostEvent]) -> HostLedger | None:
        """A job that was served elsewhere than in a session, whole, in one write; where its stream is there already, nothing is
        written. None where it is closed. Raises LocalFault (`journal_failed`)."""
        ledger = HostLedger.replay(list(events))
        if stream_of(ledger.job) not in await self._journal.streams():
            await self._append(ledger.job, events)
            self._keep(ledger)
        return self.get(ledger.job)

    @contextlib.asynccontextmanager
    async def exclusive(self, ledger: HostLedger) -> AsyncIterator[None]:
        """Between entering and leaving nobody else writes to this job, and what `ledger` says at entry is durable.

        Raises Refused (`job_closed`) where the book has closed it.
        """
        lock = self._locks.get(ledger.job)
        if lock is None:
            raise error("job_closed")
        async with lock:
            yield

    async def store(self, ledger: HostLedger, events: Sequence[HostEvent]) -> None:
        """Make durable what a session core has already taken into `ledger`. Inside `exclusive`. Raises as `record`."""
        self._require_current(ledger)
        await self._append(ledger.job, events)

    async def record(self, ledger: HostLedger, *events: HostEvent) -> None:
        """Write, then take in. Inside `exclusive`. Raises LocalFault (`journal_failed`), Refused (`job_closed`)."""
        self._require_current(ledger)
        await self._append(ledger.job, events)
        for event in events:
            ledger.apply(event)
        if ledger.closed:
            self._keep(ledger)

    async def recover(self) -> None:
        """After a failed write: try one, and read again what may be ahead of the disk. Raises LocalFault (`journal_failed`)."""
        async with self._recovery:
            if self.fault is None:
                return
            await self._journal.append(PROBE_STREAM, [b""])
            for job in sorted(self._suspect):
                if stream_of(job) in await self._journal.streams():
                    await self._load(stream_of(job))
                self._suspect.discard(job)
            self.fault = None

    async def _append(self, job: JobId, events: Sequence[HostEvent]) -> None:
        try:
            await self._journal.append(stream_of(job), [encode_event(event) for event in events])
        except FabstirError as fault:
            self.fault = fault
            self._suspect.add(job)
            self._ledgers.pop(job, None)
            raise

    def _require_current(self, ledger: HostLedger) -> None:
        if self._ledgers.get(ledger.job) is ledger:
            return
        if ledger.closed:
            raise error("job_closed")
        raise self.fault or error("journal_failed", "this job was read again after a failed write")

    def _keep(self, ledger: HostLedger) -> None:
        job = ledger.job
        if ledger.closed:
            self._ledgers.pop(job, None)
            self._locks.pop(job, None)
            if self.held is not None:
                self.held.forget(ledger.records)
            self.closed.append(_summary(ledger, ledger.closed))
        else:
            self._ledgers[job] = ledger
            self._locks.setdefault(job, asyncio.Lock())


def _summary(ledger: HostLedger, closed: JobClosed) -> ClosedJob:
    return ClosedJob(
        job=ledger.job,
        terms=ledger.terms,
        deposit=ledger.deposit,
        served=ledger.served,
        acknowledged=ledger.acknowledged,
        owed=closed.owed,
        refund=closed.refund,
        reason=ledger.finished,
        at=closed.at,
    )
