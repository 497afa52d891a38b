"""What this renter keeps of its sessions, read beside whoever runs: no lock, no chain, no key."""

from __future__ import annotations

import contextlib

import msgspec

from fabstir.bootstrap.renter import keeper_of
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import JobId, to_hex
from fabstir.ops.config import Config
from fabstir.protocol.renter_log import RenterLedger, decode_event
from fabstir.protocol.transcript_file import ReceiptFile, SessionTranscript, check
from fabstir.renter.jobs import STREAM_PREFIX
from fabstir.renter.keeping import Keeper
from fabstir.storage.journal import JOURNAL_FILE
from fabstir.storage.reader import JournalReader


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One session of which something is kept."""

    ledger: RenterLedger
    words: bool
    answers: int
    fault: str
    """Why its receipt does not hold together; "" where it does."""


def list_kept(config: Config) -> tuple[Kept, ...]:
    """Oldest first; of this journal's jobs only. Raises LocalFault (`journal_missing`, `journal_unreadable`)."""
    keeper, found = keeper_of(config), []
    with JournalReader(config.renter.data_dir / JOURNAL_FILE) as journal:
        streams = frozenset(journal.streams())
        for job in keeper.jobs():
            if STREAM_PREFIX + job.hex() in streams:
                found.append(_kept(keeper, _ledger(journal, job)))
    return tuple(found)


def _kept(keeper: Keeper, ledger: RenterLedger) -> Kept:
    words, fault, answers = True, "", 0
    try:
        receipt = keeper.receipt(ledger)
        answers = len(receipt.turns)
        check(receipt)
    except FabstirError as problem:
        fault = problem.detail
    try:
        keeper.transcript(ledger)
    except FabstirError:
        words = False
    return Kept(ledger=ledger, words=words, answers=answers, fault=fault)


def export(config: Config, job: str, *, words: bool) -> ReceiptFile | SessionTranscript:
    """Of the job whose id begins so. Raises LocalFault (`transcript_missing`, `journal_missing`, `journal_unreadable`)."""
    keeper = keeper_of(config)
    found = [one for one in keeper.jobs() if to_hex(one).startswith(job.lower())]
    if len(found) != 1:
        raise error("transcript_missing", f"{len(found)} kept jobs begin with {job}" if found else f"job {job}")
    with JournalReader(config.renter.data_dir / JOURNAL_FILE) as journal:
        if STREAM_PREFIX + found[0].hex() not in journal.streams():
            what = f"job {to_hex(found[0])} is not in the journal of {config.renter.data_dir}"
            raise error("transcript_missing", what)
        ledger = _ledger(journal, found[0])
    return keeper.transcript(ledger) if words else keeper.receipt(ledger)


def _ledger(journal: JournalReader, job: JobId) -> RenterLedger:
    stream = STREAM_PREFIX + job.hex()
    try:
        with contextlib.closing(journal.events(stream)) as events:
            return RenterLedger.replay([decode_event(data) for data in events])
    except (msgspec.MsgspecError, ValueError) as unreadable:
        raise error("journal_unreadable", f"{journal.path}, {stream}: {unreadable}") from unreadable
