"""Two session cores, two journals and the wire between them, all in memory: what the protocol tests play on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fabstir.domain.ids import Address, Hash32, ModelId, SessionId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.protocol import host_log, renter_log
from fabstir.protocol.context.history import Weight
from fabstir.protocol.effects import (
    CancelGeneration,
    CountTokens,
    Disconnect,
    HostEffect,
    RunFingerprints,
    RunGeneration,
    Send,
    Store,
)
from fabstir.protocol.fingerprinted import CHUNK_TOKENS
from fabstir.protocol.generation import GenerationEnd, GenerationRequest, TokenBatch
from fabstir.protocol.host_log import HostLedger, JobAdmitted
from fabstir.protocol.host_session import (
    EngineBatch,
    EngineFinished,
    FingerprintsMade,
    HostInput,
    HostOffer,
    HostSession,
    RenterLost,
    SessionState,
    TokensCounted,
)
from fabstir.protocol.messages import (
    ChatMessage,
    DepositChanged,
    Error,
    FromHost,
    FromRenter,
    Prompt,
    SessionInit,
    SessionResume,
    WireTerms,
    decode_from_host,
    decode_from_renter,
    encode,
)
from fabstir.protocol.renter_items import (
    AnswerBroken,
    AnswerDone,
    Ask,
    Connect,
    Deliver,
    FingerprintsKept,
    HostLost,
    LeaveHost,
    RenterEffect,
    RenterInput,
    Rewound,
    SendHost,
    SessionClosed,
    StoreRenter,
    TurnKept,
)
from fabstir.protocol.renter_log import JobPlanned, RenterLedger
from fabstir.protocol.renter_session import RenterSession, RenterState
from fabstir.protocol.signing import Market, SigningKey, keccak
from fabstir.protocol.tool_text import plain
from fabstir.protocol.transcript import TokenRecord
from fabstir.protocol.transcript_file import ReceiptFile, SessionTranscript, SpokenTurn, signed_count

HOST_KEY = SigningKey(b"\x01" * 32)
SESSION_KEY = SigningKey(b"\x02" * 32)
MARKET = Market(31337, Address(b"\x0a" * 20))
SESSION = SessionId("talk")
FORGERY = "<|end|>"
"""A control token of the model, as text."""


def terms(exposure: int = 64, price: int = 200_000, policy: ProofPolicy = ProofPolicy.REQUIRED) -> Terms:
    """Terms between the two test keys."""
    return Terms(
        renter=Address(b"\x03" * 20),
        signer=SESSION_KEY.address,
        host=HOST_KEY.address,
        token=Address(b"\x04" * 20),
        price=PricePerMTok(price),
        expires_at=2_000_000_000,
        challenge=900,
        exposure=Tokens(exposure),
        policy=policy,
        model_id=ModelId(b"\x05" * 32),
        salt=Hash32(b"\x06" * 32),
    )


def records(first: int, count: int) -> tuple[TokenRecord, ...]:
    """`count` distinguishable records."""
    return tuple(TokenRecord(first + i, -(first + i) % 1000 - 1000, ((first + i, -1000),)) for i in range(count))


class World:
    """A host, a renter, their journals and the wire. Deterministic; nothing happens unless a method is called.

    `fuse` cuts one side's power: that many effects later the process is gone, whatever it was doing.
    """

    def __init__(
        self,
        agreed: Terms,
        deposit: int,
        max_answer_tokens: int = 4096,
        rung: int | None = None,
        controls: tuple[str, ...] = (),
    ) -> None:
        self.terms, self.now = agreed, 1_000.0
        self.offer = HostOffer(
            model="m",
            context_size=2048,
            max_message_bytes=1 << 20,
            max_answer_tokens=max_answer_tokens,
            fingerprints=rung is not None,
            controls=controls,
        )
        admitted = JobAdmitted(agreed, BaseUnits(deposit), MARKET, self.now, rung=rung)
        planned = JobPlanned(agreed, BaseUnits(deposit), MARKET, b"\x02" * 32, "ws://host", self.now, rung=rung)
        self.host_journal = [host_log.encode_event(admitted)]
        self.renter_journal = [renter_log.encode_event(planned)]
        self.host = HostSession(self.replay_host(), HOST_KEY, self.offer)
        self.renter = RenterSession(self.replay_renter(), SESSION_KEY)
        self.to_host: deque[bytes] = deque()
        self.to_renter: deque[bytes] = deque()
        self.linked = False
        self.generation: RunGeneration | None = None
        self.reading: deque[RunFingerprints] = deque()
        """Answers that the host is to make fingerprints of."""
        self.counting: CountTokens | None = None
        """What the host waits for, where `counts` is False."""
        self.counts = True
        """Texts are counted at once: one token for each word."""
        self.generated = 0
        self.nonce = 0
        self.on_wire = 0
        self.text: list[str] = []
        self.done: list[RenterEffect] = []
        self.kept: list[SpokenTurn] = []
        """What a renter that keeps transcripts has."""
        self.lost_turn = False
        """The renter crashed before it kept an answer."""
        self.host_fuse: int | None = None
        self.renter_fuse: int | None = None
        self.crashes = 0
        self.asked: list[GenerationRequest] = []
        self.meant: tuple[ChatMessage, ...] | None = ()
        """The conversation as the renter knew it when it asked last; None where something may be left out."""
        self.errors: list[Error] = []
        """What the host complained of to its renter."""

    # -- journals ----------------------------------------------------------------------------------------------------

    def replay_host(self) -> HostLedger:
        return HostLedger.replay([host_log.decode_event(data) for data in self.host_journal])

    def replay_renter(self) -> RenterLedger:
        return RenterLedger.replay([renter_log.decode_event(data) for data in self.renter_journal])

    # -- effects ---------------------------------------------------------------------------------------------------------

    def host_in(self, item: HostInput) -> list[FromHost]:
        """Feed the host; returns what it sent."""
        return self._host_run(lambda: self.host.receive(item, self.now))

    def _host_run(self, step: Callable[[], list[HostEffect]]) -> list[FromHost]:
        sent: list[FromHost] = []
        for effect in step():
            if self._blown("host"):
                break
            match effect:
                case Store(events=events):
                    self.host_journal += [host_log.encode_event(event) for event in events]
                case Send(message=message):
                    sent.append(message)
                    self.errors += [message] if isinstance(message, Error) and self.linked else []
                    self.on_wire += len(getattr(message, "tokens", ()) or ()) if hasattr(message, "index") else 0
                    if self.linked:
                        self.to_renter.append(encode(message))
                case CountTokens():
                    self.counting = effect
                case RunGeneration():
                    self.generation = effect
                    self.asked.append(effect.request)
                    assert self.meant in (None, effect.request.messages), "both sides know the same conversation"
                case CancelGeneration():
                    self.generation = None
                case RunFingerprints():
                    self.reading.append(effect)
                case Disconnect():
                    pass
                case _:
                    pass
        if self.counting is not None and self.counts:
            sent += self.count()
        return sent

    def count(self) -> list[FromHost]:
        """The engine has counted; returns what the host sent."""
        run, self.counting = self.counting, None
        assert run is not None
        weights = tuple(Weight(len(text.split()), FORGERY in text) for text in run.texts)
        return self.host_in(TokensCounted(run.turn, weights))

    def renter_in(self, item: RenterInput) -> None:
        """Feed the renter."""
        for effect in self.renter.receive(item, self.now):
            if self._blown("renter"):
                return
            match effect:
                case StoreRenter(events=events):
                    self.renter_journal += [renter_log.encode_event(event) for event in events]
                case SendHost(message=message):
                    if isinstance(message, Prompt):
                        asked = plain((*self.renter.context, message.message), message)
                        self.meant = asked if message.context is None else None
                    if self.linked:
                        self.to_host.append(encode(message))
                case Deliver(text=text):
                    self.text.append(text)
                case LeaveHost():
                    self.done.append(effect)
                    self.cut()
                case AnswerDone() | AnswerBroken() | SessionClosed():
                    self.done.append(effect)
                case TurnKept() | FingerprintsKept() | Rewound():
                    self._keep(effect)
                case _:
                    pass

    def _keep(self, effect: TurnKept | FingerprintsKept | Rewound) -> None:
        match effect:
            case TurnKept(turn=turn):
                self.kept.append(turn)
            case FingerprintsKept():
                self._keep_fingerprints(effect)
            case Rewound(tokens=tokens):
                self.kept = [turn.until(tokens) for turn in self.kept if turn.tokens_before < tokens]

    def _keep_fingerprints(self, made: FingerprintsKept) -> None:
        places = [n for n, turn in enumerate(self.kept) if turn.prompt.message_index == made.of.message_index]
        assert len(places) == 1 or self.lost_turn, "those of an answer that was kept"
        for place in places:
            self.kept[place] = msgspec.structs.replace(
                self.kept[place], fingerprints=made.fingerprints, fingerprints_signature=made.signature
            )

    def transcript(self) -> SessionTranscript:
        """The same with words."""
        ledger = self.renter.ledger
        return SessionTranscript(
            chain_id=MARKET.chain_id,
            market=to_hex(MARKET.address),
            terms=WireTerms.of(ledger.terms),
            turns=tuple(self.kept),
            signed=signed_count(ledger),
        )

    def receipt(self) -> ReceiptFile:
        """What the renter can show."""
        ledger = self.renter.ledger
        return ReceiptFile(
            chain_id=MARKET.chain_id,
            market=to_hex(MARKET.address),
            terms=WireTerms.of(ledger.terms),
            turns=tuple(turn.hashed() for turn in self.kept),
            signed=signed_count(ledger),
        )

    def _blown(self, side: str) -> bool:
        fuse = self.host_fuse if side == "host" else self.renter_fuse
        if fuse is None:
            return False
        if fuse > 0:
            setattr(self, f"{side}_fuse", fuse - 1)
            return False
        self.crash_host() if side == "host" else self.crash_renter()
        return True

    # -- what happens --------------------------------------------------------------------------------------------------------

    def connect(self, context: tuple = ()) -> None:
        """A fresh connection, or a new conversation on the one that stands; the renter introduces itself."""
        self.linked = True
        self.nonce += 1
        self.renter_in(
            Connect(session_id=SESSION, context=context, nonce=keccak(self.nonce.to_bytes(4, "big")), issued_at=1000)
        )

    def deliver_to_host(self) -> FromRenter | None:
        """One message reaches the host."""
        if not self.to_host:
            return None
        message = decode_from_renter(self.to_host.popleft())
        if isinstance(message, SessionInit | SessionResume):
            salt = keccak(b"salt" + self.nonce.to_bytes(4, "big"))
            self._host_run(lambda: self.host.attach(message, salt, self.now))
        elif not isinstance(message, DepositChanged):  # for the shell, which looks at the chain
            self.host_in(message)
        return message

    def deliver_to_renter(self) -> FromHost | None:
        """One message reaches the renter."""
        if not self.to_renter:
            return None
        message = decode_from_host(self.to_renter.popleft())
        self.renter_in(message)
        return message

    def ask(self, content: str = "q", max_tokens: int = 300, **controls: Any) -> None:
        """The renter's question reaches the host."""
        self.renter_in(Ask(content=content, max_tokens=max_tokens, **controls))
        self.flow()

    def say(self, count: int, text: str = "") -> None:
        """The engine makes `count` tokens, everything is delivered and acknowledged."""
        self.generate(count, text)
        self.flow()

    def answer(self, count: int, content: str = "q") -> None:
        """One whole answer of `count` tokens."""
        self.ask(content)
        self.say(count)
        self.finish_generation()
        self.flow()

    def tick(self, seconds: float) -> list[FromHost]:
        """Time passes for the host; returns what it sent."""
        self.now += seconds
        return self._host_run(lambda: self.host.tick(self.now))

    def on_the_way(self) -> list[Any]:
        """What the host sent and the renter has not got yet."""
        return [decode_from_host(data) for data in self.to_renter]

    def flow(self) -> None:
        """Everything in flight arrives."""
        while self.to_host or self.to_renter:
            self.deliver_to_host()
            self.deliver_to_renter()

    def generate(self, count: int, text: str = "") -> None:
        """The engine makes `count` tokens."""
        if self.generation is None or count <= 0:
            return
        first, self.generated = self.generated, self.generated + count
        self.host_in(EngineBatch(self.generation.turn, TokenBatch(records(first, count), text or f"<{first}:{count}>")))

    def finish_generation(self, reason: str = "stop") -> None:
        """The engine is done."""
        if self.generation is not None:
            turn, self.generation = self.generation.turn, None
            self.host_in(
                EngineFinished(turn, GenerationEnd(finish_reason=reason, prompt_tokens=5, completion_tokens=0))
            )

    def fingerprint(self) -> list[FromHost]:
        """The fingerprints of the oldest answer without are made; returns what the host sent."""
        run = self.reading.popleft()
        ids = b"".join(token.to_bytes(4, "big") for token in run.answer)
        chunks = range(0, len(ids), 4 * CHUNK_TOKENS)
        return self.host_in(FingerprintsMade(run.of, tuple(keccak(ids[at : at + 4 * CHUNK_TOKENS]) for at in chunks)))

    def cut(self, arrived: int = 0) -> None:
        """The connection breaks after `arrived` more messages arrived on each side."""
        if not self.linked:
            return
        self.linked = False
        for _ in range(arrived):
            self.deliver_to_host()
            self.deliver_to_renter()
        self.to_host.clear()
        self.to_renter.clear()
        self.generation = None if self.host.state is SessionState.DETACHED else self.generation
        self.host_in(RenterLost())
        if self.renter.state not in (RenterState.OFFLINE, RenterState.ENDED):
            self.renter_in(HostLost())

    def crash_host(self) -> None:
        """Power off, power on: only the journal is left."""
        self.crashes += 1
        self.host_fuse, self.generation, self.counting, linked = None, None, None, self.linked
        self.linked = False
        self.to_host.clear()
        self.reading.clear()
        self.host = HostSession(self.replay_host(), HOST_KEY, self.offer)
        while linked and self.to_renter:
            self.deliver_to_renter()
        if self.renter.state not in (RenterState.OFFLINE, RenterState.ENDED):
            self.renter_in(HostLost())

    def crash_renter(self) -> None:
        """The same on the other side."""
        self.renter_fuse, self.lost_turn = None, True
        self.renter = RenterSession(self.replay_renter(), SESSION_KEY)
        self.to_renter.clear()
        linked, self.linked = self.linked, False
        while linked and self.to_host:
            self.deliver_to_host()
        self.host_in(RenterLost())


def same_ledger(left: HostLedger, right: HostLedger) -> bool:
    """Equal in everything that is derived from the log."""
    fields = (
        "records",
        "head",
        "heads",
        "voucher",
        "message_index",
        "in_turn",
        "checkpoints",
        "commitment",
        "finished",
    )
    return all(getattr(left, name) == getattr(right, name) for name in fields)


def changed(message: msgspec.Struct, **fields: object) -> bytes:
    """`message` with other fields, as bytes."""
    return encode(msgspec.structs.replace(message, **fields))


def opened(
    exposure: int = 64, deposit: int = 1_000_000, max_answer_tokens: int = 4096, rung: int | None = None
) -> World:
    """A world whose sides are connected and ready."""
    world = World(terms(exposure=exposure), deposit, max_answer_tokens, rung)
    world.connect()
    world.flow()
    return world


def named(effects: Sequence[object]) -> list[str]:
    """Effects by their names; a message by its own, an error by its code."""
    told: list[str] = []
    for effect in effects:
        match effect:
            case Send(message=Error(code=code)):
                told.append(code)
            case Send(message=message) | SendHost(message=message):
                told.append(type(message).__name__)
            case AnswerBroken(fault=fault) | LeaveHost(fault=fault):
                told.append(f"{type(effect).__name__} {fault.code}")
            case _:
                told.append(type(effect).__name__)
    return told
