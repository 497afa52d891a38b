"""Who is there now: the registry's hosts, and what they announce of themselves, in a cache from which every question is answered.

The registry is the authority: only its hosts are listed, and nobody asks more than is registered. An announcement says where a host
is reached today, what is free and what it asks, for as long as it lives; without one the registry's word stands. The cache is filled
in the background: no question waits for the chain or the network. Never chooses; `fabstir.market.choice` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address, ModelId
from fabstir.domain.money import PricePerMTok
from fabstir.market.hosts import HostSource
from fabstir.ports.chain import HostEntry
from fabstir.ports.clock import Clock
from fabstir.ports.network import Network
from fabstir.protocol.p2p.announcement import Announcement
from fabstir.protocol.p2p.book import AnnouncementBook
from fabstir.protocol.p2p.provider_keys import model_keys
from fabstir.protocol.signing import Market

REFRESH_SECONDS: Final = 30.0
"""An announcement is renewed every five minutes; the registry's events are rarer."""
MODELS_AT_ONCE: Final = 8
"""Whose providers are looked up in one round; the others have their turn in the next ones."""

log = structlog.get_logger()


class Listed(msgspec.Struct, frozen=True):
    """A registered host, and what it announces now."""

    entry: HostEntry
    announcement: Announcement | None = None
    """None where it announces nothing that may be believed."""

    @property
    def online(self) -> bool:
        """It announces itself. A host that does not may still answer at its registered URL."""
        return self.announcement is not None

    @property
    def available(self) -> bool:
        """It says that it has a free place."""
        return self.announcement is not None and self.announcement.free > 0

    @property
    def url(self) -> str:
        """Where it is reached."""
        return self.announcement.url if self.announcement else self.entry.url

    def price_in(self, model: ModelId, token: Address) -> PricePerMTok | None:
        """What it asks, and never more than it registered. None where it is not registered for it, announces that it does not serve it
        now, or asks too much."""
        ceiling = self.entry.price_of(model, token)
        if ceiling is None or self.announcement is None:
            return ceiling
        served = self.announcement.model(model)
        asked = served.price_in(token) if served else None
        return asked if asked is not None and asked <= ceiling else None

    def serves(self, model: ModelId) -> bool:
        """In any registered currency, at a price that it may ask."""
        tokens = {offer.token for offer in self.entry.offers if offer.model_id == model}
        return any(self.price_in(model, token) is not None for token in tokens)

    def can(self, feature: str) -> bool:
        """It announces `feature`; `region:DE` is one, too, and holds for `DE-BY`."""
        if self.announcement is None:
            return False
        region = self.announcement.region
        return feature in self.announcement.features or (
            bool(region) and feature in (f"region:{region}", f"region:{region.partition('-')[0]}")
        )


class Discovery:
    """The cache. Memory: one `Listed` for each registered host."""

    def __init__(self, registry: HostSource, network: Network, market: Market, clock: Clock) -> None:
        self._registry = registry
        self._network = network
        self._market = market
        self._clock = clock
        self._book = AnnouncementBook(market)
        self._listed: dict[Address, Listed] = {}
        self._turn = 0
        self.refused = 0
        """Announcements that were not believed."""

    def __repr__(self) -> str:
        online = sum(one.online for one in self.registered())
        return f"<Discovery {len(self._listed)} hosts, {online} online, {self.refused} refused>"

    # -- the background ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the registry once, so that questions have an answer. Raises ChainFault."""
        self._list(await self._registry.hosts())

    async def run(self) -> None:
        """Until cancelled. Faults of chain and network are waited out: the last answers stand, announcements until they expire."""
        while True:
            await self.refresh()
            await self._clock.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """One round. Never raises a FabstirError."""
        try:
            self._list(await self._registry.hosts())
        except FabstirError as fault:
            log.info("discovery_registry_failed", code=fault.code, detail=fault.detail)
        models = self._next_models()
        try:
            keys = tuple(key for model in models for key in model_keys(self._market, model))
            heard = await self._network.find(keys) if keys else ()
        except FabstirError as fault:
            log.info("discovery_network_failed", code=fault.code, detail=fault.detail)
            heard = ()
        for raw in heard:
            self._hear(raw)
        self._list([one.entry for one in self._listed.values()])

    def _hear(self, raw: bytes) -> None:
        try:
            self._book.take(raw, self._clock.now(), self._listed)
        except FabstirError as refusal:
            self.refused += 1
            log.debug("announcement_refused", code=refusal.code, detail=refusal.detail)

    def _list(self, entries: Iterable[HostEntry]) -> None:
        now = self._clock.now()
        active = {entry.address: entry for entry in entries if entry.active}
        self._book.keep(now, active)
        self._listed = {address: Listed(entry, self._book.get(address, now)) for address, entry in active.items()}

    def _next_models(self) -> list[ModelId]:
        models = sorted({offer.model_id for one in self._listed.values() for offer in one.entry.offers})
        if not models:
            return []
        start = self._turn % len(models)
        self._turn += MODELS_AT_ONCE
        return (models[start:] + models[:start])[:MODELS_AT_ONCE]

    # -- questions: answered from memory -------------------------------------------------------------------------------------

    def registered(self) -> tuple[Listed, ...]:
        """Everybody, by address. An announcement that has expired since the last round is left out."""
        now = self._clock.now()
        return tuple(self._alive(self._listed[address], now) for address in sorted(self._listed))

    def available(self) -> tuple[Listed, ...]:
        """Those that say they have a free place."""
        return tuple(one for one in self.registered() if one.available)

    def by_model(self, model: ModelId) -> tuple[Listed, ...]:
        """Those that serve `model` at a price that they may ask."""
        return tuple(one for one in self.registered() if one.serves(model))

    def by_capability(self, feature: str) -> tuple[Listed, ...]:
        """Those that announce `feature`."""
        return tuple(one for one in self.registered() if one.can(feature))

    def online(self, host: Address) -> bool:
        """Whether it announces itself now."""
        one = self._listed.get(host)
        return one is not None and self._alive(one, self._clock.now()).online

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        """`HostSource`, from memory: the registry's entries, at the URL that each host announces."""
        wanted = self.registered() if model_id is None else self.by_model(model_id)
        return [msgspec.structs.replace(one.entry, url=one.url) for one in wanted]

    def _alive(self, one: Listed, now: float) -> Listed:
        return one if one.announcement is None or one.announcement.lives(now) else Listed(one.entry)
