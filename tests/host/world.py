"""A host with everything around it in memory, and a renter that can be as wrong as a test wants.

The chain here is a table of job states (`tests.host.table_chain`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import msgspec
from nacl.signing import SigningKey as NodeSecret
from tests.host.table_chain import HOST, INFO, USDC, TableChain

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, JobId, ModelId, SessionId, from_hex, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.host.node import Engines, HostNode
from fabstir.host.session_actor import SessionActor
from fabstir.host.settings import HostSettings, ModelTerms
from fabstir.ops.metrics import Metrics
from fabstir.ports.chain import MarketChain
from fabstir.ports.engine import Engine
from fabstir.ports.journal import Journal
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.messages import (
    ChatMessage,
    Error,
    FromHost,
    Prompt,
    Receipt,
    ReceiptAck,
    Response,
    SessionAuth,
    SessionInit,
    SessionReady,
    SessionResume,
    StreamChunk,
    WireTerms,
    canonical,
    decode_from_host,
    encode,
)
from fabstir.protocol.signing import Market, SigningKey, job_id
from fabstir.protocol.transcript import Sampler, Transcript, job_head, request_hash
from fabstir.testing.clock import ManualClock
from fabstir.testing.engine import ScriptedEngine
from fabstir.testing.journal import MemoryJournal, WritePhase
from fabstir.testing.prover import HashProver
from fabstir.testing.transport import TransportEnd, transport_pair

WALLET, SESSION, STRANGER = (SigningKey(bytes([n]) * 32) for n in (2, 3, 4))
MODEL = ModelId(b"\x0b" * 32)
MARKET = Market(INFO.chain_id, INFO.market)
PRICE = PricePerMTok(200_000)
_salts = itertools.count(1)
T = TypeVar("T")


def some_terms(**changes: Any) -> Terms:
    """Terms that the host accepts, each time another job; `changes` make them what a test needs."""
    terms = Terms(
        renter=WALLET.address,
        signer=SESSION.address,
        host=HOST.address,
        token=USDC,
        price=PRICE,
        expires_at=1_800_100_000,
        challenge=900,
        exposure=Tokens(8),
        policy=ProofPolicy.REQUIRED,
        model_id=MODEL,
        salt=Hash32(next(_salts).to_bytes(32, "big")),
    )
    return msgspec.structs.replace(terms, **changes)


class Wire(Protocol):
    """What the renter speaks through: the end of a memory pair, or a WebSocket."""

    async def send(self, message: bytes | str) -> None: ...
    async def receive(self) -> bytes | str: ...


class Renter:
    """Speaks the protocol by hand; keeps the transcript; signs what it is asked to sign."""

    def __init__(self, wire: Wire, terms: Terms, key: SigningKey = SESSION) -> None:
        self.wire = wire
        self.terms = terms
        self.key = key
        self.job = job_id(terms)
        self.transcript = Transcript(job_head(MARKET, terms), Tokens(0))
        self.heads = {0: self.transcript.head}
        self.ready: SessionReady
        self.context: list[ChatMessage] = []
        self.message_index = 0
        self.acknowledged = 0

    # -- one message -----------------------------------------------------------------------------------------------------

    async def send(self, message: Any) -> None:
        await self.wire.send(message if isinstance(message, bytes | str) else encode(message).decode())

    async def next(self) -> FromHost:
        async with asyncio.timeout(30):  # a host that says nothing fails the test, it does not hang it
            return decode_from_host(await self.wire.receive())

    async def until(self, kind: type[T]) -> T:
        """The next message of this kind, past all others."""
        while not isinstance(message := await self.next(), kind):
            assert kind is Error or not isinstance(message, Error), message
        return message

    async def refused(self, message: Any) -> Error:
        """Send, and expect an error in answer."""
        await self.send(message)
        return await self.until(Error)

    # -- the conversation ---------------------------------------------------------------------------------------------------

    def auth(self, *, issued_at: int = 1_800_000_000, nonce: bytes | None = None, session: str = "chat") -> SessionAuth:
        number = Hash32(nonce or next(_salts).to_bytes(32, "big"))
        digest = MARKET.session_auth_digest(self.job, SessionId(session), issued_at, number)
        return SessionAuth(issued_at=issued_at, nonce=to_hex(number), signature=to_hex(self.key.sign(digest)))

    def init(self, **changes: Any) -> SessionInit:
        hello = SessionInit(
            session_id="chat", job_id=to_hex(self.job), terms=WireTerms.of(self.terms), auth=self.auth()
        )
        return msgspec.structs.replace(hello, **changes)

    def resume(self, **changes: Any) -> SessionResume:
        hello = SessionResume(
            session_id="chat",
            job_id=to_hex(self.job),
            terms=WireTerms.of(self.terms),
            auth=self.auth(),
            conversation_context=tuple(self.context),
            tokens_received=self.transcript.tokens,
            transcript=to_hex(self.heads[self.transcript.tokens]),
        )
        return msgspec.structs.replace(hello, **changes)

    async def open(self, hello: SessionInit | SessionResume | None = None) -> SessionReady:
        """Begin, or go on; both sides agree on the position."""
        await self.send(hello or self.init())
        self.ready = await self.until(SessionReady)
        self.message_index = self.ready.message_index
        head = self.heads[self.ready.tokens_served]
        assert self.ready.transcript == to_hex(head)
        self.transcript = Transcript(head, Tokens(self.ready.tokens_served))
        return self.ready

    def continues(self, other: Renter) -> Renter:
        """The same renter on a new connection: it has what `other` received."""
        self.transcript, self.heads, self.acknowledged = other.transcript, other.heads, other.acknowledged
        self.context = other.context
        return self

    def prompt(self, content: str, **changes: Any) -> Prompt:
        prompt = Prompt(session_id="chat", message_index=self.message_index, content=content)
        return msgspec.structs.replace(prompt, **changes)

    async def ask(self, content: str, **changes: Any) -> None:
        """Send a prompt that the host is expected to take."""
        prompt = self.prompt(content, **changes)
        messages = (*self.context, ChatMessage("user", content))
        salt = Hash32(from_hex(self.ready.salt, 32))
        self.transcript.begin_turn(prompt.message_index, request_hash(salt, canonical((messages, prompt))))
        self.message_index += 1
        self.sampler = Sampler.of(prompt.temperature, prompt.top_p)
        await self.send(prompt)

    def take(self, chunk: StreamChunk) -> str:
        """Count what arrived."""
        assert chunk.index == self.transcript.tokens
        for record in chunk.tokens:
            self.transcript.append(Hash32(from_hex(self.ready.salt, 32)), (record,), self.sampler)
            self.heads[self.transcript.tokens] = self.transcript.head
        return chunk.content

    def ack(self, receipt: Receipt, **changes: Any) -> ReceiptAck:
        """The voucher for a receipt that says what arrived; `changes` are made before signing, except of the signature."""
        assert receipt.tokens == self.transcript.tokens and receipt.transcript == to_hex(self.heads[receipt.tokens])
        assert receipt.amount == str(cost(Tokens(receipt.tokens), self.terms.price))
        return self.voucher(receipt.tokens, receipt.amount, receipt.transcript, **changes)

    def voucher(self, tokens: int, amount: str, transcript: str, *, key: SigningKey | None = None) -> ReceiptAck:
        head = Hash32(from_hex(transcript, 32))
        digest = MARKET.voucher_digest(self.job, BaseUnits(int(amount)), Tokens(tokens), head)
        signature = (key or self.key).sign(digest)
        return ReceiptAck(
            session_id="chat", tokens=tokens, amount=amount, transcript=transcript, signature=to_hex(signature)
        )

    async def hear(self, *, ack: bool = True, until: int = 1 << 30) -> tuple[str, Response | Error | None]:
        """Take the answer in until it ends, or until so many tokens of the job are here; sign each receipt."""
        pieces: list[str] = []
        while self.transcript.tokens < until:
            message = await self.next()
            if isinstance(message, StreamChunk):
                pieces.append(self.take(message))
            elif isinstance(message, Receipt) and ack and message.tokens > self.acknowledged:
                await self.send(self.ack(message))
                self.acknowledged = message.tokens
            elif isinstance(message, Response | Error):
                return "".join(pieces), message
        return "".join(pieces), None

    async def chat(self, content: str, **changes: Any) -> str:
        """One whole turn, acknowledged."""
        await self.ask(content, **changes)
        text, end = await self.hear()
        assert isinstance(end, Response), end
        self.context += [ChatMessage("user", content), ChatMessage("assistant", text)]
        return text


class FailingDisk:
    """For `MemoryJournal`: refuses every write while `fails`."""

    def __init__(self) -> None:
        self.fails = False

    def hook(self, _number: int, phase: WritePhase) -> None:
        if self.fails and phase == "before":
            raise error("journal_failed", "disk full")


class HeldJournal(MemoryJournal):
    """Writes wait until the test lets them go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()
        self.waiting = 0

    async def append(self, stream: str, events: Sequence[bytes]) -> None:
        self.waiting += 1
        await self.free.wait()
        self.waiting -= 1
        await super().append(stream, events)


class World:
    """One running host and its surroundings."""

    def __init__(
        self,
        journal: Journal | None = None,
        engine: ScriptedEngine | None = None,
        clock: ManualClock | None = None,
        further: Mapping[ModelId, Mapping[str, Engine]] | None = None,
        further_terms: tuple[ModelTerms, ...] = (),
        **settings: Any,
    ) -> None:
        """`further`: engines of the further models, with `further_terms`."""
        self.further = further or {}
        self.clock = clock or ManualClock()
        self.chain = TableChain()
        self.engine = engine or ScriptedEngine()
        self.prover = HashProver()
        self.journal = journal or MemoryJournal()
        self.metrics = Metrics(USDC)
        self.settings = msgspec.structs.replace(
            HostSettings(model_id=MODEL, price=PRICE, further=further_terms), **settings
        )
        self.settlements: list[JobId] = []
        self._connections: list[asyncio.Task[None]] = []
        self.node = self.new_node(self.journal)

    def new_node(self, journal: Journal, engines: Engines | None = None) -> HostNode:
        node = HostNode(
            engines=engines or {MODEL: {"engine": self.engine}, **self.further},
            chain=cast(MarketChain, self.chain),
            prover=self.prover,
            journal=journal,
            clock=self.clock,
            keys=(HOST, NodeSecret(bytes(HOST.address) + bytes(12))),
            settings=self.settings,
            metrics=self.metrics,
        )
        node.on_settlement_request = self.settlements.append
        return node

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        """The node, started, with its background work, until the test ends."""
        await self.node.start()
        background = asyncio.create_task(self.node.run())
        try:
            yield self
        finally:
            background.cancel()
            await self.node.stop()
            if isinstance(self.journal, HeldJournal):
                self.journal.free.set()
            await asyncio.wait_for(asyncio.gather(background, *self._connections, return_exceptions=True), 30)

    def connect(self) -> TransportEnd:
        """The renter's end of a new connection."""
        host, renter = transport_pair()
        self._connections.append(asyncio.create_task(self.node.connect(host)))
        return renter

    async def renter(self, terms: Terms | None = None) -> Renter:
        """A renter with an open job and a session that stands."""
        renter = Renter(self.connect(), terms or self.chain.open(some_terms()))
        await renter.open()
        return renter

    def ledger(self, renter: Renter) -> HostLedger:
        """What the host's book says about the renter's job."""
        ledger = self.node.book.get(renter.job)
        assert ledger is not None
        return ledger

    def jobs_at_work(self) -> set[JobId]:
        """Jobs whose renter has a session now."""
        return {actor.core.ledger.job for actor in self.actors()}

    def actors(self) -> list[SessionActor]:
        """Sessions at work."""
        running = self.node._running
        assert running is not None
        return list(running.reception.actors())

    async def restarted(self) -> HostNode:
        """The host as the next process finds it: everything that is true must be on the disk."""
        assert isinstance(self.journal, MemoryJournal)
        node = self.new_node(self.journal.reopen())
        await node.book.restore()
        return node


async def eventually(condition: Callable[[], bool | Awaitable[bool]], within: float = 30) -> None:
    """Return once `condition` holds; a test that fails does so after so many seconds."""
    async with asyncio.timeout(within):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.001)
