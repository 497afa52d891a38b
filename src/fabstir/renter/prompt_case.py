"""One order at work: carries out what `fabstir.protocol.prompt_order.plan` says, writes down what it names, asks again.

An intent is in the journal before its transaction, so that a renter that dies anywhere finds its money again. What was said
is in memory, and on the disk only under seal. Decides nothing about money; the planner does.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, PeerFault, error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId
from fabstir.domain.prompts import PromptState
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.market.contents import Contents
from fabstir.ports.blobs import BlobStore
from fabstir.ports.clock import Clock
from fabstir.ports.journal import Journal
from fabstir.ports.prompts import PromptChain
from fabstir.protocol.authorization import authorization_digest
from fabstir.protocol.prompt_content import (
    PromptBody,
    PromptResult,
    answer_head,
    check_result,
    decode_body,
    digests_of,
    request_of,
)
from fabstir.protocol.prompt_order import (
    Action,
    AssignHost,
    CancelOrder,
    DeliverVoucher,
    DisputeClaim,
    FetchResult,
    NoteAnswer,
    NoteEnded,
    NoteLapsed,
    NotePosted,
    OrderRules,
    OrderSituation,
    PostOrder,
    RefundOrder,
    RefuseResult,
    Rest,
    SignAnswer,
    plan,
)
from fabstir.protocol.prompt_order_log import (
    AnswerSeen,
    AnswerSigned,
    DisputeSent,
    HostAssigned,
    HostLapsed,
    OrderEnded,
    OrderEvent,
    OrderLedger,
    OrderPosted,
    OrderStage,
    ResultAccepted,
    ResultRefused,
    VoucherDelivered,
    encode_event,
)
from fabstir.protocol.prompt_signing import escrow_of
from fabstir.protocol.prompt_wire import WireVoucher
from fabstir.protocol.sealed import Binding, Content, check_cid, unseal
from fabstir.protocol.signing import SigningKey
from fabstir.renter.prompt_secrets import PromptSecrets
from fabstir.renter.settings import RenterSettings

STREAM_PREFIX: Final = "order:"
AUTHORIZATION_SECONDS: Final = 3_600
STEPS: Final = 32
"""Bounds one pass over one order."""

log = structlog.get_logger("fabstir.prompts")


class OrderServices(msgspec.Struct, frozen=True, kw_only=True):
    """What every order of a renter shares."""

    chain: PromptChain
    journal: Journal
    blobs: BlobStore
    contents: Contents
    clock: Clock
    secret: bytes
    """32 bytes: the renter's sealing key."""
    settings: RenterSettings = RenterSettings()
    wallet: SigningKey | None = None
    """Of the chain's account; only `settings.authorize` needs it."""
    acknowledge: bool = False
    """Also sign under policy `required`, where the host is paid by its proof without it."""
    paying: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    """One escrow at a time: an allowance is set, then used up, before the next one is set."""


class OrderCase:
    """Memory: the ledger, and while it is at hand the result."""

    def __init__(self, services: OrderServices, ledger: OrderLedger, hosts: tuple[Address, ...], alone: bool) -> None:
        """`hosts`: those that the prompt is sealed for. `alone`: it is reserved for them from the start."""
        self.ledger: Final = ledger
        self.hosts: Final = hosts
        self.wanted = True
        """False: the renter wants its money back as soon as nobody works."""
        self._services = services
        self._secrets = PromptSecrets(services.secret, ledger.terms.salt)
        self._rules = OrderRules(assign_at_once=alone, dispute_above=services.settings.dispute_above)
        self._lock = asyncio.Lock()
        self._resting = ""
        """Why an action has to wait; set by what carries it out."""

    def __repr__(self) -> str:
        return f"<OrderCase {self.ledger!r}>"

    async def advance(self) -> Rest:
        """Step after step until there is nothing to do now. Raises FabstirError: try again later."""
        async with self._lock:
            for _ in range(STEPS):
                self._resting = ""
                situation = await self._situation()
                action = plan(self.ledger, situation, self._rules)
                if isinstance(action, Rest):
                    await self._see_through(situation)
                    return action
                await self._pay(action)
                await self._note(action)
                await self._answer(action)
                if self._resting:
                    await self._see_through(situation)
                    return Rest(self._resting)
        return Rest("more next time")

    async def record(self, event: OrderEvent) -> None:
        """Write, then take in. Raises LocalFault (`journal_failed`)."""
        await self._services.journal.append(STREAM_PREFIX + self.ledger.prompt.hex(), [encode_event(event)])
        self.ledger.apply(event)
        log.info("order_stage", prompt_id=self.ledger.prompt, state=self.ledger.stage.value)

    async def _situation(self) -> OrderSituation:
        chain, ledger = self._services.chain, self.ledger
        status = await chain.prompt(ledger.prompt)
        now = max(self._services.clock.now(), await chain.timestamp())
        found = status.state is PromptState.COMPLETED and ledger.answer is None
        due = ledger.stage is OrderStage.POSTED and (self._rules.assign_at_once or ledger.lapses or status.until)
        return OrderSituation(
            status=status,
            now=now,
            completion=await chain.completion(ledger.prompt, ledger.planned.at) if found else None,
            candidates=await self._candidates() if due else (),
            wanted=self.wanted,
            job=await self._job(),
        )

    async def _job(self) -> JobState | None:
        answer = self.ledger.answer
        return await self._services.chain.job(answer.job) if answer is not None else None

    async def _candidates(self) -> tuple[Address, ...]:
        terms = self.ledger.terms
        fit = {
            entry.address
            for entry in await self._services.chain.hosts(terms.model_id)
            if (price := entry.price_of(terms.model_id, terms.token)) is not None and price <= terms.ceiling
        }
        return tuple(host for host in self.hosts if host in fit)

    # -- money -----------------------------------------------------------------------------------------------------------------

    async def _pay(self, action: Action) -> None:
        chain, terms = self._services.chain, self.ledger.terms
        match action:
            case PostOrder():
                await self._post(action)
            case AssignHost():
                await self._assign(action)
            case CancelOrder():
                try:
                    await chain.cancel_prompt(action.key, terms)
                except FabstirError as fault:
                    self._wait_for(fault, "a host claimed it meanwhile")
            case RefundOrder():
                await chain.refund_prompt(action.key, terms)
            case DisputeClaim():
                await self.record(DisputeSent(action.reason, self._services.clock.now()))
                await self._dispute(action.key)

    async def _post(self, action: PostOrder) -> None:
        services, terms = self._services, self.ledger.terms
        async with services.paying:
            if services.wallet is not None and services.settings.authorize and terms.token != ZERO_ADDRESS:
                info, until = services.chain.info, int(await services.chain.timestamp()) + AUTHORIZATION_SECONDS
                parties = (info.chain_id, terms.token, terms.renter, info.board)
                digest = authorization_digest(*parties, escrow_of(terms), until, Hash32(self.ledger.prompt))
                signature = services.wallet.sign(digest)
                await services.chain.post_prompt_with_authorization(action.key, terms, until, signature)
                return
            if terms.token != ZERO_ADDRESS:
                await services.chain.approve_board(f"{action.key}:approve", terms.token, action.escrow)
            await services.chain.post_prompt(action.key, terms)

    async def _assign(self, action: AssignHost) -> None:
        """The host gets the prompt first: without it a reservation would only cost time."""
        terms = self.ledger.terms
        await self.record(HostAssigned(action.host, self._services.clock.now()))
        try:
            sealed = await self._services.blobs.get(terms.prompt_cid)
            await self._services.contents.upload(await self._url_of(action.host), terms.prompt_cid, sealed)
        except FabstirError as fault:
            log.info("host_not_assigned", host_address=action.host, code=fault.code)
            return
        try:
            await self._services.chain.assign_prompts(action.key, ((terms, action.host),))
        except FabstirError as fault:
            if fault.code != "chain_reverted":
                raise

    async def _dispute(self, key: str) -> None:
        terms = self.ledger.market_terms
        if terms is None:
            raise AssertionError("there is nothing to dispute before the answer")
        if terms.token != ZERO_ADDRESS:
            await self._services.chain.approve(f"{key}:approve", terms.token, terms.bond)
        await self._services.chain.dispute(key, terms)

    async def _see_through(self, situation: OrderSituation) -> None:
        """What a job of the market still needs of its renter: a dispute that was only written down, the outcome of one that nobody
        answered, and the deposit of a host that never settles."""
        ledger, job, chain = self.ledger, situation.job, self._services.chain
        terms = ledger.market_terms
        if terms is None or job is None:
            return
        name = ledger.prompt.hex()
        if ledger.stage is OrderStage.DISPUTED and job.stage is ClaimStage.CLAIMED and situation.now < job.held_until:
            await self._dispute(f"prompt:dispute:0x{name}:0")
        elif job.stage is ClaimStage.DISPUTED and situation.now >= job.held_until:
            await chain.settle_claim(f"prompt:outcome:{name}:{job.held_until}", terms)
        elif situation.now >= terms.expires_at + terms.challenge and not (job.held or job.closed):
            await chain.finalize(f"prompt:finalize:{name}", terms)

    # -- what the chain showed ---------------------------------------------------------------------------------------------------

    async def _note(self, action: Action) -> None:
        now = self._services.clock.now()
        match action:
            case NotePosted():
                await self.record(OrderPosted(now))
            case NoteLapsed():
                await self.record(HostLapsed(action.host, action.until, now))
            case NoteAnswer():
                await self.record(AnswerSeen(action.completion, now))
            case NoteEnded():
                await self.record(OrderEnded(action.how, now))
            case RefuseResult():
                await self.record(ResultRefused(action.code, now))

    # -- the answer --------------------------------------------------------------------------------------------------------------

    async def _answer(self, action: Action) -> None:
        match action:
            case FetchResult():
                await self._fetch()
            case SignAnswer():
                await self._sign(action)
            case DeliverVoucher():
                await self._deliver(action)

    async def _fetch(self) -> None:
        try:
            await self.download()
        except FabstirError as fault:
            self._wait_for(fault, f"the result cannot be fetched: {fault.code}", always=True)
            return
        try:
            result, head = await self.read_result()
        except PeerFault as fault:
            await self.record(ResultRefused(fault.code, self._services.clock.now()))
            return
        await self.record(ResultAccepted(head, self._services.clock.now()))
        log.info("result_accepted", prompt_id=self.ledger.prompt, tokens=len(result.records))

    async def download(self) -> None:
        """Get the sealed result from its host, and keep it. Raises `host_unreachable`, `blob_missing`, `seal_invalid`, ..."""
        answer = self.ledger.answer
        if answer is None:
            raise error("prompt_pending")
        if not await self._services.blobs.has(answer.result_cid):
            sealed = await self._services.contents.download(await self._url_of(answer.host), answer.result_cid)
            check_cid(sealed, answer.result_cid)
            await self._services.blobs.put(sealed)

    async def read_result(self) -> tuple[PromptResult, Hash32]:
        """The result, opened and checked again, and the transcript's head over it. Raises `seal_invalid`, `seal_not_for_us`,
        `prompt_result_invalid`, `blob_missing`, `prompt_pending`."""
        ledger, services = self.ledger, self._services
        terms, answer = ledger.market_terms, ledger.answer
        if terms is None or answer is None:
            raise error("prompt_pending")
        body, content = await self._body()
        sealed = await services.blobs.get(answer.result_cid)
        try:
            opened = await asyncio.to_thread(
                unseal, sealed, self._secrets.reply, Binding.of(Content.RESULT, ledger.terms)
            )
        except FabstirError as fault:
            raise error("prompt_result_invalid", f"{fault.code}: {fault.detail}") from fault
        result = check_result(body, opened, answer.result_hash, answer.tokens)
        digests = digests_of(body, result.records)
        return result, answer_head(ledger.planned.market, terms, request_of(body, content), digests)

    async def _body(self) -> tuple[PromptBody, bytes]:
        """The prompt as it was sealed, read back from where it lies."""
        terms = self.ledger.terms
        sealed = await self._services.blobs.get(terms.prompt_cid)
        content = await asyncio.to_thread(unseal, sealed, self._secrets.own, Binding.of(Content.PROMPT, terms))
        return decode_body(content), content

    async def _sign(self, action: SignAnswer) -> None:
        if self.ledger.terms.policy is ProofPolicy.REQUIRED and not self._services.acknowledge:
            self._resting = "the host is paid by its proof"
            return
        market, signer = self.ledger.planned.market, self._secrets.signer
        digest = market.voucher_digest(JobId(action.job), action.amount, action.tokens, action.transcript)
        now = self._services.clock.now()
        await self.record(AnswerSigned(action.tokens, action.amount, action.transcript, signer.sign(digest), now))

    async def _deliver(self, action: DeliverVoucher) -> None:
        voucher = self.ledger.voucher
        if voucher is None:
            raise AssertionError("only what was signed is delivered")
        try:
            url = await self._url_of(action.host)
            await self._services.contents.voucher(url, self.ledger.prompt, WireVoucher.of(voucher))
        except FabstirError as fault:
            if fault.code != "job_closed":  # then it was paid by its proof
                self._wait_for(fault, f"the voucher cannot be delivered: {fault.code}", always=True)
                return
        await self.record(VoucherDelivered(self._services.clock.now()))

    async def _url_of(self, host: Address) -> str:
        """As it is registered. Raises Interrupted (`host_unreachable`)."""
        for entry in await self._services.chain.hosts():
            if entry.address == host:
                return entry.url
        raise error("host_unreachable", f"0x{host.hex()} is not registered any more")

    def _wait_for(self, fault: FabstirError, reason: str, *, always: bool = False) -> None:
        """Rest for `reason` where the fault is one to wait out, else raise it."""
        if not always and fault.code != "chain_reverted":
            raise fault
        log.info("order_waits", prompt_id=self.ledger.prompt, code=fault.code)
        self._resting = reason
