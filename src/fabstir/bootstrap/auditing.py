"""A session checked by other hosts, from the settings; and the tolerance of a model that only the registry knows."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fabstir.bootstrap.renter import renter_market
from fabstir.domain.ids import ModelId, from_hex
from fabstir.domain.money import BaseUnits
from fabstir.engines.reexecution.tolerances import read_tolerance
from fabstir.ops.config import Config
from fabstir.protocol.transcript_file import check, read_transcript
from fabstir.renter.auditing import AuditReport


async def audit_session(config: Config, data: bytes, tolerance: Path | None, budget: int | None) -> AuditReport:
    """Check the file, then have it scored. Raises as `Auditor.audit`, and LocalFault (`tolerance_missing`, `tolerance_invalid`)."""
    transcript = read_transcript(data)
    if transcript.signed is not None:
        check(transcript)
    model = ModelId(from_hex(transcript.terms.model_id, 32))
    async with renter_market(config) as market:
        known = await asyncio.to_thread(read_tolerance, tolerance) if tolerance else await market.tolerance(model)
        return await market.auditor.audit(transcript, known, budget=None if budget is None else BaseUnits(budget))
