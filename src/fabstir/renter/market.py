"""The renter's side of the market, as a program uses it:

    async with Market(chain, journal, clock) as market:
        async with market.session(model="tiny-chat", budget=1_000_000) as session:
            async for piece in session.prompt("Hello"):
                print(piece, end="")

Everything from outside comes in as a port; `fabstir.bootstrap` makes one from the configuration. It owns its sessions:
leaving ends them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok
from fabstir.domain.prompts import PromptId
from fabstir.market.choice import Candidate
from fabstir.market.hosts import Directory, HostSource, OfferSource
from fabstir.market.offers import HttpOffers
from fabstir.ports.attestation import HostAttestations
from fabstir.ports.chain import MarketChain
from fabstir.ports.clock import Clock
from fabstir.ports.journal import Journal
from fabstir.ports.vectors import Embedder
from fabstir.protocol.audit import Tolerance
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.rungs import policy_at, rung_of
from fabstir.protocol.signing import SigningKey
from fabstir.renter.access import ANY_HOST, Parts, Wish
from fabstir.renter.auditing import AuditBook, Auditor, RandomAudits
from fabstir.renter.jobs import Jobs, RenterJob
from fabstir.renter.keeping import Keeper
from fabstir.renter.prompt_case import OrderServices
from fabstir.renter.prompts import Order, PromptOptions, Prompts
from fabstir.renter.purse import Purse
from fabstir.renter.relay import HttpRelay, Relay
from fabstir.renter.session import Session
from fabstir.renter.settings import RenterSettings
from fabstir.renter.settling import Settlement
from fabstir.renter.spending import Spending
from fabstir.renter.transport import Dial, dial


class ModelListing(msgspec.Struct, frozen=True, kw_only=True):
    """A model that somebody serves now."""

    model_id: ModelId
    name: str
    cheapest: PricePerMTok
    """In the currency that this renter pays with, on its rung of the ladder of verification."""
    hosts: int
    context_size: int
    """The largest on offer."""
    controls: tuple[str, ...] = ()
    """What at least one host can be asked for (`fabstir.protocol.controls`), by name."""


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
        relay: Relay | None = None,
    ) -> None:
        """`wallet`, the key of the chain's account, is only needed where `settings.authorize` or `relay` is set."""
        self.settings: Final = settings
        self._http = HttpOffers(clock.now) if offers is None else None
        self._relay = HttpRelay() if settings.relay and relay is None else None
        self._chain = chain
        self._jobs = Jobs(chain, journal, clock, settings, wallet, relay or self._relay)
        self._directory = Directory(chain, offers or self._http, clock)  # type: ignore[arg-type]
        self._parts = Parts(self._directory, self._jobs, dial, clock, settings)
        self._audits: RandomAudits | None = None
        self._tolerance_of: Callable[[ModelId], Awaitable[Tolerance]] | None = None
        self._prompts: Prompts | None = None
        self.audits: Final = AuditBook(journal)
        """What other hosts found of those that served this renter."""
        self.spending: Final = Spending(journal)
        """What each API key of the gateway has cost."""
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Market {self._directory!r} {self._jobs!r}>"

    async def __aenter__(self) -> Market:
        """Read the journal. Raises LocalFault (`journal_failed`), ChainFault."""
        await self._jobs.restore()
        await self.audits.restore()
        await self.spending.restore(job.ledger for job in self._jobs.unsettled)
        if self._prompts is not None:
            await self._prompts.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._audits is not None:
            await self._audits.close()
        for pool in (self._http, self._relay):
            if pool is not None:
                await pool.close()

    @asynccontextmanager
    async def session(
        self,
        model: str | ModelId,
        *,
        budget: BaseUnits | int | None = None,
        context: tuple[ChatMessage, ...] = (),
        purse: Purse | None = None,
        rung: int | None = None,
    ) -> AsyncIterator[Session]:
        """A conversation about `model`, a name or an id. What its jobs cost together is at most `budget` (or what is
        left in `purse`). `rung` of the ladder of verification (0, 1, 3, 4); unset: that of the settings.
        """
        wish = Wish(rung=None if rung is None else rung_of(rung))
        session = await self.start_session(model, budget=budget, context=context, purse=purse, wish=wish)
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
        wish: Wish = ANY_HOST,
    ) -> Session:
        """The same for a caller that calls `close` itself. Raises Refused (`no_host`), PeerFault (`request_invalid`),
        ChainFault.
        """
        model_id = ModelId(model) if isinstance(model, bytes) else await self.resolve(model)
        purse = purse or Purse(self.settings.budget if budget is None else BaseUnits(budget))
        wish = msgspec.structs.replace(wish, avoid=wish.avoid | self.audits.convicted)
        return Session(self._parts, model_id, purse, context, wish)

    def embedding(self, embedder: Embedder) -> None:
        """Sessions rank turns with it (strategy `retrieve`)."""
        self._parts = msgspec.structs.replace(self._parts, embedder=embedder)

    @property
    def embedder(self) -> Embedder | None:
        """Of this machine, where it has one."""
        return self._parts.embedder

    @property
    def auditor(self) -> Auditor:
        """Has answers checked by other hosts."""
        return Auditor(self, self.audits, self._clock)

    async def resolve(self, model: str) -> ModelId:
        """The id of a model: written as its hash, or as the name that hosts give it. Raises Refused (`no_host`),
        PeerFault (`request_invalid`), ChainFault.
        """
        return await self._directory.resolve(model)

    @property
    def clock(self) -> Clock:
        """What this market goes by."""
        return self._clock

    @property
    def token(self) -> Address:
        """What this renter pays with."""
        return self._jobs.token

    def keeping(self, keeper: Keeper) -> Market:
        """The same market, which writes down what is served. Before the first session."""
        self._jobs.keeper = keeper
        return self

    def attesting(self, attestations: HostAttestations | None) -> Market:
        """The same market, which has hosts attest themselves before it pays for rung 4; None: it has no sessions there. Before the first
        session."""
        self._parts = msgspec.structs.replace(self._parts, attestations=attestations)
        return self

    def finding(self, hosts: HostSource) -> Market:
        """The same market, which knows its hosts from `hosts` instead of the chain's registry. Before the first session."""
        self._directory.source = hosts
        return self

    def auditing(
        self, tolerance_of: Callable[[ModelId], Awaitable[Tolerance]], share: float, budget: BaseUnits | None = None
    ) -> Market:
        """The same market, which has a `share` of all answers checked by other hosts, each check for at most `budget`. Before the first
        session."""
        self._audits = RandomAudits(self.auditor, tolerance_of, share=share, budget=budget)
        self._tolerance_of = tolerance_of
        self._parts = msgspec.structs.replace(self._parts, answered=self._audits.answered)
        return self

    async def tolerance(self, model: ModelId) -> Tolerance:
        """How far honest answers of `model` stray. Raises LocalFault (`tolerance_missing`, `tolerance_invalid`), ChainFault."""
        if self._tolerance_of is None:
            raise error("tolerance_missing", f"model {to_hex(model)}; this market knows no tolerances")
        return await self._tolerance_of(model)

    # -- prompt jobs ---------------------------------------------------------------------------------------------------------

    def with_prompts(self, services: OrderServices) -> Market:
        """The same market, which can also post prompt jobs. Before it is entered."""
        self._prompts = Prompts(services)
        return self

    async def post_prompt(
        self,
        *,
        model: str | ModelId,
        content: str | tuple[ChatMessage, ...],
        max_tokens: int = 512,
        max_price: PricePerMTok | None = None,
        deadline: int = 3_600,
        hosts: Sequence[Address] | None = None,
        options: PromptOptions = PromptOptions(),  # noqa: B008 - frozen
    ) -> Order:
        """Have one answer made, without waiting for it. `max_price` for 1,000,000 tokens, unset: that of the dearest host it is
        sealed for; `deadline` in seconds from now; `hosts`: only these.

        Raises Refused (`no_host`), Interrupted (`hosts_exhausted`), PeerFault (`request_invalid`), ChainFault, LocalFault.
        """
        model_id = ModelId(model) if isinstance(model, bytes) else await self.resolve(model)
        return await self._taking_prompts.post(model_id, content, max_tokens, max_price, deadline, hosts, options)

    @property
    def orders(self) -> tuple[Order, ...]:
        """Every prompt job of this renter, those of earlier processes included."""
        return self._taking_prompts.orders

    def order(self, prompt: PromptId) -> Order:
        """One of them. Raises Refused (`prompt_unknown`)."""
        return self._taking_prompts.get(prompt)

    async def advance_prompts(self) -> None:
        """Do for every prompt job what is due now. Raises ChainFault, LocalFault."""
        await self._taking_prompts.advance()

    @property
    def _taking_prompts(self) -> Prompts:
        if self._prompts is None:
            raise error("prompts_off", "this market was opened without prompt jobs", "Open it with `prompts=True`.")
        return self._prompts

    @property
    def usdc(self) -> Address:
        """The chain's USDC."""
        return self._chain.info.usdc

    # -- looking around ------------------------------------------------------------------------------------------------------

    async def hosts(self, *, refresh: bool = False) -> tuple[Candidate, ...]:
        """Every registered host and what it offers. Raises ChainFault."""
        return await self._directory.candidates(refresh=refresh)

    async def block(self) -> int:
        """The chain's newest block: whether it can be read at all. Raises ChainFault."""
        return await self._chain.block_number()

    async def models(self) -> tuple[ModelListing, ...]:
        """What is served now for the currency that this renter pays with, by name. Raises ChainFault."""
        found: dict[tuple[str, ModelId], ModelListing] = {}
        rung, policy = self.settings.rung, policy_at(self.settings.rung, self.settings.policy)
        for offer in [candidate.offer for candidate in await self.hosts() if candidate.offer]:
            for model in offer.models:
                if (price := offer.price_for(model.model_id, self.token, policy, rung)) is None:
                    continue
                known = found.get((model.name, model.model_id))
                found[model.name, model.model_id] = ModelListing(
                    model_id=model.model_id,
                    name=model.name,
                    cheapest=min(price, known.cheapest) if known else price,
                    hosts=known.hosts + 1 if known else 1,
                    context_size=max(model.context_size, known.context_size if known else 0),
                    controls=tuple(sorted({*model.controls, *(known.controls if known else ())})),
                )
        return tuple(found[key] for key in sorted(found))

    async def first_model(self) -> ModelListing:
        """The only model that is served for this renter's currency, or the first by name. Raises Refused (`no_host`), ChainFault."""
        if models := await self.models():
            return models[0]
        answering = sum(candidate.offer is not None for candidate in await self.hosts())
        if answering == 0:
            raise error("no_host", "the registry lists no host that answers")
        raise error(
            "no_host",
            f"{answering} {'host answers' if answering == 1 else 'hosts answer'}, and none takes the currency {to_hex(self.token)}",
            "Pay with another currency (`--token`, `renter.token`).",
        )

    # -- what is left of earlier sessions ------------------------------------------------------------------------------------

    @property
    def unsettled(self) -> tuple[RenterJob, ...]:
        """Jobs whose deposit is not paid out yet, those of earlier processes included."""
        return self._jobs.unsettled

    async def settle(self, *, reclaim: bool = False) -> tuple[Settlement, ...]:
        """Look where each deposit is that no session uses; with `reclaim` do what brings it back. A job that cannot be brought
        back holds up no other one. Raises ChainFault, Refused (`principal_only`): the first, once all jobs were looked at.
        """
        settlements, faults = [], []
        for job in self._jobs.unsettled:
            if not job.in_use:
                try:
                    settlements.append(await self._jobs.settle(job, reclaim=reclaim))
                except FabstirError as fault:
                    faults.append(fault)
        if faults:
            raise faults[0]
        return tuple(settlements)
