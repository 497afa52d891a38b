"""A session checked by other hosts, from the settings."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fabstir.bootstrap.parts import TINY_REPOSITORY
from fabstir.bootstrap.renter import renter_market
from fabstir.domain.errors import error
from fabstir.domain.ids import ModelId, from_hex, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.tolerances import read_tolerance, tolerance_for
from fabstir.models.identity import identify
from fabstir.ops.config import Config
from fabstir.protocol.audit import Tolerance
from fabstir.protocol.transcript_file import check, read_transcript
from fabstir.renter.auditing import AuditReport


async def audit_session(config: Config, data: bytes, tolerance: Path | None, budget: int | None) -> AuditReport:
    """Check the file, then have it scored. Raises as `Auditor.audit`, and LocalFault (`tolerance_missing`, `tolerance_invalid`)."""
    transcript = read_transcript(data)
    if transcript.signed is not None:
        check(transcript)
    model = ModelId(from_hex(transcript.terms.model_id, 32))
    known = await asyncio.to_thread(_tolerance, model, tolerance)
    async with renter_market(config) as market:
        return await market.auditor.audit(transcript, known, budget=None if budget is None else BaseUnits(budget))


def _tolerance(model: ModelId, file: Path | None) -> Tolerance:
    """From the file, whose weights nobody can compare here; or that of the model that ships."""
    if file is not None:
        return read_tolerance(file)
    shipped = identify(default_model(), TINY_REPOSITORY)
    if shipped.model_id != model:
        raise error("tolerance_missing", f"model {to_hex(model)}")
    return tolerance_for(shipped.sha256)
