"""Looks for a deposit that a renter says it raised: our RPC endpoint may be behind the renter's.

Reads the chain a few times with growing pauses and takes what it finds; never believes the renter.
"""

from __future__ import annotations

from typing import Final

from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits
from fabstir.ports.chain import MarketChain
from fabstir.ports.clock import Clock

PAUSES: Final = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Seconds before each look."""


class DepositWatch:
    """Of one job."""

    def __init__(self, chain: MarketChain, clock: Clock, job: JobId) -> None:
        self._chain = chain
        self._clock = clock
        self._job = job

    async def find(self, known: BaseUnits) -> BaseUnits:
        """The deposit once it is above `known`, or `known` where it does not rise. Raises ChainFault."""
        found = known
        for pause in PAUSES:
            await self._clock.sleep(pause)
            found = (await self._chain.job(self._job)).deposit
            if found > known:
                break
        return max(found, known)
