"""Prompt jobs as a program uses them:

    async with Market(...) as market:
        order = await market.post_prompt(model="tiny-chat", content="Write about bees.", max_tokens=200)
        print((await order.result()).text)

Nobody has to wait: the order is in the journal, and another process finds it again (`market.orders`). It gets on while
somebody asks for it (`status`, `events`, `result`, `advance_prompts`); the money needs nobody: hosts work without the
renter, and what is not answered can be taken back after the deadline at any time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import MAX_ANSWER_TOKENS, Cid, PromptId, PromptTerms
from fabstir.domain.terms import ProofPolicy
from fabstir.ports.chain import NO_KEY, HostEntry
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.prompt_content import PromptBody, encode
from fabstir.protocol.prompt_order import Rest
from fabstir.protocol.prompt_order_log import (
    OrderLedger,
    OrderPlanned,
    OrderStage,
    decode_event,
    encode_event,
)
from fabstir.protocol.prompt_signing import escrow_of, prompt_id
from fabstir.protocol.sealed import ENTROPY, Binding, Content, cid, seal
from fabstir.protocol.signing import Market as Contract
from fabstir.renter.prompt_case import STREAM_PREFIX, OrderCase, OrderServices
from fabstir.renter.prompt_secrets import PromptSecrets

HOSTS_PREFIX: Final = "order-hosts:"
MAX_HOSTS: Final = 16
"""Hosts that a prompt is sealed for and uploaded to, cheapest first."""
POLL_SECONDS: Final = 1.0


class PromptOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is rarely said. The rest of the terms is as `RenterSettings` has it."""

    execute_seconds: int = 600
    """How long a host may hold the job."""
    policy: ProofPolicy | None = None
    """None: as the settings say."""
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int | None = None
    stop: tuple[str, ...] = ()


class OrderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where an order stands, for a person or a program. Amounts in base units."""

    prompt: str
    stage: str
    """`OrderStage`: planned, posted, answered, accepted, refused, signed, delivered, disputed, ended."""
    board: str
    """The board's state: none, posted, reserved, claimed, completed, cancelled, refunded."""
    host: str = ""
    """Who holds it, or answered it."""
    until: int = 0
    """Unix seconds at which claim or reservation is over."""
    deadline: int
    """Unix seconds from which the money can be taken back."""
    escrow: str
    tokens: int = 0
    """Of the answer; 0 while there is none."""
    price: str = "0"
    """What the answer costs."""
    lapsed: tuple[str, ...] = ()
    """Hosts that had it and let it run out."""
    ended: str = ""
    """How it ended."""
    fault: str = ""
    """Why the result was refused."""
    waits_for: str = ""


class OrderResult(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is what its host committed to on chain."""

    text: str
    finish_reason: str
    tokens: int
    price: BaseUnits
    host: Address


class Order:
    """One prompt job of this renter."""

    def __init__(self, case: OrderCase, services: OrderServices) -> None:
        self._case = case
        self._services = services

    def __repr__(self) -> str:
        return f"<Order {self._case.ledger!r}>"

    @property
    def id(self) -> PromptId:
        """keccak-256 of the terms."""
        return self._case.ledger.prompt

    @property
    def terms(self) -> PromptTerms:
        """As they are on chain."""
        return self._case.ledger.terms

    async def status(self) -> OrderStatus:
        """Do what is due, and look. Raises ChainFault, LocalFault."""
        rest = await self._case.advance()
        board = await self._services.chain.prompt(self.id)
        ledger = self._case.ledger
        return OrderStatus(
            prompt=to_hex(self.id),
            stage=ledger.stage.value,
            board=board.state.name.lower(),
            host=to_hex(board.host) if board.host != ZERO_ADDRESS else "",
            until=board.until,
            deadline=ledger.terms.deadline,
            escrow=str(escrow_of(ledger.terms)),
            tokens=ledger.answer.tokens if ledger.answer else 0,
            price=str(ledger.price),
            lapsed=tuple(sorted(map(to_hex, ledger.lapsed))),
            ended=ledger.ended,
            fault=ledger.fault,
            waits_for=rest.reason,
        )

    async def events(self) -> AsyncIterator[OrderStatus]:
        """Each change of the status, until the result is here or the order is over."""
        last: OrderStatus | None = None
        while True:
            found = await self._patiently(self.status())
            if found is not None and found != last:
                last = found
                yield found
            if self._is_over:
                return
            await self._services.clock.sleep(POLL_SECONDS)

    async def result(self) -> OrderResult:
        """Wait for the answer. Raises Refused (`prompt_ended`), PeerFault (`prompt_result_invalid`), LocalFault."""
        while not self._is_over:
            await self._patiently(self._case.advance())
            if not self._is_over:
                await self._services.clock.sleep(POLL_SECONDS)
        return await self.result_now()

    async def result_now(self) -> OrderResult:
        """The answer, if it is here. Raises also Refused (`prompt_pending`)."""
        ledger = self._case.ledger
        if ledger.fault:
            raise error("prompt_result_invalid", ledger.fault)
        if ledger.answer is None:
            raise error("prompt_ended", ledger.ended) if ledger.ended else error("prompt_pending", ledger.stage.value)
        if ledger.transcript is None:
            if not ledger.ended:
                raise error("prompt_pending", ledger.stage.value)
            await self._case.download()  # the host was settled with before the result was fetched
        result, _ = await self._case.read_result()
        return OrderResult(
            text=result.text,
            finish_reason=result.finish_reason,
            tokens=ledger.answer.tokens,
            price=ledger.price,
            host=ledger.answer.host,
        )

    async def settled(self) -> str:
        """Wait until the money is where it belongs; returns how it ended."""
        while not self._case.ledger.ended:
            await self._patiently(self._case.advance())
            if not self._case.ledger.ended:
                await self._services.clock.sleep(POLL_SECONDS)
        return self._case.ledger.ended

    async def cancel(self) -> OrderStatus:
        """Take the money back as soon as nobody works: now, or when a claim lapses while this process asks on."""
        self._case.wanted = False
        return await self.status()

    async def refund(self) -> OrderStatus:
        """Take the money back after the deadline. Raises Refused (`prompt_pending`) before it."""
        found = await self.status()
        if not self._case.ledger.ended and self._case.ledger.answer is None:
            raise error("prompt_pending", f"{found.board}; refundable from {found.deadline}")
        return found

    @property
    def _is_over(self) -> bool:
        ledger = self._case.ledger
        return bool(ledger.ended or ledger.fault or ledger.transcript is not None)

    @staticmethod
    async def _patiently(work: object) -> OrderStatus | None:
        """What can be waited out is waited out."""
        try:
            return await work  # type: ignore[misc,no-any-return]
        except FabstirError as fault:
            if not fault.retryable:
                raise
            return None


class Prompts:
    """Every order of this renter that is not over. Memory: one ledger for each."""

    def __init__(self, services: OrderServices) -> None:
        self._services = services
        self._orders: dict[PromptId, Order] = {}
        self._cases: dict[PromptId, OrderCase] = {}

    def __repr__(self) -> str:
        return f"<Prompts {len(self._orders)} orders>"

    @property
    def orders(self) -> tuple[Order, ...]:
        """Oldest first, those that are over included."""
        return tuple(self._orders.values())

    def get(self, prompt: PromptId) -> Order:
        """Raises Refused (`prompt_unknown`)."""
        if prompt not in self._orders:
            raise error("prompt_unknown", to_hex(prompt))
        return self._orders[prompt]

    async def restore(self) -> None:
        """Read every order. Raises LocalFault (`journal_failed`)."""
        journal = self._services.journal
        for stream in await journal.streams():
            if not stream.startswith(STREAM_PREFIX):
                continue
            name = stream.removeprefix(STREAM_PREFIX)
            try:
                ledger = OrderLedger.replay([decode_event(data) for data in await journal.read(stream)])
                kept = await journal.read(HOSTS_PREFIX + name)
                hosts, alone = msgspec.msgpack.decode(kept[-1], type=tuple[tuple[bytes, ...], bool])
            except (msgspec.MsgspecError, ValueError, IndexError) as unreadable:
                raise error("journal_failed", f"{stream}: {unreadable}") from unreadable
            self._keep(OrderCase(self._services, ledger, tuple(map(Address, hosts)), alone))

    async def advance(self) -> dict[PromptId, Rest]:
        """Do for every order what is due now: assignments, refunds, results, disputes. Raises ChainFault, LocalFault."""
        running = [case for case in self._cases.values() if case.ledger.stage is not OrderStage.ENDED]
        return {case.ledger.prompt: await case.advance() for case in running}

    async def post(
        self,
        model: ModelId,
        content: str | tuple[ChatMessage, ...],
        max_tokens: int,
        max_price: PricePerMTok | None,
        deadline: int,
        hosts: Sequence[Address] | None,
        options: PromptOptions,
    ) -> Order:
        """Seal, upload, write down, pay. Raises Refused (`no_host`), Interrupted (`hosts_exhausted`), ChainFault, LocalFault."""
        if self._services.settings.token not in (None, self._services.chain.info.usdc):
            raise error(
                "request_invalid", "prompt jobs are paid for in USDC, and the renter's settings name another currency"
            )
        most = max_price or self._services.settings.max_price
        entries = await self._hosts(model, most, hosts)
        ceiling = most or max(price for _, price in entries)
        terms = await self._terms(model, ceiling, max_tokens, deadline, options)
        messages = (ChatMessage("user", content),) if isinstance(content, str) else content
        terms, sealed = await self._seal(terms, messages, [entry for entry, _ in entries], options)
        await self._services.blobs.put(sealed)
        took = await self._upload([entry for entry, _ in entries], terms.prompt_cid, sealed)
        case = await self._write_down(terms, took, alone=hosts is not None and len(took) == 1)
        await case.advance()
        return self._orders[case.ledger.prompt]

    async def _hosts(
        self, model: ModelId, most: PricePerMTok | None, wanted: Sequence[Address] | None
    ) -> list[tuple[HostEntry, PricePerMTok]]:
        """Those that can be sealed to, cheapest first."""
        found: list[tuple[HostEntry, PricePerMTok]] = []
        for entry in await self._services.chain.hosts(model):
            price = entry.price_of(model, self._services.chain.info.usdc)
            named = wanted is None or entry.address in wanted
            if named and price is not None and entry.encryption_key != NO_KEY and (most is None or price <= most):
                found.append((entry, price))
        if not found:
            raise error("no_host", "nobody who takes prompt jobs is registered for this model, currency and price")
        return sorted(found, key=lambda pair: (pair[1], pair[0].address))[:MAX_HOSTS]

    async def _terms(
        self,
        model: ModelId,
        ceiling: PricePerMTok,
        max_tokens: int,
        deadline: int,
        options: PromptOptions,
    ) -> PromptTerms:
        if not 0 < max_tokens <= MAX_ANSWER_TOKENS:
            raise error("request_invalid", f"max_tokens is {max_tokens}; 1 to {MAX_ANSWER_TOKENS}")
        chain, salt, settings = self._services.chain, Hash32(os.urandom(32)), self._services.settings
        now = int(max(self._services.clock.now(), await chain.timestamp()))
        return PromptTerms(
            renter=chain.account,
            signer=PromptSecrets(self._services.secret, salt).signer.address,
            token=chain.info.usdc,
            assigner=ZERO_ADDRESS,
            arbiter=settings.arbiter,
            ceiling=ceiling,
            bond=settings.bond,
            max_tokens=Tokens(max_tokens),
            deadline=now + deadline,
            execute_seconds=options.execute_seconds,
            challenge=settings.challenge,
            policy=settings.policy if options.policy is None else options.policy,
            model_id=model,
            prompt_cid=Cid(bytes(32)),
            salt=salt,
        )

    async def _seal(
        self,
        terms: PromptTerms,
        messages: tuple[ChatMessage, ...],
        entries: list[HostEntry],
        options: PromptOptions,
    ) -> tuple[PromptTerms, bytes]:
        secrets = PromptSecrets(self._services.secret, terms.salt)
        body = PromptBody(
            messages=messages,
            reply_key=secrets.reply.public,
            record_salt=secrets.records,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed,
            stop=options.stop,
        )
        keys = dict.fromkeys((*(bytes(entry.encryption_key) for entry in entries), secrets.own.public))
        binding = Binding.of(Content.PROMPT, terms)
        sealed = await asyncio.to_thread(seal, encode(body), tuple(keys), binding, os.urandom(ENTROPY))
        return msgspec.structs.replace(terms, prompt_cid=cid(sealed)), sealed

    async def _upload(self, entries: list[HostEntry], name: Cid, sealed: bytes) -> tuple[Address, ...]:
        """To all at once; returns for whom it is sealed, those that took it first. One at least must have taken it."""
        contents = self._services.contents
        asked = (contents.upload(entry.url, name, sealed) for entry in entries)
        said = await asyncio.gather(*asked, return_exceptions=True)
        others = [fault for fault in said if isinstance(fault, BaseException) and not isinstance(fault, FabstirError)]
        if others:
            raise others[0]
        took = [entry.address for entry, fault in zip(entries, said, strict=True) if fault is None]
        if not took:
            raise error(
                "hosts_exhausted", "; ".join(f"{e.url}: {fault}" for e, fault in zip(entries, said, strict=True))
            )
        return (*took, *(entry.address for entry in entries if entry.address not in took))

    async def _write_down(self, terms: PromptTerms, hosts: tuple[Address, ...], *, alone: bool) -> OrderCase:
        services, info = self._services, self._services.chain.info
        market = Contract(info.chain_id, info.market)
        planned = OrderPlanned(terms, info.board, market, services.clock.now())
        name = prompt_id(terms).hex()
        await services.journal.append(HOSTS_PREFIX + name, [msgspec.msgpack.encode((hosts, alone))])
        await services.journal.append(STREAM_PREFIX + name, [encode_event(planned)])
        return self._keep(OrderCase(services, OrderLedger(planned), hosts, alone))

    def _keep(self, case: OrderCase) -> OrderCase:
        self._cases[case.ledger.prompt] = case
        self._orders[case.ledger.prompt] = Order(case, self._services)
        return case
