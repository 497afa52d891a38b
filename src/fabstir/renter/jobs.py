"""The renter's book: every job that it opened or meant to open, rebuilt from the journal, and the only way to write to
it.

A job is in the journal, with its session key, before its transaction is sent: whatever dies when, the deposit can be
found again and got back. Decides nothing about hosts or answers. Streams are named `rent:<id in hexadecimal>`; events
are `fabstir.protocol.renter_log`.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, Hash32, JobId, ModelId, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import JobState, Terms, salt_for
from fabstir.market.choice import Ranked
from fabstir.ports.chain import ClaimArgs, MarketChain
from fabstir.ports.clock import Clock
from fabstir.ports.journal import Journal
from fabstir.protocol.renter_log import (
    JobOpened,
    JobPlanned,
    JobSettled,
    RenterEvent,
    RenterLedger,
    ToppedUp,
    TopUpPlanned,
    decode_event,
    encode_event,
)
from fabstir.protocol.renter_session import RenterSession
from fabstir.protocol.signing import Market as Contract
from fabstir.protocol.signing import SigningKey
from fabstir.renter.keeping import Keeper
from fabstir.renter.paying import Payer
from fabstir.renter.purse import Purse
from fabstir.renter.relay import Relay
from fabstir.renter.settings import RenterSettings
from fabstir.renter.settling import Settlement, Stage, Step, claim_step, reclaim_step, settlement_of

STREAM_PREFIX: Final = "rent:"
DEFAULT_MESSAGE_BYTES: Final = 1 << 20
_SURELY_NOT_OPENED: Final = frozenset(("chain_reverted", "funds_insufficient"))
"""After any other fault of the chain the transaction may still be mined."""
_PRINCIPALS_OWN: Final = frozenset((Step.REQUEST_CLOSE, Step.DISPUTE))
"""What the contract takes from `terms.renter` alone."""

log = structlog.get_logger()


class RenterJob:
    """One job in this process: its ledger and the session core on top of it."""

    def __init__(self, ledger: RenterLedger) -> None:
        self.ledger: Final = ledger
        self.core: Final = RenterSession(ledger, SigningKey(ledger.planned.session_key))
        self.url: Final = ledger.planned.host_url
        self.max_message_bytes = DEFAULT_MESSAGE_BYTES
        """What the host reads, by its offer."""
        self.encrypted = False
        """Its host is talked to in an encrypted channel; once so, always."""
        self.relayed_from = BaseUnits(0)
        """Smallest top-up that its host sends, where hosts send our payments."""
        self.in_use = False
        """A session of this process holds it."""
        self.purse: Purse | None = None
        """What its deposit was taken from."""
        self.fresh = False
        """Opened by this process: what arrived of it is known for certain."""
        self.spoiled: FabstirError | None = None
        """Why it is not used again: the host broke the protocol, or the journal failed."""

    @property
    def id(self) -> JobId:
        """keccak-256 of the terms."""
        return self.ledger.job

    @property
    def received(self) -> Tokens | None:
        """Tokens that arrived; None where an earlier process may have received more than it wrote down."""
        return self.core.received if self.fresh else None

    @property
    def host(self) -> Address:
        """Whom it pays."""
        return self.ledger.terms.host

    @property
    def stream(self) -> str:
        """Its name in the journal."""
        return STREAM_PREFIX + self.id.hex()

    def __repr__(self) -> str:
        return f"<RenterJob {self.core!r}{' spoiled' if self.spoiled else ''}>"


class Jobs:
    """All jobs of this renter. Memory: one ledger for each job that is not settled."""

    def __init__(
        self,
        chain: MarketChain,
        journal: Journal,
        clock: Clock,
        settings: RenterSettings,
        wallet: SigningKey | None = None,
        relay: Relay | None = None,
    ) -> None:
        """`wallet`, the key of the chain's account, and `relay` are needed where the settings say so. Raises LocalFault
        (`key_missing`, `config_invalid`).
        """
        self.keeper: Keeper | None = None
        """Writes down what is served; None: nobody does."""
        self._payer = Payer(chain, clock, settings, wallet, relay)
        self._chain = chain
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._jobs: dict[JobId, RenterJob] = {}
        self._opening: set[asyncio.Task[RenterJob]] = set()

    def __repr__(self) -> str:
        return f"<Jobs {len(self._jobs)} unsettled, {sum(job.in_use for job in self._jobs.values())} in use>"

    @property
    def contract(self) -> Contract:
        """Where the deposits are."""
        return Contract(self._chain.info.chain_id, self._chain.info.market)

    @property
    def token(self) -> Address:
        """What is paid with."""
        return self._payer.token

    @property
    def unsettled(self) -> tuple[RenterJob, ...]:
        """Oldest first."""
        return tuple(self._jobs.values())

    # -- the journal -----------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Read every job; ask the chain about those of which it is not known whether they were opened. Raises
        LocalFault, ChainFault.
        """
        for stream in await self._journal.streams():
            if stream.startswith(STREAM_PREFIX) and (job := await self._read(stream)) is not None:
                self._jobs.setdefault(job.id, job)
        for job in [job for job in self.unsettled if not job.ledger.opened or job.ledger.topping_up]:
            await self.settle(job)

    async def record(self, job: RenterJob, *events: RenterEvent) -> None:
        """Write, then take in. Raises LocalFault (`journal_failed`)."""
        await self.store(job, events)
        for event in events:
            job.ledger.apply(event)

    async def store(self, job: RenterJob, events: tuple[RenterEvent, ...]) -> None:
        """Make durable what the core has already taken in. After a failure nobody knows what is on the disk, so the job
        is not used again.
        """
        try:
            await self._journal.append(job.stream, [encode_event(event) for event in events])
        except FabstirError as fault:
            job.spoiled = fault
            raise

    async def _read(self, stream: str) -> RenterJob | None:
        """The job of `stream`; None where it is settled."""
        ledger = await read_ledger(self._journal, stream)
        return None if ledger.settled else RenterJob(ledger)

    # -- opening ---------------------------------------------------------------------------------------------------------

    def has_room(self, job: RenterJob) -> bool:
        """It is open, and there is time and deposit left in it."""
        ledger, terms = job.ledger, job.ledger.terms
        lives = ledger.opened and not (job.spoiled or ledger.released or ledger.settled)
        in_time = terms.expires_at > self._clock.now() + self._settings.challenge
        return lives and in_time and ledger.affordable > ledger.signed + terms.exposure

    def spare(self, ranked: Ranked, model: ModelId, purse: Purse) -> RenterJob | None:
        """An open job with this host that nobody uses, of an earlier process or an opening that nobody waited for: its
        deposit is there already.
        """
        wanted = (
            self._payer.renter,
            ranked.offer.host,
            model,
            self.token,
            ranked.order.policy,
            self._settings.arbiter,
            ranked.order.rung,
        )
        for job in self.unsettled:
            terms, rung = job.ledger.terms, job.ledger.planned.rung
            found = (terms.renter, terms.host, terms.model_id, terms.token, terms.policy, terms.arbiter, rung)
            fits = found == wanted and terms.price <= ranked.price
            if fits and not job.in_use and self.has_room(job) and purse.admits(job.id, job.ledger.deposit):
                return job
        return None

    async def open(self, ranked: Ranked, model: ModelId, purse: Purse) -> RenterJob:
        """Deposit with a host; the job is then in use by the caller. Goes on where the caller is cancelled: then it is a spare one.

        Raises Refused (`budget_exceeded`, `relay_refused`), Interrupted (`host_unreachable`, of a relay), ChainFault,
        LocalFault (`journal_failed`).
        """
        task = asyncio.ensure_future(self._open(ranked, model, purse))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_give_away)
            raise

    async def _open(self, ranked: Ranked, model: ModelId, purse: Purse) -> RenterJob:
        relayed_from = ranked.payment.relayed_from if self._settings.relay else BaseUnits(0)
        deposit = purse.deposit_for(max(ranked.payment.min_deposit, relayed_from))
        secret = os.urandom(32)
        terms = await self._terms(ranked, model, SigningKey(secret).address)
        url, until = ranked.candidate.entry.url, await self._payer.payable_until()
        planned = JobPlanned(terms, deposit, self.contract, secret, url, self._clock.now(), until, ranked.order.rung)
        job = RenterJob(RenterLedger(planned))
        job.fresh = job.in_use = True
        job.relayed_from = relayed_from
        purse.take(job.id, deposit)
        job.purse = purse
        try:
            await self.store(job, (planned,))
            self._jobs[job.id] = job
            await self._pay(job)
        except BaseException as fault:
            job.in_use = False
            if isinstance(fault, FabstirError) and fault.code in (*_SURELY_NOT_OPENED, "journal_failed"):
                purse.settled(job.id, BaseUnits(0))
            raise
        return job

    async def _terms(self, ranked: Ranked, model: ModelId, signer: Address) -> Terms:
        offer, settings = ranked.offer, self._settings
        now = max(self._clock.now(), await self._chain.timestamp())
        return Terms(
            renter=self._payer.renter,
            signer=signer,
            host=offer.host,
            token=self.token,
            arbiter=settings.arbiter,
            price=ranked.price,
            bond=max(settings.bond, ranked.payment.bond_min),
            expires_at=int(now) + settings.lifetime,
            challenge=max(settings.challenge, offer.challenge_min),
            exposure=min(settings.exposure, offer.exposure_max),
            policy=ranked.order.policy,
            model_id=model,
            salt=salt_for(self._chain.info.delegation, os.urandom(8)) if settings.principal else Hash32(os.urandom(32)),
        )

    async def _pay(self, job: RenterJob) -> None:
        gas_used = await self._payer.open(job.ledger)
        await self.record(job, JobOpened(gas_used, self._clock.now()))
        deposit = job.ledger.deposit
        log.info("job_opened", job_id=job.id, host_address=job.host, deposit=deposit, gas_used=gas_used)

    async def top_up(self, job: RenterJob) -> bool:
        """Deposit as much again, as far as the purse goes; False where there is nothing left for it, or no time.

        Raises ChainFault, LocalFault (`journal_failed`).
        """
        ledger, purse = job.ledger, job.purse
        in_time = ledger.terms.expires_at > self._clock.now() + self._settings.challenge
        if purse is None or not self._settings.top_up or not in_time or purse.left <= 0 or job.spoiled:
            return False
        before, amount = ledger.deposit, purse.deposit_for(max(BaseUnits(1), job.relayed_from))
        if ledger.topping_up:  # sent before a crash, perhaps: its transaction has this deposit in its name
            amount = ledger.topping_up.amount
        purse.take(job.id, BaseUnits(before + amount))
        try:
            await self.record(job, TopUpPlanned(amount, self._clock.now()))
            gas_used = await self._payer.top_up(ledger, amount)
        except FabstirError as fault:
            if fault.code in _SURELY_NOT_OPENED:
                purse.take(job.id, before)
                await self.record(job, ToppedUp(before, 0, self._clock.now()))
            raise
        await self.record(job, ToppedUp(BaseUnits(before + amount), gas_used, self._clock.now()))
        log.info("job_topped_up", job_id=job.id, deposit=ledger.deposit, gas_used=gas_used)
        return True

    # -- settling ----------------------------------------------------------------------------------------------------------

    async def settle(self, job: RenterJob, *, reclaim: bool = False) -> Settlement:
        """Look where the deposit is and write down what is final; with `reclaim` do what brings it back. Call it again
        until `over`.

        Raises ChainFault, LocalFault (`journal_failed`), Refused (`principal_only`, with `reclaim`).
        """
        ledger = job.ledger
        if (done := ledger.settled) is not None:
            stage = Stage.SETTLED if ledger.opened else Stage.ABANDONED
            return Settlement(job=job.id, stage=stage, deposit=ledger.deposit, owed=done.owed, refund=done.refund)
        state, now = await self._chain.job(job.id), await self._chain.timestamp()
        if state.is_open and not ledger.opened:
            await self.record(job, JobOpened(0, self._clock.now()))
        if ledger.topping_up and state.deposit > ledger.deposit:
            await self.record(job, ToppedUp(state.deposit, 0, self._clock.now()))
        if reclaim and (step := self._step(job, state, now)) is not Step.WAIT:
            await self._take_step(job, step)
            state = await self._chain.job(job.id)
        settlement = settlement_of(ledger, state, now)
        if settlement.over and ledger.settled is None:
            await self.record(job, JobSettled(settlement.owed, settlement.refund, self._clock.now()))
            self._jobs.pop(job.id, None)
            if job.purse is not None:
                job.purse.settled(job.id, settlement.owed)
            log.info("job_settled", job_id=job.id, owed=settlement.owed, state=settlement.stage.value)
        return settlement

    async def collect(self, purse: Purse) -> None:
        """Look which jobs that were paid from `purse` are settled by now: what they did not cost is there again."""
        for job in self.unsettled:
            if job.purse is purse:
                await self.settle(job)

    def _step(self, job: RenterJob, state: JobState, now: float) -> Step:
        step = reclaim_step(job.ledger, state, now)
        if step in (Step.FINALIZE, Step.CLOSE_COOPERATIVE):
            return step
        claim = claim_step(job.ledger, state, now, job.received, self._settings.dispute_above)
        return step if claim is Step.WAIT else claim

    async def _take_step(self, job: RenterJob, step: Step) -> None:
        terms, name, chain, released = job.ledger.terms, to_hex(job.id), self._chain, job.ledger.released
        if step in _PRINCIPALS_OWN and not self._payer.owns(terms):
            raise error("principal_only", f"{step.value} of job {name}; the principal is {to_hex(terms.renter)}")
        if step is Step.FINALIZE:
            await chain.finalize(f"finalize:{name}", terms)
        elif step is Step.REQUEST_CLOSE:
            await chain.request_close(f"request_close:{name}", terms)
        elif step is Step.SETTLE_CLAIM:
            state = await chain.job(job.id)
            await chain.settle_claim(f"settle_claim:{name}:{state.held_until}", terms)
        elif step is Step.DISPUTE:
            await self._payer.dispute(job.ledger)
            log.warning("claim_disputed", job_id=job.id, host_address=job.host)
        elif step is Step.CONTRADICT and released is not None:
            await chain.contradict(
                f"contradict:{name}", terms, released.amount, released.tokens, released.close_signature
            )
            log.warning("claim_contradicted", job_id=job.id, host_address=job.host)
        elif released is not None:
            claim = ClaimArgs(
                terms=terms,
                amount=released.amount,
                tokens=released.tokens,
                transcript=job.ledger.signed_head,
                signature=job.ledger.voucher.signature if job.ledger.voucher else b"",
            )
            await chain.close_cooperative(f"close:{name}", claim, released.close_signature)


async def read_ledger(journal: Journal, stream: str) -> RenterLedger:
    """The fold of one job's log, settled or not. Raises LocalFault (`journal_failed`)."""
    try:
        return RenterLedger.replay([decode_event(data) for data in await journal.read(stream)])
    except (msgspec.MsgspecError, ValueError) as unreadable:
        raise error("journal_failed", f"{stream}: {unreadable}") from unreadable


def _give_away(opening: asyncio.Task[RenterJob]) -> None:
    """Whoever opened the job has gone: any session may use it."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().in_use = False
