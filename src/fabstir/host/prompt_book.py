"""The host's book of prompt jobs: one ledger for each, rebuilt from the journal, and the only way to write to it.

Decides nothing; the planner does. After a write that failed nobody knows what is on the disk, so nothing more is written
before a restart has read it. Streams are named `prompt:<id in hexadecimal>`; events are `fabstir.protocol.prompt_log`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.prompts import PromptId
from fabstir.ports.journal import Journal
from fabstir.protocol.prompt_log import PromptEvent, PromptLedger, PromptSeen, decode_event, encode_event

STREAM_PREFIX: Final = "prompt:"


class PromptBook:
    """Memory: the ledgers of the jobs that are not forgotten, 32 bytes for each token of their answers."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ledgers: dict[PromptId, PromptLedger] = {}
        self.fault: FabstirError | None = None
        """Why writing fails; None while it works."""

    def __repr__(self) -> str:
        return f"<PromptBook {len(self._ledgers)} jobs, {self.fault.code if self.fault else 'ok'}>"

    async def restore(self) -> None:
        """Read every job. Raises LocalFault (`journal_failed`)."""
        for stream in await self._journal.streams():
            if not stream.startswith(STREAM_PREFIX):
                continue
            try:
                ledger = PromptLedger.replay([decode_event(data) for data in await self._journal.read(stream)])
            except (msgspec.MsgspecError, ValueError) as unreadable:
                raise error("journal_failed", f"{stream}: {unreadable}") from unreadable
            self._ledgers[ledger.prompt] = ledger

    def get(self, prompt: PromptId) -> PromptLedger | None:
        """The ledger of a job that this host claimed, or meant to."""
        return self._ledgers.get(prompt)

    def ledgers(self) -> tuple[PromptLedger, ...]:
        """Every job, oldest first."""
        return tuple(self._ledgers.values())

    def forget(self, prompt: PromptId) -> None:
        """Nothing more comes of it: only the journal remembers it."""
        self._ledgers.pop(prompt, None)

    async def open(self, seen: PromptSeen) -> PromptLedger:
        """The ledger of a job that is about to be claimed; a new one is stored first. Raises LocalFault (`journal_failed`)."""
        ledger = PromptLedger(seen)
        known = self._ledgers.get(ledger.prompt) or await self._forgotten(ledger.prompt)
        if known is not None:
            return known
        await self._append(ledger.prompt, seen)
        return self._ledgers.setdefault(ledger.prompt, ledger)

    async def record(self, ledger: PromptLedger, event: PromptEvent) -> None:
        """Write, then take in. Raises LocalFault (`journal_failed`)."""
        await self._append(ledger.prompt, event)
        ledger.apply(event)

    async def _forgotten(self, prompt: PromptId) -> PromptLedger | None:
        events = await self._journal.read(STREAM_PREFIX + prompt.hex())
        if not events:
            return None
        return self._ledgers.setdefault(prompt, PromptLedger.replay([decode_event(data) for data in events]))

    async def _append(self, prompt: PromptId, event: PromptEvent) -> None:
        if self.fault is not None:
            raise self.fault
        try:
            await self._journal.append(STREAM_PREFIX + prompt.hex(), [encode_event(event)])
        except FabstirError as fault:
            self.fault = fault
            raise
