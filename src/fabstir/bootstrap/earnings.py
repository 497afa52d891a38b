"""Reads what a host earned from its journal, without the host: no lock, no chain, no key. Decides nothing; the accounts
are `fabstir.protocol.earnings`."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from fabstir.domain.errors import error
from fabstir.host.jobs import STREAM_PREFIX
from fabstir.protocol.earnings import Entry, entries_of
from fabstir.protocol.host_log import decode_event
from fabstir.storage.journal import JOURNAL_FILE
from fabstir.storage.reader import JournalReader


def read_earnings(data_dir: Path) -> list[Entry]:
    """The entries of every job in the journal of `data_dir`, one job at a time, oldest first.

    Raises LocalFault (`journal_missing`, `journal_unreadable`).
    """
    found: list[Entry] = []
    with JournalReader(data_dir / JOURNAL_FILE) as journal:
        for stream in journal.streams():
            if not stream.startswith(STREAM_PREFIX):
                continue
            try:
                with contextlib.closing(journal.events(stream)) as events:
                    found += entries_of(map(decode_event, events))
            except (msgspec.MsgspecError, ValueError) as unreadable:
                detail = f"{journal.path}, {stream}: {unreadable}"
                raise error("journal_unreadable", detail) from unreadable
    return found
