"""The book of jobs: memory and journal never disagree, whatever fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.host.world import MARKET, FailingDisk, some_terms

from fabstir.domain.errors import LocalFault, Refused, error
from fabstir.domain.ids import Hash32
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.host import jobs
from fabstir.host.jobs import JobBook, stream_of
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.host_log import (
    HostEvent,
    HostLedger,
    JobAdmitted,
    JobClosed,
    SessionFinished,
    TokensServed,
    TurnEnded,
    TurnStarted,
    decode_event,
    encode_event,
)
from fabstir.testing.journal import MemoryJournal

DIGEST = bytes(32)


def _admitted(**terms: Any) -> JobAdmitted:
    return JobAdmitted(some_terms(**terms), BaseUnits(1_000), MARKET, 1.0)


async def _events(journal: MemoryJournal, ledger: HostLedger) -> list[HostEvent]:
    return [decode_event(data) for data in await journal.read(stream_of(ledger.job))]


async def _reopened(journal: MemoryJournal) -> JobBook:
    book = JobBook(journal.reopen())
    await book.restore()
    return book


async def test_a_job_is_on_the_disk_before_it_is_in_the_book() -> None:
    """Its first event is stored at admission; the same job again is the same ledger."""
    journal = MemoryJournal()
    book = JobBook(journal)
    admitted = _admitted()
    ledger = await book.admit(admitted)
    assert await _events(journal, ledger) == [admitted]
    assert await book.admit(admitted) is ledger is book.get(ledger.job)
    assert journal.writes == 1


async def test_a_changed_deposit_is_taken_in() -> None:
    """What the chain says at admission counts, and is remembered."""
    journal = MemoryJournal()
    book = JobBook(journal)
    first = _admitted()
    ledger = await book.admit(first)
    await book.admit(JobAdmitted(first.terms, BaseUnits(5_000), MARKET, 2.0))
    assert ledger.deposit == 5_000
    restored = (await _reopened(journal)).get(ledger.job)
    assert restored is not None and restored.deposit == 5_000


async def test_records_are_forgotten_with_their_job() -> None:
    """What digests were made of is held while a proof may open it: until the job is closed, and not a moment longer."""
    book, preimage = JobBook(MemoryJournal()), b"preimage"
    book.held = HeldRecords()
    book.held.keep(DIGEST, preimage)
    ledger = await book.admit(_admitted())
    async with book.exclusive(ledger):
        await book.record(ledger, TokensServed(DIGEST))
        assert book.held.find(DIGEST) == preimage
        await book.record(ledger, JobClosed(BaseUnits(1), BaseUnits(999), 9.0))
    assert book.held.find(DIGEST) is None


async def test_an_answer_that_the_last_process_did_not_end_is_ended() -> None:
    """Once, at the first start after it; what was served of it stays served."""
    journal = MemoryJournal()
    book = JobBook(journal)
    ledger = await book.admit(_admitted())
    async with book.exclusive(ledger):
        await book.record(ledger, TurnStarted(0, Hash32(DIGEST)), TokensServed(DIGEST * 3))
    journal = journal.reopen()
    for _ in range(2):
        book = JobBook(journal)
        await book.restore()
        restored = book.get(ledger.job)
        assert restored is not None and (restored.in_turn, restored.served, restored.message_index) == (False, 3, 1)
    ends = [event for event in await _events(journal, ledger) if isinstance(event, TurnEnded)]
    assert ends == [TurnEnded(0, "host_restarted")]


async def test_closed_jobs_become_summaries() -> None:
    """Their records leave the memory, at once and at every later start; nothing can be written to them any more."""
    journal = MemoryJournal()
    book = JobBook(journal)
    ledger, other = await book.admit(_admitted()), await book.admit(_admitted())
    async with book.exclusive(ledger):
        await book.record(ledger, TokensServed(DIGEST * 5), SessionFinished("ended by the renter"))
        await book.record(ledger, JobClosed(BaseUnits(1), BaseUnits(999), 9.0))
    for kept in (book, await _reopened(journal)):
        assert kept.ledgers() == (other,) or [left.job for left in kept.ledgers()] == [other.job]
        (summary,) = kept.closed
        assert (summary.job, summary.served, summary.acknowledged) == (ledger.job, 5, 0)
        assert (summary.owed, summary.refund, summary.reason) == (1, 999, "ended by the renter")
    with pytest.raises(Refused, match="job_closed"):
        await book.record(ledger, SessionFinished("again"))
    with pytest.raises(Refused, match="job_closed"):
        async with book.exclusive(ledger):
            pass


async def test_old_summaries_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that runs for years does not remember every job in memory."""
    monkeypatch.setattr(jobs, "CLOSED_KEPT", 2)
    book = JobBook(MemoryJournal())
    ledgers = [await book.admit(_admitted()) for _ in range(3)]
    for ledger in ledgers:
        async with book.exclusive(ledger):
            await book.record(ledger, JobClosed(BaseUnits(0), BaseUnits(1_000), 9.0))
    assert [summary.job for summary in book.closed] == [ledger.job for ledger in ledgers[1:]]


async def test_after_a_failed_write_memory_is_read_again_from_the_disk() -> None:
    """What a core had taken in and the disk had not is gone; the job is not served from memory meanwhile; others stay."""
    disk = FailingDisk()
    journal = MemoryJournal(disk.hook)
    book = JobBook(journal)
    ledger, other = await book.admit(_admitted()), await book.admit(_admitted())
    disk.fails = True
    served = TokensServed(DIGEST)
    ledger.apply(served)  # as a core does before it asks for the write
    with pytest.raises(LocalFault, match="disk full"):
        await book.store(ledger, (served,))
    assert book.fault is not None and book.ledgers() == (other,)
    with pytest.raises(LocalFault, match="disk full"):
        await book.recover()
    disk.fails = False
    await book.recover()
    again = book.get(ledger.job)
    assert book.fault is None and again is not None and again is not ledger and again.served == 0
    with pytest.raises(LocalFault, match="read again"):
        await book.store(ledger, (served,))  # the old ledger is nobody's any more


async def test_a_write_that_failed_after_it_was_made_counts() -> None:
    """The disk decides what happened, not the answer that got lost."""

    def lose_the_answer(_number: int, phase: str) -> None:
        if broken and phase == "after":
            raise error("journal_failed", "no answer")

    broken = False
    journal = MemoryJournal(lose_the_answer)
    book = JobBook(journal)
    ledger = await book.admit(_admitted())
    broken = True
    with pytest.raises(LocalFault):
        await book.record(ledger, TokensServed(DIGEST))
    broken = False
    await book.recover()
    again = book.get(ledger.job)
    assert again is not None and again.served == 1


async def test_a_job_whose_admission_failed_is_unknown_afterwards() -> None:
    """Nothing was promised, nothing is left."""
    disk = FailingDisk()
    book = JobBook(MemoryJournal(disk.hook))
    admitted = _admitted()
    disk.fails = True
    with pytest.raises(LocalFault):
        await book.admit(admitted)
    disk.fails = False
    await book.recover()
    assert book.ledgers() == ()
    assert (await book.admit(admitted)).served == 0


async def test_one_writer_at_a_time_for_each_job() -> None:
    """Inside `exclusive` what the ledger says is durable, because nobody is between memory and disk; other jobs go on."""
    book = JobBook(MemoryJournal())
    ledger, other = await book.admit(_admitted()), await book.admit(_admitted())
    order: list[str] = []

    async def second() -> None:
        async with book.exclusive(ledger):
            order.append("second")

    async with book.exclusive(ledger):
        waiting = asyncio.create_task(second())
        async with book.exclusive(other):
            await asyncio.sleep(0)
            order.append("first")
    await waiting
    assert order == ["first", "second"]


async def test_a_log_that_cannot_be_read_stops_the_start() -> None:
    """With the stream's name, rather than forgetting a job and its money."""
    for data in (b"\xc1", encode_event(TokensServed(DIGEST))):
        journal = MemoryJournal()
        await journal.append("job:" + "0" * 64, [data])
        with pytest.raises(LocalFault, match="journal_failed.*job:0000"):
            await JobBook(journal).restore()


async def test_other_streams_are_left_alone() -> None:
    """The journal also holds what is no job."""
    journal = MemoryJournal()
    await journal.append("something", [b"else"])
    book = JobBook(journal)
    await book.restore()
    assert book.ledgers() == () and Tokens(0) == 0
