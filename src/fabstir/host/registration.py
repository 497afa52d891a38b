"""Keeps the host's stake and its entry in `NodeRegistry` what they should be: reads first, and sends a transaction only
where something differs. Without the minimum staked nothing can be registered (`stake_missing`).

The intent's key names both the entry that is there and the one that is wanted, so that a restart in the middle sends
nothing twice, and going back to earlier values still sends. Never gives up while the node runs: what is wrong is in
`state`, which health shows.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.ports.chain import NO_KEY, HostEntry, MarketChain, RegisteredOffer
from fabstir.ports.clock import Clock

RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses after failures; the last one repeats."""
MAX_ROUNDS: Final = 16
"""Times that the same change of the entry was made before (each is skipped by its key at no cost)."""

Offers = tuple[RegisteredOffer, ...]

log = structlog.get_logger()


class Registration:
    """Of one host, under one URL."""

    def __init__(
        self,
        chain: MarketChain,
        clock: Clock,
        url: str,
        offers: Offers,
        *,
        stake: BaseUnits = BaseUnits(0),  # noqa: B008 - an integer
        encryption_key: Hash32 = NO_KEY,
    ) -> None:
        """`stake`: topped up to so much at the start; 0 leaves the stake alone."""
        self._chain = chain
        self._clock = clock
        self._wanted = (url, encryption_key, offers)
        self._stake = stake
        self._changed = asyncio.Event()
        self.state = "not registered yet"
        """`ok`, or what is wrong."""

    def __repr__(self) -> str:
        return f"<Registration {self._wanted[0]}: {self.state}>"

    def want(self, offers: Offers) -> None:
        """Other offers, under the same URL."""
        url, encryption_key, before = self._wanted
        if offers != before:
            self._wanted, self.state = (url, encryption_key, offers), "not registered yet"
            self._changed.set()

    async def keep(self) -> None:
        """`run`, and again whenever something else is wanted. Until cancelled."""
        while True:
            self._changed.clear()
            await self.run()
            await self._changed.wait()

    async def run(self) -> None:
        """Return once the registry says what it should. Faults are waited out."""
        failures = 0
        while True:
            try:
                await self._keep_stake()
                await self._keep_entry()
            except FabstirError as fault:
                self.state = str(fault)
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                log.warning("registration_failed", code=fault.code, detail=fault.detail, retry_in_s=pause)
                failures += 1
                await self._clock.sleep(pause)
            else:
                self.state = "ok"
                return

    async def _keep_stake(self) -> None:
        rules, kept = await self._chain.stake_rules(), await self._kept_stake()
        for round_ in range(MAX_ROUNDS):
            missing = BaseUnits(self._stake - kept)
            if missing <= 0:
                break
            seen_at = await self._chain.block_number()
            key = f"stake:{kept}:{missing}:{round_}"
            await self._chain.approve_stake(f"{key}:approve", missing)
            sent = await self._chain.add_stake(key, missing)
            log.info("host_staked", amount=missing, tx_hash=sent.hash, block=sent.block)
            # an old block: it is the top-up of an earlier time, under the same key, and the next round has another one
            kept = await (self._seen_stake(kept) if sent.block > seen_at else self._kept_stake())
        if kept < rules.minimum:
            raise error("stake_missing", f"{kept} base units are staked, the registry asks for {rules.minimum}")

    async def _seen_stake(self, before: int) -> int:
        """The stake after a top-up. An endpoint that is behind still shows `before`: staking again then would be staking twice."""
        for pause in RETRY_SECONDS:
            kept = await self._kept_stake()
            if kept > before:
                return kept
            await self._clock.sleep(pause)
        raise error("chain_failed", "the stake that was sent does not show")

    async def _kept_stake(self) -> int:
        """Staked and not asked back."""
        held = await self._chain.stake(self._chain.account)
        return held.staked - held.unstaking

    async def _keep_entry(self) -> None:
        for round_ in range(MAX_ROUNDS):
            present = _said(await self._entry())
            if present == self._wanted:
                return
            url, encryption_key, offers = self._wanted
            sent = await self._chain.register_host(self._key(present, round_), url, encryption_key, offers)
            log.info("host_registered", url=url, tx_hash=sent.hash, block=sent.block)
        raise error("chain_failed", "the registry does not show what was registered")

    async def _entry(self) -> HostEntry | None:
        account = self._chain.account
        return next((entry for entry in await self._chain.hosts() if entry.address == account), None)

    def _key(self, present: _Said | None, round_: int) -> str:
        change = msgspec.msgpack.encode((present, self._wanted))
        return f"register:{to_hex(sha256(change).digest()[:16])}:{round_}"


_Said = tuple[str, Hash32, Offers]


def _said(entry: HostEntry | None) -> _Said | None:
    return None if entry is None or not entry.active else (entry.url, entry.encryption_key, entry.offers)
