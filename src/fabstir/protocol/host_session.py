"""One paid session as the host sees it: a state machine without I/O.

It decides what is served, when the stream must stop (never more than W tokens beyond the renter's last signature, never
beyond the deposit), what is written to the log, which receipt is issued and which voucher is good. It never reads a clock, a
socket or the chain, and never keeps what was said anywhere but in `Conversation` (memory). Admission (does the job exist on
chain?) happened before: see `fabstir.protocol.admission`.
Theory of operation: docs/explanation/session.md. Transitions are the table at the end of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32, SessionId, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol.answer import Answer
from fabstir.protocol.conversation import Conversation
from fabstir.protocol.effects import (
    CancelGeneration,
    Disconnect,
    HostEffect,
    RequestSettlement,
    RunFingerprints,
    RunGeneration,
    Send,
    Store,
)
from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.generation import GenerationRequest, TokenBatch
from fabstir.protocol.held_records import HeldAnswer, HeldRecords
from fabstir.protocol.host_inputs import (
    ChainClosing,
    DepositSeen,
    EngineBatch,
    EngineFailed,
    EngineFinished,
    FingerprintsMade,
    HostInput,
    HostOffer,
    RenterLost,
    SessionState,
)
from fabstir.protocol.host_log import (
    DepositRaised,
    HostEvent,
    HostLedger,
    SessionFinished,
    TurnEnded,
    TurnStarted,
    session_tag,
)
from fabstir.protocol.messages import (
    PROTOCOL_VERSION,
    Cancel,
    ChatMessage,
    Error,
    Fingerprints,
    FromHost,
    PaymentReceived,
    PaymentRequired,
    Ping,
    Pong,
    Prompt,
    ReceiptAck,
    Response,
    SessionEnd,
    SessionInit,
    SessionReady,
    SessionResume,
    StreamChunk,
    Usage,
    canonical,
)
from fabstir.protocol.meter import Meter
from fabstir.protocol.rungs import Rung
from fabstir.protocol.signing import SigningKey
from fabstir.protocol.transcript import request_hash

__all__ = [
    "TRANSITIONS",
    "ChainClosing",
    "DepositSeen",
    "EngineBatch",
    "EngineFailed",
    "EngineFinished",
    "FingerprintsMade",
    "HostInput",
    "HostOffer",
    "HostSession",
    "RenterLost",
    "SessionState",
]

CAPABILITIES: Final = ("stream", "resume", "prefix", "cancel", "receipts", "top_up")
ANNOUNCE_AHEAD: Final = 4
"""`payment_required` is sent where the deposit pays for fewer than so many W of tokens: time for a top-up to be mined."""


class HostSession:
    """The core. `receive(input, now)` -> effects; `tick(now)` when `next_deadline()` has passed.

    Memory: the conversation, at most `max_answer_tokens` tokens held back, W record digests not yet stored.
    """

    def __init__(self, ledger: HostLedger, key: SigningKey, offer: HostOffer, held: HeldRecords | None = None) -> None:
        self.ledger = ledger
        self.state = SessionState.FINISHED if ledger.finished or ledger.closed else SessionState.DETACHED
        self._key = key
        self._offer = offer
        self._session = SessionId("")
        self._salt = Hash32(bytes(32))
        self._conversation = Conversation()
        self._answer: Answer | None = None
        self._turns = 0
        self._meter = Meter(ledger, key, held)
        self._held = held
        self._held_answer: HeldAnswer | None = None
        self._blocked_until: float | None = None
        self._announced_at = BaseUnits(0)
        """The deposit for which `payment_required` was sent."""
        self._out: list[HostEffect] = []

    # -- the four verbs ------------------------------------------------------------------------------------------------

    def attach(self, message: SessionInit | SessionResume, salt: Hash32, now: float) -> list[HostEffect]:
        """An admitted renter connects (or replaces the conversation between two answers). `salt` is 32 fresh random bytes."""
        return self._run(lambda: self._attach(message, salt))

    def receive(self, item: HostInput, now: float) -> list[HostEffect]:
        """Take one input. Errors of the peer become an `error` message; the state is unchanged by them."""
        handler = TRANSITIONS.get((self.state, type(item)))
        index = item.message_index if isinstance(item, Prompt) else None
        if handler is None:
            return self._run(lambda: self._refuse(item), index)
        return self._run(lambda: handler(self, item, now), index)

    def tick(self, now: float) -> list[HostEffect]:
        """Time has passed: end an answer whose acknowledgement is overdue."""
        if self._blocked_until is None or now < self._blocked_until:
            return []
        fault = error(
            "ack_timeout",
            f"{self.served - self.ledger.acknowledged} tokens of {self.ledger.terms.exposure} unacknowledged",
        )
        return self._run(lambda: self._break_off(fault))

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return self._blocked_until

    # -- views -----------------------------------------------------------------------------------------------------------

    @property
    def served(self) -> Tokens:
        """Tokens sent, stored or not."""
        return self._meter.served

    @property
    def connected(self) -> bool:
        """A renter is attached."""
        return self.state in (SessionState.READY, SessionState.GENERATING, SessionState.BLOCKED)

    def __repr__(self) -> str:
        return (
            f"<HostSession {self.ledger.job.hex()[:8]} {self.state.value}: served {self.served}, "
            f"acknowledged {self.ledger.acknowledged}, W {self.ledger.terms.exposure}>"
        )

    # -- attach ----------------------------------------------------------------------------------------------------------

    def _attach(self, message: SessionInit | SessionResume, salt: Hash32) -> None:
        if self.state in (SessionState.GENERATING, SessionState.BLOCKED):
            raise error("session_busy")
        if self.state is SessionState.FINISHED:
            raise error("job_closed", self.ledger.finished)
        if PROTOCOL_VERSION not in message.protocol:
            raise error("message_malformed", f"this host speaks protocol {PROTOCOL_VERSION}")
        agreed = self._meter.agree(message)
        if agreed:
            self._out.append(Store(agreed))
        self._conversation = Conversation.of(message.conversation_context)
        self._session = SessionId(message.session_id)
        self._salt = salt
        self.state = SessionState.READY
        self._send(self._ready())
        self._send_receipt()

    def _ready(self) -> SessionReady:
        ledger, terms = self.ledger, self.ledger.terms
        return SessionReady(
            session_id=self._session,
            job_id=to_hex(ledger.job),
            host=to_hex(terms.host),
            model=self._offer.model,
            model_id=to_hex(terms.model_id),
            protocol=PROTOCOL_VERSION,
            capabilities=(*CAPABILITIES, *self._extras()),
            price_per_mtok=str(terms.price),
            exposure=terms.exposure,
            context_size=self._offer.context_size,
            max_message_bytes=self._offer.max_message_bytes,
            tokens_served=ledger.served,
            tokens_acknowledged=ledger.acknowledged,
            tokens_affordable=ledger.affordable,
            transcript=to_hex(ledger.head),
            salt=to_hex(self._salt),
            message_index=ledger.message_index,
        )

    def _extras(self) -> tuple[str, ...]:
        offer = self._offer
        named = (("score", offer.scores), ("fingerprints", offer.fingerprints))
        return (*(name for name, here in named if here), *(f"rung_{rung}" for rung in offer.rungs))

    # -- an answer -------------------------------------------------------------------------------------------------------

    def _prompt(self, item: Prompt, now: float) -> None:
        self._check_session(item.session_id)
        ledger = self.ledger
        if item.message_index != ledger.message_index:
            raise error("message_out_of_order", f"message_index {item.message_index}, expected {ledger.message_index}")
        left = self._meter.left
        if left <= 0:
            raise error("deposit_exhausted", f"{self.served} tokens served, {ledger.affordable} paid for")
        wanted = self._wanted(item)
        self._turns += 1
        answer = Answer(self._turns, item, min(wanted, left), deposit_bound=left < wanted)
        self._answer = answer
        messages = self._conversation.asked(item.content)
        if self._held is not None:
            self._held_answer = self._held.begin(messages, item.prefix, self._salt)
        request = request_hash(self._salt, canonical((messages, item)))
        self._store(TurnStarted(item.message_index, request, session_tag(ledger.job, self._session)))
        self.state = SessionState.GENERATING
        generation = GenerationRequest(
            messages=messages,
            prefix=item.prefix,
            max_tokens=answer.budget,
            temperature=item.temperature,
            top_p=item.top_p,
            seed=item.seed,
            stop=item.stop,
            score=item.score[: answer.budget],
        )
        self._out.append(RunGeneration(generation, self._turns))
        self._announce_payment()

    def _wanted(self, item: Prompt) -> int:
        """Tokens that the renter asks for, within this host's bounds."""
        longest = self._offer.max_answer_tokens
        if not item.score:
            return min(item.max_tokens, longest)
        if not self._offer.scores:
            raise error("engine_refused", "this host does not score answers; see `capabilities` in session_ready")
        if len(item.score) > longest:
            raise error("engine_refused", f"{len(item.score)} tokens to score, at most {longest} at once")
        return len(item.score)

    def _engine_batch(self, item: EngineBatch, now: float) -> None:
        answer = self._running()
        if item.turn == answer.turn:
            answer.hold(item.batch)
            self._pump(now)

    def _engine_finished(self, item: EngineFinished, now: float) -> None:
        answer = self._running()
        if item.turn == answer.turn:
            answer.end = item.end
            self._pump(now)

    def _engine_failed(self, item: EngineFailed, now: float) -> None:
        if item.turn == self._running().turn:
            self._break_off(item.fault, cancel=False)

    def _running(self) -> Answer:
        """The answer in the works; there is one in every state that streams."""
        if self._answer is None:
            raise AssertionError(f"no answer while {self.state.value}")
        return self._answer

    def _pump(self, now: float) -> None:
        """Serve what may be served; then block, or finish the answer."""
        answer = self._running()
        while (batch := answer.take(self._meter.room)) is not None:
            self._serve(answer, batch)
            if self._meter.receipt_due:
                self._store()
                self._send_receipt()
        if answer.waiting:
            self._block(now)
        elif answer.end is not None:
            self._finish_turn(answer, answer.finish_reason(answer.end))
        else:
            self._unblock()

    def _serve(self, answer: Answer, batch: TokenBatch) -> None:
        first = self._meter.serve(self._salt, batch.records, answer.sampler, self._held_answer)
        self._announce_payment()
        self._send(
            StreamChunk(
                session_id=self._session,
                message_index=answer.prompt.message_index,
                index=first,
                content=batch.text,
                tokens=batch.records,
            )
        )

    def _block(self, now: float) -> None:
        if self.state is not SessionState.BLOCKED:
            self._store()
            self._send_receipt()
            self.state = SessionState.BLOCKED
            self._blocked_until = now + self._offer.ack_timeout

    def _unblock(self) -> None:
        self._blocked_until = None
        self.state = SessionState.GENERATING

    def _finish_turn(self, answer: Answer, reason: str) -> None:
        messages = self._conversation.asked(answer.prompt.content)
        self._remember(answer)
        usage = Usage(prompt_tokens=answer.end.prompt_tokens if answer.end else 0, completion_tokens=answer.served)
        self._store(TurnEnded(answer.prompt.message_index, reason, Tokens(usage.prompt_tokens)))
        self._send_receipt()
        self._send(
            Response(
                session_id=self._session,
                message_index=answer.prompt.message_index,
                tokens_used=answer.served,
                finish_reason=reason,
                usage=usage,
            )
        )
        self._fingerprint(answer, messages)
        self._idle()

    def _fingerprint(self, answer: Answer, messages: tuple[ChatMessage, ...]) -> None:
        """For a job that was admitted on rung 2 and pays for it; a scored answer is another host's."""
        ledger = self.ledger
        if not self._offer.fingerprints or ledger.rung != Rung.FINGERPRINTS or answer.prompt.score or not answer.ids:
            return
        of = FingerprintedAnswer(
            session=self._session,
            message_index=answer.prompt.message_index,
            first=Tokens(ledger.served - len(answer.ids)),
            tokens=Tokens(len(answer.ids)),
            transcript=ledger.head,
        )
        self._out.append(RunFingerprints(of, messages, answer.prompt.prefix, tuple(answer.ids)))

    def _fingerprints_made(self, item: FingerprintsMade, now: float) -> None:
        """Nothing where another session has begun since: its renter knows that answer by another connection, or not at all."""
        of, ledger = item.of, self.ledger
        if of.session != self._session:
            return
        self._send(
            Fingerprints(
                session_id=of.session,
                message_index=of.message_index,
                first=of.first,
                tokens=of.tokens,
                transcript=to_hex(of.transcript),
                fingerprints=item.fingerprints,
                signature=to_hex(self._key.sign(of.digest(ledger.market, ledger.job, item.fingerprints))),
            )
        )

    def _remember(self, answer: Answer) -> None:
        if answer.text and not answer.prompt.score:
            self._conversation = self._conversation.answered(answer.prompt.content, answer.text)

    def _idle(self) -> None:
        self._answer = None
        self._blocked_until = None
        self.state = SessionState.READY

    def _cancel(self, item: Cancel, now: float) -> None:
        self._check_session(item.session_id)
        answer = self._answer
        if answer is not None and item.message_index == answer.prompt.message_index:
            self._out.append(CancelGeneration(answer.turn))
            self._finish_turn(answer, "cancelled")
        elif item.message_index > self.ledger.message_index:
            raise error("message_out_of_order", f"message_index {item.message_index} is not being answered")
        # else it crossed the end or the refusal of its answer on the way, which is no fault of the renter

    def _break_off(self, fault: FabstirError, cancel: bool = True) -> None:
        """End the answer with a named error; what was served stays served and billed, what was held back is dropped. Neither side
        counts it as said: the renter brings the conversation along when it asks again."""
        answer = self._running()
        if cancel:
            self._out.append(CancelGeneration(answer.turn))
        self._store(TurnEnded(answer.prompt.message_index, fault.code))
        self._send_receipt()
        self._send(Error.of(fault, self._session, answer.prompt.message_index))
        self._idle()

    def _abandon(self, reason: str) -> None:
        """End the answer without a word: nobody is there to hear it."""
        answer, self._answer = self._answer, None
        self._blocked_until = None
        if answer is not None:
            self._out.append(CancelGeneration(answer.turn))
            self._store(TurnEnded(answer.prompt.message_index, reason))

    # -- money -----------------------------------------------------------------------------------------------------------

    def _store(self, *events: HostEvent) -> None:
        """Write tokens not yet stored together with `events`."""
        written = self._meter.record(*events)
        if written:
            self._out.append(Store(written))

    def _send_receipt(self) -> None:
        receipt = self._meter.receipt(self._session)
        if receipt is not None:
            self._send(receipt)

    def _receipt_ack(self, item: ReceiptAck, now: float) -> None:
        self._check_session(item.session_id)
        self._out.append(Store(self._meter.accept(item)))
        if self._answer is not None:
            self._pump(now)

    def _announce_payment(self) -> None:
        """Once for each deposit, before it is used up."""
        ledger = self.ledger
        if self._announced_at == ledger.deposit or self._meter.left > ANNOUNCE_AHEAD * ledger.terms.exposure:
            return
        self._announced_at = ledger.deposit
        self._send(
            PaymentRequired(
                session_id=self._session,
                tokens_served=self.served,
                tokens_affordable=ledger.affordable,
                deposit=str(ledger.deposit),
            )
        )

    def _deposit_seen(self, item: DepositSeen, now: float) -> None:
        """What was paid counts from the next prompt on: the running answer was asked for within the old deposit."""
        ledger = self.ledger
        if item.deposit > ledger.deposit:
            self._store(DepositRaised(item.deposit))
        self._send(
            PaymentReceived(session_id=self._session, tokens_affordable=ledger.affordable, deposit=str(ledger.deposit))
        )

    # -- endings -----------------------------------------------------------------------------------------------------------

    def _session_end(self, item: SessionEnd, now: float) -> None:
        """`Close` is signed where everything served is signed for: it gives up the rest for ever."""
        self._check_session(item.session_id)
        ledger = self.ledger
        self._abandon("ended")
        released = ledger.exposed == 0
        self._finish("ended by the renter", released=released)
        close = ledger.market.close_digest(ledger.job, ledger.amount(ledger.acknowledged), ledger.acknowledged)
        self._send(
            SessionEnd(
                session_id=self._session,
                reason=ledger.finished,
                tokens_served=ledger.served,
                tokens_acknowledged=ledger.acknowledged,
                close_signature=to_hex(self._key.sign(close)) if released else None,
            )
        )
        self._out.append(Disconnect("ended"))

    def _finish(self, reason: str, *, released: bool = False) -> None:
        self._abandon("ended")
        self._store(SessionFinished(reason, released))
        self._conversation = Conversation()
        self.state = SessionState.FINISHED
        self._out.append(RequestSettlement(reason))

    def _chain_closing(self, item: ChainClosing, now: float) -> None:
        if self.connected:
            self._send(Error.of(error(item.code), self._session))
            self._out.append(Disconnect(item.code))
        self._finish(item.code)

    def _renter_lost(self, item: RenterLost, now: float) -> None:
        self._abandon(item.code)
        self._conversation = Conversation()
        self.state = SessionState.DETACHED
        self._out.append(RequestSettlement("connection lost"))

    # -- the rest ------------------------------------------------------------------------------------------------------------

    def _ping(self, item: Ping, now: float) -> None:
        self._send(Pong(id=item.id))

    def _busy(self, item: Prompt, now: float) -> None:
        raise error("session_busy")

    def _ignore(self, item: HostInput, now: float) -> None:
        """Late items of a generation that ended, or a fact that changes nothing any more."""

    def _refuse(self, item: HostInput) -> None:
        raise error("message_out_of_order", f"{type(item).__name__} while {self.state.value}")

    def _check_session(self, session: str) -> None:
        if session != self._session:
            raise error("message_out_of_order", "another session_id than session_init named")

    def _send(self, message: FromHost) -> None:
        self._out.append(Send(message))

    def _run(self, step: Callable[[], None], message_index: int | None = None) -> list[HostEffect]:
        """Run one step. A named error becomes a message and takes back nothing, because steps check before they act. It carries
        `message_index` only where the prompt of that index was refused: other errors do not end an answer."""
        try:
            step()
        except FabstirError as fault:
            self._send(Error.of(fault, self._session or None, message_index))
        out, self._out = self._out, []
        return out


_Handler = Callable[[HostSession, Any, float], None]
_S = SessionState
_STREAMING: Final = (_S.GENERATING, _S.BLOCKED)
_ATTACHED: Final = (_S.READY, *_STREAMING)
_H = HostSession

TRANSITIONS: Final[dict[tuple[SessionState, type], _Handler]] = {
    (_S.READY, Prompt): _H._prompt,
    **{(s, Prompt): _H._busy for s in _STREAMING},
    **{(s, EngineBatch): _H._engine_batch for s in _STREAMING},
    **{(s, EngineFinished): _H._engine_finished for s in _STREAMING},
    **{(s, EngineFailed): _H._engine_failed for s in _STREAMING},
    **{
        (s, kind): _H._ignore
        for s in (_S.DETACHED, _S.READY, _S.FINISHED)
        for kind in (EngineBatch, EngineFinished, EngineFailed)
    },
    **{(s, FingerprintsMade): _H._fingerprints_made for s in _ATTACHED},
    **{(s, FingerprintsMade): _H._ignore for s in (_S.DETACHED, _S.FINISHED)},
    **{(s, ReceiptAck): _H._receipt_ack for s in _ATTACHED},
    **{(s, Cancel): _H._cancel for s in _ATTACHED},
    **{(s, SessionEnd): _H._session_end for s in _ATTACHED},
    **{(s, Ping): _H._ping for s in SessionState},
    **{(s, RenterLost): _H._renter_lost for s in _ATTACHED},
    **{(s, RenterLost): _H._ignore for s in (_S.DETACHED, _S.FINISHED)},
    **{(s, ChainClosing): _H._chain_closing for s in (_S.DETACHED, *_ATTACHED)},
    (_S.FINISHED, ChainClosing): _H._ignore,
    **{(s, DepositSeen): _H._deposit_seen for s in _ATTACHED},
    **{(s, DepositSeen): _H._ignore for s in (_S.DETACHED, _S.FINISHED)},
}
"""(state, input) -> handler. What is not in here is refused with `message_out_of_order`; tests walk every pair."""
