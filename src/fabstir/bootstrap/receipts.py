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
    for job in keeper.jobs():
        ledger = _ledger(config, job)
        if ledger is None:
            continue
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
        found.append(Kept(ledger=ledger, words=words, answers=answers, fault=fault))
    return tuple(found)


def export(config: Config, job: str, *, words: bool) -> ReceiptFile | SessionTranscript:
    """Of the job whose id begins so. Raises LocalFault (`transcript_missing`, `journal_missing`, `journal_unreadable`)."""
    keeper = keeper_of(config)
    found = [one for one in keeper.jobs() if to_hex(one).startswith(job.lower())]
    if len(found) != 1:
        raise error("transcript_missing", f"{len(found)} kept jobs begin with {job}" if found else f"job {job}")
    ledger = _ledger(config, found[0])
    if ledger is None:
        raise error("transcript_missing", f"job {to_hex(found[0])} is not in the journal of {config.renter.data_dir}")
    return keeper.transcript(ledger) if words else keeper.receipt(ledger)


def _ledger(config: Config, job: JobId) -> RenterLedger | None:
    with JournalReader(config.renter.data_dir / JOURNAL_FILE) as journal:
        stream = STREAM_PREFIX + job.hex()
        if stream not in journal.streams():
            return None
        try:
            with contextlib.closing(journal.events(stream)) as events:
                return RenterLedger.replay([decode_event(data) for data in events])
        except (msgspec.MsgspecError, ValueError) as unreadable:
            raise error("journal_unreadable", f"{journal.path}, {stream}: {unreadable}") from unreadable
