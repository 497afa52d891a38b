"""The hosts of the market as this renter sees them: the registry on chain, each host's offer and how long it took to
answer.

Asks all hosts at the same time and remembers the answers for a while, so that moving on in the middle of an answer
waits for nobody. Remembers who failed. Never decides who is taken; `fabstir.market.choice` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Final, Protocol

import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, ModelId, hash32, to_hex
from fabstir.market.choice import Candidate, Choice, Order, Rest, choose, rest_after
from fabstir.ports.chain import HostEntry
from fabstir.ports.clock import Clock
from fabstir.protocol.offer import Offer

FRESH_SECONDS: Final = 30.0
"""How long an offer is believed; a host that changed its price since refuses the job, and is asked again."""
CERTAIN_SECONDS: Final = 1.0
"""How long it is believed before money is paid on it."""
ASKED_AT_ONCE: Final = 32

log = structlog.get_logger()


class OfferSource(Protocol):
    """Gets a host's offer."""

    async def fetch(self, url: str) -> Offer:
        """What the host at `url` offers. Raises FabstirError: `host_unreachable`, `message_malformed`."""
        ...


class HostSource(Protocol):
    """Knows the registered hosts: the chain, or a cache of it."""

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        """Active hosts, of one model where given. Raises ChainFault."""
        ...


class Directory:
    """The market's hosts. Memory: one candidate for each registered host, one rest for each host that failed since it
    last worked.
    """

    def __init__(self, source: HostSource, offers: OfferSource, clock: Clock, fresh: float = FRESH_SECONDS) -> None:
        self.source = source
        """May be changed before the first question."""
        self._offers = offers
        self._clock = clock
        self._fresh = fresh
        self._lock = asyncio.Lock()
        self._candidates: tuple[Candidate, ...] = ()
        self._asked_at: float | None = None
        self._rests: dict[Address, Rest] = {}

    def __repr__(self) -> str:
        return f"<Directory {len(self._candidates)} hosts, {len(self._rests)} failed lately>"

    async def candidates(self, *, refresh: bool = False) -> tuple[Candidate, ...]:
        """Every active host. Asks again where the answers are old, or at once with `refresh`. Raises ChainFault."""
        async with self._lock:
            now = self._clock.monotonic()
            if refresh or self._asked_at is None or now - self._asked_at >= self._fresh:
                places = asyncio.Semaphore(ASKED_AT_ONCE)
                entries = await self.source.hosts()
                self._candidates = tuple(await asyncio.gather(*(self._ask(entry, places) for entry in entries)))
                self._asked_at = self._clock.monotonic()
            return self._candidates

    async def choose(self, order: Order, excluded: Container[Address] = (), *, refresh: bool = False) -> Choice:
        """The hosts that fit `order`, best first. Raises ChainFault."""
        candidates = await self.candidates(refresh=refresh)
        return choose(candidates, order, self._rests, self._clock.monotonic(), excluded)

    async def confirm(self, candidate: Candidate) -> bool:
        """Whether the host still offers the same, asked again before it is paid; what it offers now is remembered."""
        now = self._clock.monotonic()
        if self._asked_at is not None and now - self._asked_at < CERTAIN_SECONDS:
            return True
        fresh = await self._ask(candidate.entry, asyncio.Semaphore(1))
        self._candidates = tuple(fresh if one.address == fresh.address else one for one in self._candidates)
        return fresh.offer == candidate.offer

    async def resolve(self, model: str) -> ModelId:
        """The id of a model: written as its hash, or as the name that hosts give it.

        A name is only a host's word, so one that stands for two models is refused.
        Raises Refused (`model_unavailable`, `no_host`), PeerFault
        (`request_invalid`), ChainFault.
        """
        if model.startswith("0x"):
            try:
                return ModelId(hash32(model))
            except ValueError as wrong:
                raise error("model_unavailable", f"model {model[:80]!r} is no id: {wrong}"[:200]) from wrong
        ids = sorted(await self._named(model, refresh=False) or await self._named(model, refresh=True))
        if not ids:
            offers = [candidate.offer for candidate in self._candidates if candidate.offer]
            names = sorted({offered.name for offer in offers for offered in offer.models})
            if not names:
                raise error("no_host", "no host answers")
            raise error("model_unavailable", f"nobody offers {model[:80]!r}; there is {', '.join(names[:20])}"[:400])
        if len(ids) > 1:
            listed = ", ".join(map(to_hex, ids))
            raise error("request_invalid", f"hosts call several models {model!r}: name one of {listed}")
        return ids[0]

    def failed(self, host: Address) -> None:
        """It broke something off; others come first for a while."""
        self._rests[host] = rest_after(self._rests.get(host), self._clock.monotonic())

    def worked(self, host: Address) -> None:
        """It answered."""
        self._rests.pop(host, None)

    async def _named(self, model: str, *, refresh: bool) -> set[ModelId]:
        candidates = await self.candidates(refresh=refresh)
        offers = (candidate.offer for candidate in candidates if candidate.offer)
        return {offered.model_id for offer in offers for offered in offer.models if offered.name == model}

    async def _ask(self, entry: HostEntry, places: asyncio.Semaphore) -> Candidate:
        async with places:
            began = self._clock.monotonic()
            try:
                offer = await self._offers.fetch(entry.url)
            except FabstirError as fault:
                log.info("offer_missing", host_address=entry.address, code=fault.code)
                return Candidate(entry=entry, fault=fault)
            return Candidate(entry=entry, offer=offer, latency=self._clock.monotonic() - began)
