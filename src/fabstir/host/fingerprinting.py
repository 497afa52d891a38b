"""Fingerprints of answers that are over, one answer after the other, behind whatever is served meanwhile.

Decides what is left out: what would wait behind CAPACITY others, or takes longer than its deadline, is dropped with a line in the log,
since no answer may wait for it. Makes nothing itself and signs nothing; that is the engine's and the core's business.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import JobId
from fabstir.ports.fingerprints import Fingerprinter
from fabstir.protocol.effects import RunFingerprints

log = structlog.get_logger()

CAPACITY: Final = 32
"""Answers of all sessions that wait or are read."""
DEADLINE_SECONDS: Final = 60.0
"""From the end of an answer on."""


class Fingerprinting:
    """What all sessions of a host share. Memory: the words and tokens of CAPACITY answers, which their sessions hold anyway."""

    def __init__(self, maker: Fingerprinter, *, deadline: float = DEADLINE_SECONDS) -> None:
        self._maker = maker
        self._deadline = deadline
        self._one = asyncio.Lock()
        self._held = 0

    def __repr__(self) -> str:
        return f"<Fingerprinting {self._held} answers of {CAPACITY}>"

    async def make(self, job: JobId, run: RunFingerprints) -> tuple[bytes, ...] | None:
        """Those of one answer; None where they were dropped."""
        if self._held >= CAPACITY:
            _dropped(job, run, f"{CAPACITY} answers wait already")
            return None
        self._held += 1
        try:
            async with asyncio.timeout(self._deadline), self._one:
                return await self._maker.fingerprints(run.messages, run.prefix, run.answer)
        except TimeoutError:
            _dropped(job, run, f"not made within {self._deadline:g} s")
        except FabstirError as fault:
            _dropped(job, run, f"{fault.code}: {fault.detail}")
        finally:
            self._held -= 1
        return None


def _dropped(job: JobId, run: RunFingerprints, why: str) -> None:
    log.warning("fingerprints_dropped", job_id=job, message_index=run.of.message_index, reason=why)
