"""From a model and a budget to a host that waits for our question; and from one host to the next.

It knows three ways, and takes the first that works: the connection that stands, the same host again where only the
connection broke, the next host of the market under a new job. Whoever fails is not asked again for the same answer.
What an answer is, is the business of `session`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, Interrupted, LocalFault, PeerFault, Refused, error
from fabstir.domain.ids import Address, ModelId, SessionId
from fabstir.market.choice import Order, Ranked
from fabstir.market.hosts import Directory
from fabstir.ports.attestation import HostAttestations
from fabstir.ports.chain import HostEntry
from fabstir.ports.clock import Clock
from fabstir.ports.transport import Transport
from fabstir.ports.vectors import Embedder
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.renter_log import RenterLedger
from fabstir.protocol.rungs import Rung, policy_at
from fabstir.protocol.transcript_file import SpokenTurn
from fabstir.renter.calling import Caller, way_to
from fabstir.renter.jobs import Jobs, RenterJob
from fabstir.renter.link import Link
from fabstir.renter.purse import Purse
from fabstir.renter.setbacks import Setbacks, fits, nobody
from fabstir.renter.settings import RenterSettings
from fabstir.renter.settling import Settlement
from fabstir.renter.transport import Dial

PAY_AHEAD: Final = 8
"""So many W before the deposit is used up a host that asks for more gets it; hosts ask at 4, and what arrived is signed for
later. One that asks sooner locks up a renter's money without a reason."""
RETRY_SECONDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Between greetings that a host answers with `job_unknown` (its RPC endpoint is behind ours) or `session_in_use` (it
has not noticed yet that our last connection broke).
"""
_TRY_AGAIN: Final = frozenset(("job_unknown", "session_in_use"))
_JOB_IS_SPENT: Final = frozenset(("deposit_exhausted", "job_closed", "job_expired"))
"""The host is well; this job is not. A new one may be opened with it."""

_HOST_FAILED: Final = (Interrupted, PeerFault, Refused)
Context = tuple[ChatMessage, ...]

log = structlog.get_logger()


class Parts(msgspec.Struct, frozen=True):
    """What every session of a market shares."""

    directory: Directory
    jobs: Jobs
    dial: Dial
    clock: Clock
    settings: RenterSettings
    attestations: HostAttestations | None = None
    """Asks and verifies hosts for rung 4; None: nobody does."""
    embedder: Embedder | None = None
    """On this machine, to rank turns; None: there is none."""
    answered: Callable[[RenterLedger, SpokenTurn], None] = lambda ledger, turn: None
    """Told of each answer that came to its end."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a session asks of its hosts beyond the settings."""

    scoring: bool = False
    """They score answers of others."""
    rung: Rung | None = None
    """Of the ladder of verification; None: that of the settings."""
    avoid: frozenset[Address] = frozenset()
    """Not these."""


ANY_HOST: Final = Wish()


class Access:
    """One session's way to its hosts. Memory: its jobs, one connection."""

    def __init__(self, parts: Parts, model: ModelId, purse: Purse, session: SessionId, wish: Wish = ANY_HOST) -> None:
        self._parts = parts
        self._wish = wish
        self._model = model
        self._purse = purse
        self._session = session
        self._caller = Caller(parts.dial, parts.jobs.contract, parts.clock, parts.settings)
        self._paying: asyncio.Task[bool] | None = None
        """Tops up the job at hand."""
        self._again: RenterJob | None = None
        """Its connection broke; it is tried once more."""
        self.summarised = 0
        """Messages that the first exchange of what is brought to a host stands for; 0: it is no summary."""
        self.link: Link | None = None
        self.jobs: list[RenterJob] = []
        """Every job of this session, oldest first."""

    def __repr__(self) -> str:
        return f"<Access {self.link!r}, {len(self.jobs)} jobs, {self._purse!r}>"

    async def connect(self, context: Context, setbacks: Setbacks) -> Link:
        """A host that holds `context` and waits for a question.

        Raises Refused (`no_host`, `budget_exceeded`), Interrupted (`hosts_exhausted`), ChainFault, LocalFault.
        """
        while True:
            for way in (self._standing, self._once_more, self._next):
                if (link := await way(context, setbacks)) is not None:
                    return link

    async def drop(self, fault: FabstirError, setbacks: Setbacks) -> None:
        """The host at hand failed with `fault` in the middle of an answer."""
        link, self.link = self.link, None
        if link is None:
            return
        if link.leaving is not None:
            await self._depart(link, setbacks)
        else:
            await self._close_failed(link, fault, setbacks)

    def worked(self) -> None:
        """The host at hand delivered an answer to the end."""
        if self.link is not None:
            self._parts.directory.worked(self.link.job.host)

    def prepare_payment(self) -> None:
        """The host at hand asked for more: pay while its answer streams on, where our own count says that it is time."""
        link = self.link
        if link is None or link.payment_due is None or self._paying is not None:
            return
        ledger = link.job.ledger
        if ledger.affordable - ledger.signed <= PAY_AHEAD * ledger.terms.exposure:
            self._paying = asyncio.ensure_future(self._parts.jobs.top_up(link.job))

    async def replenish(self) -> bool:
        """Finish what `prepare_payment` began and tell the host; False where the deposit stays as it is."""
        link, paying, self._paying = self.link, self._paying, None
        if link is None or paying is None:
            return False
        try:
            if not await paying or not link.usable:
                return False
            await link.tell_deposit()
        except FabstirError as fault:
            log.info("top_up_failed", host_address=link.job.host, job_id=link.job.id, code=fault.code)
            return False
        return True

    async def retire(self) -> None:
        """End the job at hand: its deposit is used up. The next question goes to a new one."""
        link, self.link = self.link, None
        if link is not None:
            await self._end(link)
            link.job.spoiled = link.job.spoiled or error("deposit_exhausted")

    # -- three ways --------------------------------------------------------------------------------------------------------

    async def _standing(self, context: Context, setbacks: Setbacks) -> Link | None:
        """The connection at hand, brought to `context` where the host holds another one."""
        link = self.link
        if link is None:
            return None
        if link.leaving is not None:
            self.link = None
            await self._depart(link, setbacks)
            return None
        if isinstance(link.job.spoiled, LocalFault):
            self.link = None
            await link.close(link.job.spoiled.code)
            return None
        try:
            if not link.usable:
                raise link.left or link.lost or link.job.spoiled or error("host_unreachable", "the session has ended")
            size = link.job.max_message_bytes
            room = link.context == context or fits(context, link.job.host, size, setbacks)
            if not room or not setbacks.suits(link.capabilities):
                self.link = None
                await link.close()
                return None
            if link.context != context and not link.bring(context, self.summarised):
                await link.open(self._session, context, self.summarised)
        except _HOST_FAILED as fault:
            self.link = None
            await self._close_failed(link, fault, setbacks)
        return self.link

    async def _once_more(self, context: Context, setbacks: Setbacks) -> Link | None:
        """The host whose connection broke."""
        job, self._again = self._again, None
        return await self._greet(job, None, context, setbacks) if job is not None and not job.spoiled else None

    async def _next(self, context: Context, setbacks: Setbacks) -> Link | None:
        """The best host that has not failed in this answer. It is asked and called before anything is paid."""
        ranked = await self._choose(setbacks)
        encrypted, limit = way_to(ranked.offer)
        if not fits(context, ranked.offer.host, limit, setbacks):
            return None
        if not await self._parts.directory.confirm(ranked.candidate):
            if ranked.offer.host in setbacks.changed:
                self._give_up(ranked.offer.host, error("job_foreign", "its offer changes all the time"), setbacks)
            setbacks.changed.add(ranked.offer.host)
            return None
        try:
            if ranked.order.rung is Rung.ATTESTATION:
                await self._require_attestation(ranked.candidate.entry)
            transport = await self._caller.call(ranked.candidate.entry.url, ranked.offer.host, encrypted=encrypted)
        except _HOST_FAILED as fault:
            self._give_up(ranked.offer.host, fault, setbacks)
            return None
        try:
            job = await self._job_with(ranked)
            job.max_message_bytes, job.encrypted = limit, job.encrypted or encrypted
        except BaseException as fault:
            transport.abort()
            if not isinstance(fault, _HOST_FAILED) or fault.code == "budget_exceeded":
                raise
            self._give_up(ranked.offer.host, fault, setbacks)  # it was to send the deposit, and did not
            return None
        return await self._greet(job, transport, context, setbacks)

    async def _require_attestation(self, entry: HostEntry) -> None:
        """Before anything is paid. Raises PeerFault (`attestation_refused`), Interrupted, LocalFault (`config_invalid`)."""
        verifier = self._parts.attestations
        if verifier is None:
            raise error("config_invalid", "rung 4 needs renter.attestation_policy and renter.attestation_collateral")
        await verifier.require(entry, self._model)

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _choose(self, setbacks: Setbacks) -> Ranked:
        directory, jobs, settings = self._parts.directory, self._parts.jobs, self._parts.settings
        rung = settings.rung if self._wish.rung is None else self._wish.rung
        order = Order(
            contract=jobs.contract,
            model_id=self._model,
            token=jobs.token,
            policy=policy_at(rung, settings.policy),
            rung=rung,
            budget=self._purse.left,
            max_price=settings.max_price,
            arbiter=settings.arbiter,
            bond_max=settings.bond_max,
            challenge=settings.challenge,
            relayed=settings.relay,
            controls=setbacks.needed,
            scoring=self._wish.scoring,
            encrypted=self._caller.only_encrypted,
        )
        excluded = {*setbacks.given_up, *self._wish.avoid}
        choice = await directory.choose(order, excluded)
        if not choice.ranked and not setbacks.given_up:
            choice = await directory.choose(order, excluded, refresh=True)
        if choice.ranked:
            return choice.ranked[0]
        if setbacks.needed and not setbacks.given_up:
            others = await directory.choose(msgspec.structs.replace(order, controls=frozenset()), excluded)
            if others.ranked:
                raise error("control_unsupported", "; ".join(map(str, choice.discarded)))
        richer = await directory.choose(msgspec.structs.replace(order, budget=self._purse.budget), excluded)
        left = self._purse.left
        if richer.ranked:
            await jobs.collect(self._purse)
        if self._purse.left > left:
            return await self._choose(setbacks)
        raise nobody(choice, setbacks, self._purse if richer.ranked else None)

    async def _job_with(self, ranked: Ranked) -> RenterJob:
        """Our own job with that host from earlier in the session, a spare one, or a new one."""
        jobs, purse = self._parts.jobs, self._purse
        for job in self.jobs:
            if job.host == ranked.offer.host and jobs.has_room(job):
                return job
        spare = jobs.spare(ranked, self._model, purse)
        if spare is not None:
            purse.take(spare.id, spare.ledger.deposit)
            spare.purse = purse
        job = spare or await jobs.open(ranked, self._model, purse)
        job.in_use = True
        self.jobs.append(job)
        return job

    async def _greet(
        self, job: RenterJob, transport: Transport | None, context: Context, setbacks: Setbacks
    ) -> Link | None:
        """Introduce ourselves to the host of `job`, a few times where it only needs a moment."""
        parts, delays = self._parts, list(RETRY_SECONDS)
        while True:
            try:
                transport = transport or await self._caller.call(job.url, job.host, encrypted=job.encrypted)
            except _HOST_FAILED as fault:
                self._give_up(job.host, fault, setbacks)
                return None
            link = Link(job, transport, parts.jobs, parts.clock, parts.settings)
            try:
                await link.open(self._session, context, self.summarised)
                setbacks.require(link.capabilities)
            except BaseException as fault:
                if isinstance(fault, _HOST_FAILED) and not (fault.code in _TRY_AGAIN and delays):
                    await self._close_failed(link, fault, setbacks)
                    return None
                await link.close("ended")
                if not isinstance(fault, _HOST_FAILED):
                    raise
                await parts.clock.sleep(delays.pop(0))
                transport = None
            else:
                self.link = link
                return link

    async def _depart(self, link: Link, setbacks: Setbacks) -> None:
        """The host goes down and handed the conversation over: end our job there, ask another one, and do not blame this one."""
        fault = link.leaving or error("draining")
        await link.depart()
        log.info("host_left", host_address=link.job.host, job_id=link.job.id, tokens=link.job.ledger.signed)
        setbacks.given_up[link.job.host] = fault
        if link.job.ledger.released:
            link.job.spoiled = link.job.spoiled or fault

    async def _close_failed(self, link: Link, fault: FabstirError, setbacks: Setbacks) -> None:
        """Decide whether the host of `link` gets another chance."""
        job, fault = link.job, link.left or fault
        only_dropped = link.lost is not None and link.left is None and not job.spoiled
        await link.close(fault.code)
        log.info("host_failed", host_address=job.host, job_id=job.id, code=fault.code)
        if only_dropped and job.host not in setbacks.redialled:
            setbacks.redialled.add(job.host)
            self._again = job
        elif fault.code in _JOB_IS_SPENT and job.host not in setbacks.reopened:
            setbacks.reopened.add(job.host)
            job.spoiled = job.spoiled or fault
        else:
            if isinstance(fault, PeerFault):
                job.spoiled = job.spoiled or fault
            self._give_up(job.host, fault, setbacks)

    def _give_up(self, host: Address, fault: FabstirError, setbacks: Setbacks) -> None:
        setbacks.given_up[host] = fault
        self._parts.directory.failed(host)

    # -- the end -----------------------------------------------------------------------------------------------------------

    async def release(self) -> None:
        """Tell every host that the session is over, so that it settles and the rest of the deposit comes back."""
        await self.replenish()
        link, self.link, self._again = self.link, None, None
        if link is not None:
            await self._end(link)
        for job in self.jobs:
            if job.ledger.opened and not (job.ledger.released or job.spoiled):
                await self._release_by_call(job)
            job.in_use = False

    async def settle(self, *, reclaim: bool = False) -> tuple[Settlement, ...]:
        """Where the deposits are, oldest job first."""
        settlements = []
        for job in self.jobs:
            settlements.append(await self._parts.jobs.settle(job, reclaim=reclaim))
        return tuple(settlements)

    async def _end(self, link: Link) -> None:
        try:
            if link.usable:
                if link.context is None:
                    await link.open(self._session, ())
                await link.finish()
        except _HOST_FAILED as fault:
            log.info("host_not_told", host_address=link.job.host, job_id=link.job.id, code=fault.code)
        finally:
            await link.close()

    async def _release_by_call(self, job: RenterJob) -> None:
        """A host that was left in the middle of something may be well again."""
        try:
            transport = await self._caller.call(job.url, job.host, encrypted=job.encrypted)
        except _HOST_FAILED as fault:
            log.info("host_not_told", host_address=job.host, job_id=job.id, code=fault.code)
            return
        await self._end(Link(job, transport, self._parts.jobs, self._parts.clock, self._parts.settings))
