"""Answers renters who ask this host to attest itself: ties the host, its key and its model to their nonce, and has that quoted.

Decides how many may wait. Never verifies: a host's opinion of itself is worth nothing. Where no provider is configured there is no
Attester, and the API refuses with `attestation_off`. Specification: docs/explanation/attestation.md.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.ports.attestation import QuoteProvider
from fabstir.protocol.attestation import AttestationClaim, Binding

WAITING: Final = 16
"""A quote keeps the platform's quoting enclave busy for milliseconds, and anybody may ask: more than so many at once are refused."""


class Attester:
    """One quote at a time. Memory: `WAITING` callers."""

    def __init__(self, provider: QuoteProvider, host: Address, key: Hash32, model_id: ModelId) -> None:
        self._provider = provider
        self._host, self._key, self._model_id = host, key, model_id
        self._turn = asyncio.Lock()
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Attester {self._provider.format.value} waiting={self._waiting}>"

    async def claim(self, nonce: Hash32) -> AttestationClaim:
        """What this host says of itself, with a quote. Raises Refused (`capacity`), LocalFault (`attestation_unavailable`)."""
        if self._waiting >= WAITING:
            raise error("capacity", f"{WAITING} renters wait for attestations")
        binding = Binding(
            format=self._provider.format, host=self._host, key=self._key, model_id=self._model_id, nonce=nonce
        )
        self._waiting += 1
        try:
            async with self._turn:
                return AttestationClaim(binding=binding, quote=await self._provider.quote(binding.report_data))
        finally:
            self._waiting -= 1
