"""The renter's side of the market, as a program uses it:

    async with Market(chain, journal, clock) as market:
        async with market.session(model="tiny-chat", budget=1_000_000) as session:
            async for piece in session.prompt("Hello"):
                print(piece, end="")

Everything from outside comes in as a port; `fabstir.bootstrap` makes one from the configuration. It owns its sessions:
leaving ends them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from fabstir.domain.ids import ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok
from fabstir.market.choice import Candidate
from fabstir.market.hosts import Directory, OfferSource
from fabstir.market.offers import HttpOffers
from fabstir.ports.chain import MarketChain
from fabstir.ports.clock import Clock
from fabstir.ports.journal import Journal
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.signing import SigningKey
from fabstir.renter.access import Parts
from fabstir.renter.jobs import Jobs, RenterJob
from fabstir.renter.purse import Purse
from fabstir.renter.session import Session
from fabstir.renter.settings import RenterSettings
from fabstir.renter.settling import Settlement
from fabstir.renter.transport import Dial, dial


class ModelListing(msgspec.Struct, frozen=True, kw_only=True):
    """A model that somebody serves now."""

    model_id: ModelId
    name: str
    cheapest: PricePerMTok
    hosts: int
    context_size: int
    """The largest on offer."""


class Market:
    """One renter's view of the market and its sessions there. Memory: the directory of hosts, the jobs that are not
    settled.
    """

    def __init__(
        self,
        chain: MarketChain,
        journal: Journal,
        clock: Clock,
        *,
        settings: RenterSettings = RenterSettings(),  # noqa: B008 - frozen
        dial: Dial = dial,
        offers: OfferSource | None = None,
        wallet: SigningKey | None = None,
    ) -> None:
        """`wallet`, the key of the chain's account, is only needed where `settings.authorize` is set."""
        self.settings: Final = settings
        self._http = HttpOffers() if offers is None else None
        self._chain = chain
        self._jobs = Jobs(chain, journal, clock, settings, wallet)
        self._directory = Directory(chain, offers or self._http, clock)  # type: ignore[arg-type]
        self._parts = Parts(self._directory, self._jobs, dial, clock, settings)

    def __repr__(self) -> str:
        return f"<Market {self._directory!r} {self._jobs!r}>"

    async def __aenter__(self) -> Market:
        """Read the journal. Raises LocalFault (`journal_failed`), ChainFault."""
        await self._jobs.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    @asynccontextmanager
    async def session(
        self,
        model: str | ModelId,
        *,
        budget: BaseUnits | int | None = None,
        context: tuple[ChatMessage, ...] = (),
        purse: Purse | None = None,
    ) -> AsyncIterator[Session]:
        """A conversation about `model`, a name or an id. What its jobs cost together is at most `budget` (or what is
        left in `purse`).
        """
        session = await self.start_session(model, budget=budget, context=context, purse=purse)
        try:
            yield session
        finally:
            await session.close()

    async def start_session(
        self,
        model: str | ModelId,
        *,
        budget: BaseUnits | int | None = None,
        context: tuple[ChatMessage, ...] = (),
        purse: Purse | None = None,
    ) -> Session:
        """The same for a caller that calls `close` itself. Raises Refused (`no_host`), PeerFault (`request_invalid`),
        ChainFault.
        """
        model_id = ModelId(model) if isinstance(model, bytes) else await self.resolve(model)
        purse = purse or Purse(self.settings.budget if budget is None else BaseUnits(budget))
        return Session(self._parts, model_id, purse, context)

    async def resolve(self, model: str) -> ModelId:
        """The id of a model: written as its hash, or as the name that hosts give it. Raises Refused (`no_host`),
        PeerFault (`request_invalid`), ChainFault.
        """
        return await self._directory.resolve(model)

    # -- looking around ------------------------------------------------------------------------------------------------------

    async def hosts(self, *, refresh: bool = False) -> tuple[Candidate, ...]:
        """Every registered host and what it offers. Raises ChainFault."""
        return await self._directory.candidates(refresh=refresh)

    async def block(self) -> int:
        """The chain's newest block: whether it can be read at all. Raises ChainFault."""
        return await self._chain.block_number()

    async def models(self) -> tuple[ModelListing, ...]:
        """What is served now, by name. Raises ChainFault."""
        found: dict[tuple[str, ModelId], ModelListing] = {}
        for offer in [candidate.offer for candidate in await self.hosts() if candidate.offer]:
            for model in offer.models:
                known = found.get((model.name, model.model_id))
                found[model.name, model.model_id] = ModelListing(
                    model_id=model.model_id,
                    name=model.name,
                    cheapest=min(model.price, known.cheapest) if known else model.price,
                    hosts=known.hosts + 1 if known else 1,
                    context_size=max(model.context_size, known.context_size if known else 0),
                )
        return tuple(found[key] for key in sorted(found))

    # -- what is left of earlier sessions ------------------------------------------------------------------------------------

    @property
    def unsettled(self) -> tuple[RenterJob, ...]:
        """Jobs whose deposit is not paid out yet, those of earlier processes included."""
        return self._jobs.unsettled

    async def settle(self, *, reclaim: bool = False) -> tuple[Settlement, ...]:
        """Look where each deposit is that no session uses; with `reclaim` do what brings it back. Raises ChainFault."""
        return tuple([await self._jobs.settle(job, reclaim=reclaim) for job in self._jobs.unsettled if not job.in_use])
