"""One paid session as the host sees it: a state machine without I/O, fed by messages, engine items and time.

It decides what is served, when the stream must stop (never more than W tokens beyond the renter's last signature, never beyond the deposit), what is
written to the log, which receipt is issued and which voucher is good. It never reads a clock, a socket or the chain, and never keeps what was
said anywhere but in `Conversation` (memory). Admission (does the job exist on chain?) happened before: see `fabstir.protocol.admission`.
Theory of operation: docs/explanation/session.md. Transitions are the table at the end of this file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32, SessionId, to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.conversation import Conversation
from fabstir.protocol.effects import CancelGeneration, Disconnect, HostEffect, RequestSettlement, RunGeneration, Send, Store
from fabstir.protocol.generation import GenerationEnd, GenerationRequest, TokenBatch
from fabstir.protocol.host_log import (
    HostEvent,
    HostLedger,
    Resynced,
    SessionFinished,
    TokensServed,
    TurnEnded,
    TurnStarted,
    VoucherAccepted,
)
from fabstir.protocol.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Error,
    Notice,
    Ping,
    Pong,
    Prompt,
    Receipt,
    ReceiptAck,
    Response,
    SessionEnd,
    SessionInit,
    SessionReady,
    SessionResume,
    StreamChunk,
    Usage,
    amount_of,
    canonical,
)
from fabstir.protocol.signing import SigningKey, recover
from fabstir.protocol.transcript import extend, record_digest, request_hash

CAPABILITIES: Final = ("stream", "resume", "prefix", "cancel", "receipts")


class SessionState(Enum):
    """Where a session of the host stands."""

    DETACHED = "detached"
    """No renter is connected; the job is open and can be resumed."""
    READY = "ready"
    """Connected; waiting for a prompt."""
    GENERATING = "generating"
    """An answer is being generated and streamed."""
    BLOCKED = "blocked"
    """Generated tokens wait: W tokens are served and not acknowledged."""
    FINISHED = "finished"
    """Nothing more will be served; the job is being settled."""


class HostOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What this host says about itself in `session_ready`, and its bounds."""

    model: str
    context_size: int
    max_message_bytes: int
    max_answer_tokens: int = 4096
    """Bounds the tokens that one session may hold back while it waits for an acknowledgement."""
    ack_timeout: float = 30.0
    """Seconds for which a stream waits at the exposure bound."""


class EngineBatch(msgspec.Struct, frozen=True):
    """Items of generation `turn`."""

    turn: int
    batch: TokenBatch


class EngineFinished(msgspec.Struct, frozen=True):
    """Generation `turn` is complete."""

    turn: int
    end: GenerationEnd


class EngineFailed(msgspec.Struct, frozen=True):
    """Generation `turn` was cut off."""

    turn: int
    fault: FabstirError


class RenterLost(msgspec.Struct, frozen=True):
    """The connection is gone."""

    code: str = "host_unreachable"


class ChainClosing(msgspec.Struct, frozen=True):
    """The chain shows that the job is closing, closed or expiring: serve nothing more."""

    code: str = "job_closed"


HostInput = (
    SessionInit
    | SessionResume
    | Prompt
    | ReceiptAck
    | Cancel
    | SessionEnd
    | Ping
    | EngineBatch
    | EngineFinished
    | EngineFailed
    | RenterLost
    | ChainClosing
)


class _Turn:
    """The answer in the works."""

    def __init__(self, index: int, prompt: Prompt, budget: int, deposit_bound: bool) -> None:
        self.index = index
        self.prompt = prompt
        self.budget = budget
        self.deposit_bound = deposit_bound
        self.held: deque[TokenBatch] = deque()
        """Generated, not yet served. Bounded by max_answer_tokens."""
        self.text: list[str] = []
        self.served = 0
        self.generated = 0
        self.end: GenerationEnd | None = None


class HostSession:
    """The core. `receive(input, now)` -> effects; `tick(now)` when `next_deadline()` has passed.

    Memory: the conversation, at most `max_answer_tokens` tokens held back, W record digests not yet stored.
    """

    def __init__(self, ledger: HostLedger, key: SigningKey, offer: HostOffer) -> None:
        self.ledger = ledger
        self.state = SessionState.FINISHED if ledger.finished or ledger.closed else SessionState.DETACHED
        self._key = key
        self._offer = offer
        self._session = SessionId("")
        self._salt = Hash32(bytes(32))
        self._conversation = Conversation()
        self._turn: _Turn | None = None
        self._turns = 0
        self._unsaved: list[bytes] = []
        self._head = ledger.head
        self._issued: dict[int, Hash32] = {}
        """Receipts that wait for a voucher: tokens -> head."""
        self._blocked_until: float | None = None
        self._out: list[HostEffect] = []

    # -- the four verbs ------------------------------------------------------------------------------------------------

    def attach(self, message: SessionInit | SessionResume, salt: Hash32, now: float) -> list[HostEffect]:
        """An admitted renter connects (or replaces the conversation between two answers). `salt` is 32 fresh random bytes."""
        return self._run(lambda: self._attach(message, salt))

    def receive(self, item: HostInput, now: float) -> list[HostEffect]:
        """Take one input. Errors of the peer become an `error` message; the state is unchanged by them."""
        handler = TRANSITIONS.get((self.state, type(item)))
        if handler is None:
            return self._run(lambda: self._refuse(item))
        return self._run(lambda: handler(self, item, now))

    def tick(self, now: float) -> list[HostEffect]:
        """Time has passed: end an answer whose acknowledgement is overdue."""
        if self._blocked_until is None or now < self._blocked_until:
            return []
        fault = error("ack_timeout", f"{self.served - self.ledger.acknowledged} tokens of {self.ledger.terms.exposure} unacknowledged")
        return self._run(lambda: self._break_off(fault))

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return self._blocked_until

    # -- views -----------------------------------------------------------------------------------------------------------

    @property
    def served(self) -> Tokens:
        """Tokens sent, stored or not."""
        return Tokens(self.ledger.served + len(self._unsaved))

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
        self._conversation = Conversation.of(message.conversation_context)
        if isinstance(message, SessionResume):
            self._agree(message)
        self._session = SessionId(message.session_id)
        self._salt = salt
        self.state = SessionState.READY
        self._send(self._ready())
        if self.ledger.served > self.ledger.acknowledged:
            self._issue_receipt()

    def _agree(self, message: SessionResume) -> None:
        """Settle where both continue: the smaller of both counts, if the transcripts agree there."""
        ledger = self.ledger
        if message.tokens_received >= ledger.served:
            return  # the renter has at least what the log holds and rewinds itself to `tokens_served`
        head = ledger.head_at(Tokens(message.tokens_received))
        if head is None or message.tokens_received < max(ledger.acknowledged, ledger.checkpointed):
            raise error("transcript_mismatch", f"{message.tokens_received} tokens are before the acknowledged {ledger.acknowledged}")
        if message.transcript is not None and message.transcript != to_hex(head):
            raise error("transcript_mismatch", f"heads differ at {message.tokens_received}")
        self._record(Resynced(Tokens(message.tokens_received), head))
        self._head = ledger.head

    def _ready(self) -> SessionReady:
        ledger, terms = self.ledger, self.ledger.terms
        return SessionReady(
            session_id=self._session,
            job_id=to_hex(ledger.job),
            host=to_hex(terms.host),
            model=self._offer.model,
            model_id=to_hex(terms.model_id),
            protocol=PROTOCOL_VERSION,
            capabilities=CAPABILITIES,
            price_per_mtok=str(terms.price),
            exposure=terms.exposure,
            context_size=self._offer.context_size,
            max_message_bytes=self._offer.max_message_bytes,
            tokens_served=ledger.served,
            tokens_acknowledged=ledger.acknowledged,
            tokens_affordable=ledger.affordable,
            transcript=to_hex(ledger.head_at(ledger.served) or ledger.head),
            salt=to_hex(self._salt),
            message_index=ledger.message_index,
        )

    # -- an answer -------------------------------------------------------------------------------------------------------

    def _prompt(self, item: HostInput, now: float) -> None:
        assert isinstance(item, Prompt)
        self._check_session(item.session_id)
        ledger = self.ledger
        if item.message_index != ledger.message_index:
            raise error("message_out_of_order", f"message_index {item.message_index}, expected {ledger.message_index}")
        left = ledger.affordable - self.served
        if left <= 0:
            raise error("deposit_exhausted", f"{self.served} tokens served, {ledger.affordable} paid for")
        wanted = min(item.max_tokens, self._offer.max_answer_tokens)
        self._turns += 1
        self._turn = _Turn(self._turns, item, min(wanted, left), deposit_bound=left < wanted)
        messages = self._conversation.asked(item.content)
        request = request_hash(self._salt, canonical((messages, item)))
        self._record(TurnStarted(item.message_index, request))
        self._head = ledger.head
        self.state = SessionState.GENERATING
        generation = GenerationRequest(
            messages=messages,
            prefix=item.prefix,
            max_tokens=self._turn.budget,
            temperature=item.temperature,
            top_p=item.top_p,
            seed=item.seed,
            stop=item.stop,
        )
        self._out.append(RunGeneration(generation, self._turns))

    def _engine_batch(self, item: HostInput, now: float) -> None:
        assert isinstance(item, EngineBatch)
        turn = self._turn
        if turn is None or item.turn != turn.index:
            return
        turn.generated += len(item.batch.records)
        turn.held.append(item.batch)
        self._pump(now)

    def _engine_finished(self, item: HostInput, now: float) -> None:
        assert isinstance(item, EngineFinished)
        if self._turn is None or item.turn != self._turn.index:
            return
        self._turn.end = item.end
        self._pump(now)

    def _engine_failed(self, item: HostInput, now: float) -> None:
        assert isinstance(item, EngineFailed)
        if self._turn is not None and item.turn == self._turn.index:
            self._turn.held.clear()
            self._break_off(item.fault, cancel=False)

    def _pump(self, now: float) -> None:
        """Serve what may be served; then block, or finish the answer."""
        turn, ledger = self._turn, self.ledger
        assert turn is not None
        while turn.held:
            room = ledger.acknowledged + ledger.terms.exposure - self.served
            batch = turn.held[0]
            if room <= 0:
                break
            if len(batch.records) > room:  # split: the text goes with the last of its tokens
                turn.held[0] = TokenBatch(batch.records[room:], batch.text)
                batch = TokenBatch(batch.records[:room], "")
            else:
                turn.held.popleft()
            self._serve(turn, batch)
            if len(self._unsaved) >= self._receipt_interval:
                self._issue_receipt()
        if turn.held:
            self._block(now)
        elif turn.end is not None:
            self._complete(turn, turn.end)
        else:
            self._unblock()

    @property
    def _receipt_interval(self) -> int:
        """Half of W: a receipt and its voucher are in flight while the other half streams."""
        return max(1, self.ledger.terms.exposure // 2)

    def _serve(self, turn: _Turn, batch: TokenBatch) -> None:
        first = self.served
        for record in batch.records:
            digest = record_digest(self._salt, self.served, record)
            self._unsaved.append(digest)
            self._head = extend(self._head, (digest,))
        turn.served += len(batch.records)
        turn.text.append(batch.text)
        self._send(
            StreamChunk(
                session_id=self._session,
                message_index=turn.prompt.message_index,
                index=first,
                content=batch.text,
                tokens=batch.records,
            )
        )

    def _block(self, now: float) -> None:
        if self._unsaved:
            self._issue_receipt()
        if self.state is not SessionState.BLOCKED:
            self.state = SessionState.BLOCKED
            self._blocked_until = now + self._offer.ack_timeout

    def _unblock(self) -> None:
        self._blocked_until = None
        if self.state is SessionState.BLOCKED:
            self.state = SessionState.GENERATING

    def _complete(self, turn: _Turn, end: GenerationEnd) -> None:
        reason = "deposit" if end.finish_reason == "length" and turn.deposit_bound else end.finish_reason
        text = turn.prompt.prefix + "".join(turn.text)
        self._conversation = self._conversation.answered(turn.prompt.content, text)
        self._finish_turn(turn, reason, end.prompt_tokens)

    def _finish_turn(self, turn: _Turn, reason: str, prompt_tokens: int) -> None:
        self._flush(TurnEnded(turn.prompt.message_index, reason))
        response = Response(
            session_id=self._session,
            message_index=turn.prompt.message_index,
            tokens_used=turn.served,
            finish_reason=reason,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=turn.served),
        )
        self._send_receipt()
        self._send(response)
        self._idle()

    def _idle(self) -> None:
        self._turn = None
        self._blocked_until = None
        if self.state is not SessionState.FINISHED:
            self.state = SessionState.READY

    def _cancel(self, item: HostInput, now: float) -> None:
        assert isinstance(item, Cancel)
        self._check_session(item.session_id)
        turn = self._turn
        assert turn is not None
        if item.message_index != turn.prompt.message_index:
            raise error("message_out_of_order", f"message_index {item.message_index} is not being answered")
        self._out.append(CancelGeneration(turn.index))
        text = turn.prompt.prefix + "".join(turn.text)
        self._conversation = self._conversation.answered(turn.prompt.content, text)
        self._finish_turn(turn, "cancelled", turn.end.prompt_tokens if turn.end else 0)

    def _break_off(self, fault: FabstirError, cancel: bool = True) -> None:
        """End the answer with a named error; what was served stays served and billed."""
        turn = self._turn
        assert turn is not None
        if cancel:
            self._out.append(CancelGeneration(turn.index))
        text = turn.prompt.prefix + "".join(turn.text)
        if text:
            self._conversation = self._conversation.answered(turn.prompt.content, text)
        self._flush(TurnEnded(turn.prompt.message_index, fault.code))
        self._send_receipt()
        self._send(Error.of(fault, self._session, turn.prompt.message_index))
        self._idle()

    # -- money -----------------------------------------------------------------------------------------------------------

    def _flush(self, *events: HostEvent) -> None:
        """Write unsaved tokens together with `events`."""
        unsaved = (TokensServed(b"".join(self._unsaved)),) if self._unsaved else ()
        self._unsaved = []
        if unsaved or events:
            self._record(*unsaved, *events)

    def _issue_receipt(self) -> None:
        self._flush()
        self._send_receipt()

    def _send_receipt(self) -> None:
        ledger = self.ledger
        tokens = ledger.served
        if tokens <= ledger.acknowledged:
            return
        head = ledger.heads[tokens]
        amount = ledger.amount(tokens)
        self._issued[tokens] = head
        signature = self._key.sign(ledger.market.receipt_digest(ledger.job, amount, tokens, head))
        self._send(
            Receipt(
                session_id=self._session,
                tokens=tokens,
                amount=str(amount),
                transcript=to_hex(head),
                signature=to_hex(signature),
            )
        )

    def _receipt_ack(self, item: HostInput, now: float) -> None:
        assert isinstance(item, ReceiptAck)
        self._check_session(item.session_id)
        self._accept_voucher(item)
        if self._turn is not None:
            self._pump(now)

    def _accept_voucher(self, ack: ReceiptAck) -> None:
        ledger, tokens, amount = self.ledger, Tokens(ack.tokens), amount_of(ack.amount)
        if amount > ledger.deposit:
            raise error("voucher_above_deposit", f"{amount} of {ledger.deposit}")
        if tokens <= ledger.acknowledged:
            raise error("voucher_stale", f"{tokens} tokens, {ledger.acknowledged} are acknowledged already")
        head = self._issued.get(tokens)
        if head is None or amount != ledger.amount(tokens) or ack.transcript != to_hex(head):
            raise error("voucher_invalid", f"no receipt says this about {tokens} tokens")
        signature = bytes.fromhex(ack.signature[2:])
        if recover(ledger.market.voucher_digest(ledger.job, amount, tokens, head), signature) != ledger.terms.signer:
            raise error("voucher_invalid", "not signed by the session key")
        self._record(VoucherAccepted(tokens, amount, head, signature))
        self._issued = {n: h for n, h in self._issued.items() if n > tokens}

    # -- endings -----------------------------------------------------------------------------------------------------------

    def _session_end(self, item: HostInput, now: float) -> None:
        assert isinstance(item, SessionEnd)
        self._check_session(item.session_id)
        self._finish("ended by the renter")
        ledger = self.ledger
        close = ledger.market.close_digest(ledger.job, ledger.amount(ledger.acknowledged), ledger.acknowledged)
        self._send(
            SessionEnd(
                session_id=self._session,
                reason=ledger.finished,
                tokens_served=ledger.served,
                tokens_acknowledged=ledger.acknowledged,
                close_signature=to_hex(self._key.sign(close)),
            )
        )
        self._out.append(Disconnect("ended"))

    def _finish(self, reason: str) -> None:
        if self._turn is not None:
            self._out.append(CancelGeneration(self._turn.index))
            self._flush(TurnEnded(self._turn.prompt.message_index, "ended"))
            self._turn = None
        self._blocked_until = None
        self._flush(SessionFinished(reason))
        self.state = SessionState.FINISHED
        self._out.append(RequestSettlement(reason))

    def _chain_closing(self, item: HostInput, now: float) -> None:
        assert isinstance(item, ChainClosing)
        if self.connected:
            self._send(Error.of(error(item.code), self._session or None))
            self._out.append(Disconnect(item.code))
        self._finish(item.code)

    def _renter_lost(self, item: HostInput, now: float) -> None:
        assert isinstance(item, RenterLost)
        if self._turn is not None:
            self._out.append(CancelGeneration(self._turn.index))
            self._flush(TurnEnded(self._turn.prompt.message_index, item.code))
            self._turn = None
        self._blocked_until = None
        self._conversation = Conversation()
        self._issued.clear()
        self.state = SessionState.DETACHED
        self._out.append(RequestSettlement("connection lost"))

    # -- the rest ------------------------------------------------------------------------------------------------------------

    def _ping(self, item: HostInput, now: float) -> None:
        assert isinstance(item, Ping)
        self._send(Pong(id=item.id))

    def _busy(self, item: HostInput, now: float) -> None:
        raise error("session_busy")

    def _ignore(self, item: HostInput, now: float) -> None:
        """Late items of a generation that ended, or a fact that changes nothing any more."""

    def _refuse(self, item: HostInput) -> None:
        raise error("message_out_of_order", f"{type(item).__name__} while {self.state.value}")

    def _check_session(self, session: str) -> None:
        if session != self._session:
            raise error("message_out_of_order", "another session_id than session_init named")

    def _record(self, *events: HostEvent) -> None:
        for event in events:
            self.ledger.apply(event)
        self._out.append(Store(events))

    def _send(self, message: SessionReady | StreamChunk | Receipt | Response | SessionEnd | Error | Pong | Notice) -> None:
        self._out.append(Send(message))

    def _run(self, step: Callable[[], None]) -> list[HostEffect]:
        """Run one step; a named error becomes a message and takes back nothing, because steps check before they act."""
        try:
            step()
        except FabstirError as fault:
            index = self._turn.prompt.message_index if self._turn else None
            self._send(Error.of(fault, self._session or None, index))
        out, self._out = self._out, []
        return out


_Handler = Callable[[HostSession, HostInput, float], None]
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
    **{(s, kind): _H._ignore for s in (_S.DETACHED, _S.READY, _S.FINISHED) for kind in (EngineBatch, EngineFinished, EngineFailed)},
    **{(s, ReceiptAck): _H._receipt_ack for s in _ATTACHED},
    **{(s, Cancel): _H._cancel for s in _STREAMING},
    **{(s, SessionEnd): _H._session_end for s in _ATTACHED},
    **{(s, Ping): _H._ping for s in SessionState},
    **{(s, RenterLost): _H._renter_lost for s in _ATTACHED},
    **{(s, RenterLost): _H._ignore for s in (_S.DETACHED, _S.FINISHED)},
    **{(s, ChainClosing): _H._chain_closing for s in (_S.DETACHED, *_ATTACHED)},
    (_S.FINISHED, ChainClosing): _H._ignore,
}
"""(state, input) -> handler. What is not in here is refused with `message_out_of_order`; tests walk every pair."""
