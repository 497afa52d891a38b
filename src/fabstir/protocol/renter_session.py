"""One paid session as the renter sees it: a state machine without I/O, the counterpart of `host_session`.

It decides what is sent, what of the host's stream is believed, and above all what is signed: only a receipt that says exactly
what was received, at the price of the terms. Whatever does not fit is answered by signing nothing and leaving the host
(`LeaveHost`). It never chooses hosts; `fabstir.renter` does, and moves on with `session_resume` elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from fabstir.domain.errors import CATALOGUE, FabstirError, error
from fabstir.domain.ids import Hash32, SessionId, from_hex, to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.messages import (
    PROTOCOL_VERSION,
    Cancel,
    ChatMessage,
    DepositChanged,
    Error,
    Fingerprints,
    FromRenter,
    Notice,
    PaymentReceived,
    PaymentRequired,
    Pong,
    Prompt,
    Receipt,
    ReceiptAck,
    Response,
    SessionAuth,
    SessionEnd,
    SessionInit,
    SessionReady,
    SessionResume,
    StreamChunk,
    WireTerms,
    amount_of,
    canonical,
    decode_from_renter,
    encode,
    records_valid,
)
from fabstir.protocol.renter_items import (
    AnswerBroken,
    AnswerDone,
    Ask,
    Connect,
    Deliver,
    FingerprintsKept,
    Finish,
    HostLost,
    LeaveHost,
    PaymentDue,
    PaymentSeen,
    RenterCommand,
    RenterEffect,
    RenterInput,
    Rewound,
    SendHost,
    SessionClosed,
    SessionOpened,
    ShowNotice,
    StopAnswer,
    StoreRenter,
    TellDeposit,
    TurnKept,
)
from fabstir.protocol.renter_log import HostReleased, RenterEvent, RenterLedger, TurnSeen, VoucherSigned
from fabstir.protocol.rungs import Rung
from fabstir.protocol.signing import SigningKey, recover
from fabstir.protocol.transcript import Sampler, TokenRecord, Transcript, request_hash
from fabstir.protocol.transcript_file import SpokenTurn

AWAITED: Final = 16
"""Answers whose fingerprints may still come; of older ones they are not taken any more."""


class RenterState(Enum):
    """Where a session of the renter stands."""

    OFFLINE = "offline"
    """No connection."""
    OPENING = "opening"
    """session_init or session_resume is sent."""
    READY = "ready"
    """Waiting for a question."""
    RECEIVING = "receiving"
    """An answer streams in."""
    ENDING = "ending"
    """session_end is sent."""
    ENDED = "ended"
    """The host confirmed the end, or was left for good."""


class RenterSession:
    """The core. `receive(input, now)` -> effects.

    Memory: the conversation, one transcript head for each token that is not signed for (W and a little), the records of the answer at
    hand, the places of AWAITED answers.
    """

    def __init__(self, ledger: RenterLedger, key: SigningKey) -> None:
        self.ledger = ledger
        self.state = RenterState.OFFLINE
        self._key = key
        self._transcript = Transcript(ledger.signed_head, ledger.signed)
        self._heads: dict[int, Hash32] = {ledger.signed: ledger.signed_head}
        self._session = SessionId("")
        self._context: tuple[ChatMessage, ...] = ()
        self._salt = Hash32(bytes(32))
        self._message_index = 0
        self._prompt: Prompt | None = None
        self._sampler = Sampler(0, 1)
        self._answer: list[str] = []
        self._records: list[TokenRecord] = []
        self._messages: tuple[ChatMessage, ...] = ()
        """What the answer at hand answers."""
        self._answer_starts = Tokens(0)
        self._fingerprinting = False
        """This host makes fingerprints for this job."""
        self._awaited: dict[int, FingerprintedAnswer] = {}
        """Answers whose fingerprints have not come, by their index."""
        self._out: list[RenterEffect] = []

    def receive(self, item: RenterInput, now: float) -> list[RenterEffect]:
        """Take one input. A host that breaks the protocol is left."""
        handler = TRANSITIONS.get((self.state, type(item)))
        try:
            if handler is None:
                raise error("message_out_of_order", f"{type(item).__name__} while {self.state.value}")
            handler(self, item)
        except FabstirError as fault:
            if isinstance(item, RenterCommand):
                raise  # commands check before they act: there is nothing to take back
            self._leave(fault)
        out, self._out = self._out, []
        return out

    @property
    def received(self) -> Tokens:
        """Tokens of this job that arrived."""
        return self._transcript.tokens

    @property
    def context(self) -> tuple[ChatMessage, ...]:
        """The conversation so far."""
        return self._context

    @property
    def awaits_fingerprints(self) -> bool:
        """Those of an answer on this connection have not come, and may never come."""
        return bool(self._awaited)

    @property
    def partial(self) -> str:
        """What of the running or broken answer arrived."""
        return "".join(self._answer)

    def __repr__(self) -> str:
        return f"<RenterSession {self.ledger.job.hex()[:8]} {self.state.value}: received {self.received}, signed {self.ledger.signed}>"

    # -- commands --------------------------------------------------------------------------------------------------------

    def _connect(self, item: Connect) -> None:
        ledger = self.ledger
        if self.state is RenterState.OFFLINE:  # what was being made for the connection before is gone with it
            self._awaited = {}
        self._session, self._context, self._prompt, self._answer = item.session_id, item.context, None, []
        digest = ledger.market.session_auth_digest(ledger.job, item.session_id, item.issued_at, item.nonce)
        auth = SessionAuth(issued_at=item.issued_at, nonce=to_hex(item.nonce), signature=to_hex(self._key.sign(digest)))
        job, terms = to_hex(ledger.job), WireTerms.of(ledger.terms)
        if self.received == 0 and not item.context:
            message: FromRenter = SessionInit(
                session_id=item.session_id, job_id=job, terms=terms, auth=auth, rung=ledger.planned.rung
            )
        else:
            message = SessionResume(
                session_id=item.session_id,
                job_id=job,
                terms=terms,
                auth=auth,
                conversation_context=item.context,
                last_message_index=len(item.context),
                tokens_received=self.received,
                transcript=to_hex(self._heads[self.received]),
                rung=ledger.planned.rung,
            )
        self.state = RenterState.OPENING
        self._out.append(SendHost(message))

    def _ask(self, item: Ask) -> None:
        prompt = Prompt(
            session_id=self._session,
            message_index=self._message_index,
            content=item.content,
            max_tokens=item.max_tokens,
            temperature=item.temperature,
            top_p=item.top_p,
            seed=item.seed,
            stop=item.stop,
            prefix=item.prefix,
            score=item.score,
        )
        decode_from_renter(encode(prompt))  # the host could not read it, and could not say of which answer that is
        messages = (*self._context, ChatMessage("user", item.content))
        self._transcript.begin_turn(self._message_index, request_hash(self._salt, canonical((messages, prompt))))
        self._prompt, self._answer, self._answer_starts = prompt, [], self.received
        self._records, self._messages = [], messages
        self._sampler = Sampler.of(prompt.temperature, prompt.top_p)
        self.state = RenterState.RECEIVING
        self._out.append(SendHost(prompt))

    def _stop_answer(self, item: RenterInput) -> None:
        self._out.append(SendHost(Cancel(session_id=self._session, message_index=self._asked().message_index)))

    def _tell_deposit(self, item: RenterInput) -> None:
        self._out.append(SendHost(DepositChanged(session_id=self._session)))

    def _finish(self, item: RenterInput) -> None:
        self.state = RenterState.ENDING
        self._out.append(SendHost(SessionEnd(session_id=self._session, reason="renter")))

    def _lost(self, item: HostLost) -> None:
        fault = error("host_unreachable", item.detail)
        if self.state is RenterState.RECEIVING:
            self._break(fault)
        self.state = RenterState.OFFLINE

    # -- from the host -----------------------------------------------------------------------------------------------------

    def _session_ready(self, item: SessionReady) -> None:
        ledger, terms = self.ledger, self.ledger.terms
        named = (item.session_id, item.job_id, item.host, item.model_id, item.price_per_mtok, item.protocol)
        agreed = (to_hex(ledger.job), to_hex(terms.host), to_hex(terms.model_id), str(terms.price), PROTOCOL_VERSION)
        if named != (self._session, *agreed):
            raise error("message_malformed", "session_ready names another session, job, host, model, price or protocol")
        head = self._heads.get(item.tokens_served)
        if head is None or to_hex(head) != item.transcript:
            raise error(
                "transcript_mismatch",
                f"host continues at {item.tokens_served}, received {self.received}, signed {ledger.signed}",
            )
        self._transcript = Transcript(head, Tokens(item.tokens_served))
        self._heads = {n: h for n, h in self._heads.items() if n <= item.tokens_served}
        self._salt = Hash32(from_hex(item.salt, 32))
        self._message_index = item.message_index
        self._fingerprinting = ledger.planned.rung == Rung.FINGERPRINTS and "fingerprints" in item.capabilities
        self._awaited = {i: one for i, one in self._awaited.items() if one.first + one.tokens <= item.tokens_served}
        self.state = RenterState.READY
        self._out += (Rewound(self.received), SessionOpened(item))

    def _stream_chunk(self, item: StreamChunk) -> None:
        prompt = self._asked()
        if item.session_id != self._session or item.message_index != prompt.message_index:
            raise error("message_out_of_order", "stream_chunk of another answer")
        if item.index != self.received or not records_valid(item.tokens):
            raise error("message_out_of_order", f"stream_chunk at {item.index}, expected {self.received}")
        self._check_wanted(prompt, item.tokens)
        for record in item.tokens:
            self._transcript.append(self._salt, (record,), self._sampler)
            self._heads[self.received] = self._transcript.head
        self._answer.append(item.content)
        self._records += item.tokens
        self._out.append(Deliver(item.content, len(item.tokens), item.tokens))

    def _check_wanted(self, prompt: Prompt, records: tuple[TokenRecord, ...]) -> None:
        at, wanted = self.received - self._answer_starts, len(prompt.score) or prompt.max_tokens
        if at + len(records) > wanted:
            raise error("message_out_of_order", f"more than the {wanted} tokens that were asked for")
        if prompt.score and tuple(record.token for record in records) != prompt.score[at : at + len(records)]:
            raise error("message_out_of_order", "the host scored other tokens than were asked for")

    def _receipt(self, item: Receipt) -> None:
        ledger, tokens, amount = self.ledger, Tokens(item.tokens), amount_of(item.amount)
        if tokens != self.received or amount != ledger.amount(tokens):
            raise error("receipt_invalid", f"receipt over {tokens} tokens and {amount}; received {self.received}")
        head = self._heads[tokens]
        if item.transcript != to_hex(head):
            raise error("receipt_invalid", f"another transcript than what was received at {tokens} tokens")
        if amount > ledger.deposit:
            raise error("receipt_invalid", f"{amount} is above the deposit {ledger.deposit}")
        voucher, tokens_in, receipt = ledger.voucher, Tokens(item.tokens_in), from_hex(item.signature, 65)
        if voucher is not None and tokens_in < voucher.tokens_in:
            raise error("receipt_invalid", f"{tokens_in} tokens of prompts; it was {voucher.tokens_in} before")
        if (
            recover(ledger.market.receipt_digest(ledger.job, amount, tokens, tokens_in, head), receipt)
            != ledger.terms.host
        ):
            raise error("receipt_invalid", "not signed by the host of the terms")
        if voucher is None or tokens > voucher.tokens:
            signature = self._key.sign(ledger.market.voucher_digest(ledger.job, amount, tokens, head))
            voucher = VoucherSigned(tokens, amount, head, signature, receipt, tokens_in)
            self._record(voucher)
            self._heads = {n: h for n, h in self._heads.items() if n >= tokens}
        self._out.append(
            SendHost(
                ReceiptAck(
                    session_id=self._session,
                    tokens=voucher.tokens,
                    amount=str(voucher.amount),
                    transcript=to_hex(voucher.transcript),
                    signature=to_hex(voucher.signature),
                )
            )
        )

    def _response(self, item: Response) -> None:
        prompt = self._asked()
        if item.message_index != prompt.message_index:
            raise error("message_out_of_order", "response of another answer")
        text = prompt.prefix + self.partial
        if text and not prompt.score:  # as the host does: such an answer leaves no trace in the conversation
            self._context = (*self._context, ChatMessage("user", prompt.content), ChatMessage("assistant", text))
        self._message_index = prompt.message_index + 1
        self._prompt = None
        self.state = RenterState.READY
        self._record(TurnSeen(item.message_index, self.received, item.finish_reason))
        self._keep(prompt, item.finish_reason, item.usage.prompt_tokens)
        self._await_fingerprints(prompt)
        self._out.append(AnswerDone(item))

    def _await_fingerprints(self, prompt: Prompt) -> None:
        if not self._fingerprinting or prompt.score or not self._records:
            return
        self._awaited[prompt.message_index] = FingerprintedAnswer(
            session=self._session,
            message_index=prompt.message_index,
            first=self._answer_starts,
            tokens=Tokens(len(self._records)),
            transcript=self._transcript.head,
        )
        if len(self._awaited) > AWAITED:
            del self._awaited[next(iter(self._awaited))]

    def _fingerprints(self, item: Fingerprints) -> None:
        """They come some time after their answer, or never. Of an answer that is not waited for they are nobody's concern."""
        of = self._awaited.get(item.message_index)
        if of is None or item.session_id != of.session:
            return
        if (item.first, item.tokens, item.transcript) != (of.first, of.tokens, to_hex(of.transcript)):
            raise error("fingerprints_invalid", f"of another answer than was received with index {item.message_index}")
        if not of.fits(item.fingerprints):
            raise error("fingerprints_invalid", f"{len(item.fingerprints)} of them for {of.tokens} tokens")
        ledger, signature = self.ledger, from_hex(item.signature, 65)
        if of.signed_by(ledger.market, ledger.job, item.fingerprints, signature) != ledger.terms.host:
            raise error("fingerprints_invalid", "not signed by the host of the terms")
        del self._awaited[item.message_index]
        self._out.append(FingerprintsKept(of, item.fingerprints, item.signature))

    def _host_error(self, item: Error) -> None:
        """An error that names the answer ends it, and both sides must agree again before the next (`Connect`). While a session opens or
        ends, it means that the host does not want us. Any other is about a single message and changes nothing."""
        fault = as_fault(item)
        if self.state is RenterState.RECEIVING and item.message_index == self._asked().message_index:
            self._break(fault)
            self.state = RenterState.OFFLINE
        elif self.state in (RenterState.OPENING, RenterState.ENDING):
            self._leave(fault)

    def _session_ended(self, item: SessionEnd) -> None:
        ledger = self.ledger
        if item.close_signature is not None and item.tokens_acknowledged == ledger.signed:
            amount, signature = ledger.amount(ledger.signed), from_hex(item.close_signature, 65)
            if recover(ledger.market.close_digest(ledger.job, amount, ledger.signed), signature) == ledger.terms.host:
                self._record(HostReleased(ledger.signed, amount, signature))
        if self.state is RenterState.RECEIVING:
            self._break(error("host_unreachable", item.reason))
        self.state = RenterState.ENDED
        self._out.append(SessionClosed(item))

    def _payment_required(self, item: PaymentRequired) -> None:
        self._out.append(PaymentDue(max(0, item.tokens_affordable - self.received)))

    def _payment_received(self, item: PaymentReceived) -> None:
        self._out.append(PaymentSeen(amount_of(item.deposit)))

    def _notice(self, item: Notice) -> None:
        self._out.append(ShowNotice(item))

    def _ignore(self, item: RenterInput) -> None:
        """Late messages of an answer that is over."""

    def _asked(self) -> Prompt:
        """The question in the works; there is one while an answer streams."""
        if self._prompt is None:
            raise AssertionError(f"no question while {self.state.value}")
        return self._prompt

    # -- inner -------------------------------------------------------------------------------------------------------------

    def _break(self, fault: FabstirError) -> None:
        self._record(TurnSeen(self._asked().message_index, self.received, fault.code))
        self._keep(self._asked(), fault.code, 0)
        self._prompt = None
        self._out.append(AnswerBroken(fault))

    def _keep(self, prompt: Prompt, reason: str, prompt_tokens: int) -> None:
        turn = SpokenTurn(
            tokens_before=self._answer_starts,
            messages=self._messages,
            prompt=prompt,
            salt=to_hex(self._salt),
            text=self.partial,
            records=tuple(self._records),
            prompt_tokens=prompt_tokens,
            finish_reason=reason,
        )
        self._out.append(TurnKept(turn))

    def _leave(self, fault: FabstirError) -> None:
        if self.state is RenterState.RECEIVING:
            self._break(fault)
        self.state = RenterState.OFFLINE
        self._out.append(LeaveHost(fault))

    def _record(self, event: RenterEvent) -> None:
        self.ledger.apply(event)
        self._out.append(StoreRenter((event,)))


def as_fault(message: Error) -> FabstirError:
    """The host's error as one of ours; a code that this version does not know becomes `engine_failed`, its words kept."""
    code = message.code if message.code in CATALOGUE else "engine_failed"
    return error(code, message.detail or message.message, message.next_step)


_Handler = Callable[[RenterSession, Any], None]
_S = RenterState
_R = RenterSession
_LIVE: Final = (_S.OPENING, _S.READY, _S.RECEIVING, _S.ENDING)

TRANSITIONS: Final[dict[tuple[RenterState, type], _Handler]] = {
    (_S.OFFLINE, Connect): _R._connect,
    (_S.READY, Connect): _R._connect,
    (_S.READY, Ask): _R._ask,
    (_S.RECEIVING, StopAnswer): _R._stop_answer,
    (_S.READY, StopAnswer): _R._ignore,
    (_S.READY, Finish): _R._finish,
    **{(s, TellDeposit): _R._tell_deposit for s in (_S.READY, _S.RECEIVING)},
    **{(s, PaymentRequired): _R._payment_required for s in (_S.READY, _S.RECEIVING)},
    **{(s, PaymentReceived): _R._payment_received for s in (_S.READY, _S.RECEIVING)},
    **{(s, HostLost): _R._lost for s in _LIVE},
    **{(s, HostLost): _R._ignore for s in (_S.OFFLINE, _S.ENDED)},
    (_S.OPENING, SessionReady): _R._session_ready,
    (_S.RECEIVING, StreamChunk): _R._stream_chunk,
    (_S.RECEIVING, Receipt): _R._receipt,
    (_S.READY, Receipt): _R._receipt,
    (_S.RECEIVING, Response): _R._response,
    **{(s, Fingerprints): _R._fingerprints for s in _LIVE},
    **{(s, Error): _R._host_error for s in _LIVE},
    **{(s, SessionEnd): _R._session_ended for s in (_S.READY, _S.RECEIVING, _S.ENDING)},
    **{(s, Pong): _R._ignore for s in RenterState},
    **{(s, Notice): _R._notice for s in _LIVE},
    **{
        (s, kind): _R._ignore
        for s in (_S.OFFLINE, _S.ENDED)
        for kind in (
            *(StreamChunk, Receipt, Response, Fingerprints),
            *(PaymentRequired, PaymentReceived, Error, SessionEnd, Notice),
        )
    },
    **{(_S.ENDING, kind): _R._ignore for kind in (StreamChunk, Receipt, Response, PaymentRequired, PaymentReceived)},
}
"""(state, input) -> handler. Anything else from the host is a protocol error: the host is left and nothing is signed."""
