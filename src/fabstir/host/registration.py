"""Keeps the host's entry in `NodeRegistry` what it should be: reads it first, and sends a transaction only where it
differs.

The intent's key names both the entry that is there and the one that is wanted, so that a restart in the middle sends
nothing twice, and going back to earlier values still sends. Never gives up while the node runs: what is wrong is in
`state`, which health shows.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ModelId, to_hex
from fabstir.domain.money import PricePerMTok
from fabstir.ports.chain import HostEntry, MarketChain
from fabstir.ports.clock import Clock

RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses after failures; the last one repeats."""
MAX_ROUNDS: Final = 16
"""Times that the same change of the entry was made before (each is skipped by its key at no cost)."""

Models = tuple[tuple[ModelId, PricePerMTok], ...]

log = structlog.get_logger()


class Registration:
    """Of one host, under one URL."""

    def __init__(self, chain: MarketChain, clock: Clock, url: str, models: Models) -> None:
        self._chain = chain
        self._clock = clock
        self._url = url
        self._models = models
        self.state = "not registered yet"
        """`ok`, or what is wrong."""

    def __repr__(self) -> str:
        return f"<Registration {self._url}: {self.state}>"

    async def run(self) -> None:
        """Return once the registry says what it should. Faults are waited out."""
        failures = 0
        while True:
            try:
                await self._once()
            except FabstirError as fault:
                self.state = str(fault)
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                log.warning("registration_failed", code=fault.code, detail=fault.detail, retry_in_s=pause)
                failures += 1
                await self._clock.sleep(pause)
            else:
                self.state = "ok"
                return

    async def _once(self) -> None:
        for round_ in range(MAX_ROUNDS):
            present = await self._entry()
            if present is not None and present.active and (present.url, present.models) == (self._url, self._models):
                return
            sent = await self._chain.register_host(self._key(present, round_), self._url, self._models)
            log.info("host_registered", url=self._url, tx_hash=sent.hash, block=sent.block)
        raise error("chain_failed", "the registry does not show what was registered")

    async def _entry(self) -> HostEntry | None:
        account = self._chain.account
        return next((entry for entry in await self._chain.hosts() if entry.address == account), None)

    def _key(self, present: HostEntry | None, round_: int) -> str:
        before = (present.url, present.models) if present is not None and present.active else None
        change = msgspec.msgpack.encode((before, (self._url, self._models)))
        return f"register:{to_hex(sha256(change).digest()[:16])}:{round_}"
