"""The wire: every message of the session protocol, version 1, as JSON objects tagged by `type`.

The same messages travel over the WebSocket `/v1/ws` and, later, over a libp2p stream. Unknown fields are ignored (a newer
peer may send more), unknown types are answered with an error. Amounts are decimal strings (they exceed 2**53), hashes and
keys 0x-prefixed lower-case hex.
Specification: docs/reference/protocol.md (generated from here); golden vectors: tests/protocol/vectors/messages.json.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, Hash32, JobId, ModelId, from_hex, to_hex
from fabstir.domain.money import MAX_AMOUNT, BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.protocol.fingerprinted import MAX_CHUNKS, SIZE
from fabstir.protocol.transcript import MAX_TOP, MIN_LOGPROB, TokenRecord

PROTOCOL_VERSION: Final = 1
MAX_CONTENT: Final = 1 << 20
MAX_SCORED: Final = 1 << 16
"""Tokens of the longest answer that is scored at once."""

# \Z, since $ would let a line break through at the end
Hex32 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{64}\Z")]
Hex20 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{40}\Z")]
Signature = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{130}\Z")]
Decimal = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,28})\Z")]
Session = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**32 - 2)]
Role = Annotated[str, Meta(pattern=r"^(system|user|assistant)\Z")]


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a conversation. `role` is system, user or assistant."""

    role: Role
    content: Annotated[str, Meta(max_length=MAX_CONTENT)]


class WireTerms(msgspec.Struct, frozen=True, kw_only=True):
    """`Terms` as text."""

    renter: Hex20
    signer: Hex20
    host: Hex20
    token: Hex20
    arbiter: Hex20
    price_per_mtok: Decimal
    bond: Decimal
    expires_at: Annotated[int, Meta(ge=0, lt=2**40)]
    challenge: Annotated[int, Meta(ge=0, lt=2**32)]
    exposure: Annotated[int, Meta(ge=1, lt=2**32)]
    policy: Annotated[int, Meta(ge=0, le=1)]
    model_id: Hex32
    salt: Hex32

    @classmethod
    def of(cls, terms: Terms) -> WireTerms:
        """`terms` as text."""
        return cls(
            renter=to_hex(terms.renter),
            signer=to_hex(terms.signer),
            host=to_hex(terms.host),
            token=to_hex(terms.token),
            arbiter=to_hex(terms.arbiter),
            price_per_mtok=str(terms.price),
            bond=str(terms.bond),
            expires_at=terms.expires_at,
            challenge=terms.challenge,
            exposure=terms.exposure,
            policy=int(terms.policy),
            model_id=to_hex(terms.model_id),
            salt=to_hex(terms.salt),
        )

    def terms(self) -> Terms:
        """The terms that this text stands for."""
        return Terms(
            renter=Address(from_hex(self.renter, 20)),
            signer=Address(from_hex(self.signer, 20)),
            host=Address(from_hex(self.host, 20)),
            token=Address(from_hex(self.token, 20)),
            arbiter=Address(from_hex(self.arbiter, 20)),
            price=PricePerMTok(int(self.price_per_mtok)),
            bond=BaseUnits(int(self.bond)),
            expires_at=self.expires_at,
            challenge=self.challenge,
            exposure=Tokens(self.exposure),
            policy=ProofPolicy(self.policy),
            model_id=ModelId(from_hex(self.model_id, 32)),
            salt=Hash32(from_hex(self.salt, 32)),
        )


class SessionAuth(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that the sender holds the session key (EIP-712 `SessionAuth`). Used once, valid for two minutes."""

    issued_at: Annotated[int, Meta(ge=0, lt=2**53)]
    nonce: Hex32
    signature: Signature


# -- from the renter ------------------------------------------------------------------------------------------------------


class SessionInit(msgspec.Struct, frozen=True, kw_only=True, tag="session_init"):
    """Begin a conversation under a job. Answered by `session_ready` or `error`."""

    session_id: Session
    job_id: Hex32
    terms: WireTerms
    auth: SessionAuth
    protocol: tuple[int, ...] = (PROTOCOL_VERSION,)
    """Versions that the sender speaks."""
    conversation_context: tuple[ChatMessage, ...] = ()
    """What was said before; kept in memory only."""
    rung: Annotated[int, Meta(ge=0, le=9)] | None = None
    """Of the ladder of verification, as the offer lists it: the price of the terms must be that of this rung. None: what their policy
    implies."""


class SessionResume(msgspec.Struct, frozen=True, kw_only=True, tag="session_resume"):
    """Go on after a drop, on this host or another one: the renter brings the conversation, both agree on the count. Between two answers
    it also replaces the conversation of a running session."""

    session_id: Session
    job_id: Hex32
    terms: WireTerms
    auth: SessionAuth
    protocol: tuple[int, ...] = (PROTOCOL_VERSION,)
    conversation_context: tuple[ChatMessage, ...] = ()
    last_message_index: Count = 0
    """Messages in `conversation_context`. For people who read logs: the next prompt's index stands in `session_ready`."""
    tokens_received: Count = 0
    """Tokens of this job that the renter has."""
    transcript: Hex32 | None = None
    """The renter's transcript head at `tokens_received`; None before the first token."""
    rung: Annotated[int, Meta(ge=0, le=9)] | None = None
    """As in `session_init`."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True, tag="prompt"):
    """Ask. Answered by `stream_chunk`s, `receipt`s and one `response`, or by `error`."""

    session_id: Session
    message_index: Count
    content: Annotated[str, Meta(min_length=1, max_length=MAX_CONTENT)]
    max_tokens: Annotated[int, Meta(ge=1, le=1 << 20)] = 512
    temperature: Annotated[float, Meta(ge=0, le=5)] = 0.8
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95
    seed: Annotated[int, Meta(ge=0, lt=2**32)] | None = None
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=8)] = ()
    prefix: Annotated[str, Meta(max_length=MAX_CONTENT)] = ""
    """Beginning of the answer that the renter has already (from another host): go on after it."""
    score: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**32)], ...], Meta(max_length=MAX_SCORED)] = ()
    """Ids of an answer that is there. Nothing is generated: the records say how likely each of these tokens was, and are billed like
    generated ones. Only where `capabilities` has `score`."""


class ReceiptAck(msgspec.Struct, frozen=True, kw_only=True, tag="receipt_ack"):
    """The voucher: the session key's signature over what a receipt says (EIP-712 `Voucher`)."""

    session_id: Session
    tokens: Count
    amount: Decimal
    transcript: Hex32
    signature: Signature


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Stop the answer; what was delivered is acknowledged as usual."""

    session_id: Session
    message_index: Count


class DepositChanged(msgspec.Struct, frozen=True, kw_only=True, tag="deposit_changed"):
    """The job was topped up on chain: look there. Answered by `payment_received`, or by `error`."""

    session_id: Session


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping"):
    """Answered by `pong` with the same id."""

    id: Count = 0


# -- from the host ----------------------------------------------------------------------------------------------------------


class SessionReady(msgspec.Struct, frozen=True, kw_only=True, tag="session_ready"):
    """The session stands; metadata, capabilities and the agreed position of the meter."""

    session_id: Session
    job_id: Hex32
    host: Hex20
    model: str
    model_id: Hex32
    protocol: int
    capabilities: tuple[str, ...]
    price_per_mtok: Decimal
    exposure: int
    context_size: int
    max_message_bytes: int
    tokens_served: Count
    """Where the meter stands now; both sides continue from here."""
    tokens_acknowledged: Count
    tokens_affordable: Count
    """What the deposit pays for, from the start of the job."""
    transcript: Hex32
    salt: Hex32
    """For this connection's token records; never on the host's disk."""
    message_index: Count
    """Index that the next prompt must have."""


class StreamChunk(msgspec.Struct, frozen=True, kw_only=True, tag="stream_chunk"):
    """Tokens, and the text that became complete with them."""

    session_id: Session
    message_index: Count
    index: Count
    """Position of the first token, counted from the start of the job."""
    content: str
    tokens: tuple[TokenRecord, ...]


class Receipt(msgspec.Struct, frozen=True, kw_only=True, tag="receipt"):
    """What the host says it served, signed (EIP-712 `Receipt`). Acknowledge it; without that the stream stops at the exposure bound."""

    session_id: Session
    tokens: Count
    amount: Decimal
    tokens_in: Count
    """Tokens of the prompts of the job's answers that are over, the conversation before them counted each time."""
    transcript: Hex32
    signature: Signature


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one answer, by the engine."""

    prompt_tokens: int
    completion_tokens: int


class Response(msgspec.Struct, frozen=True, kw_only=True, tag="response"):
    """The answer is complete."""

    session_id: Session
    message_index: Count
    tokens_used: Count
    """Tokens that this answer cost."""
    finish_reason: str
    """stop, length, deposit, cancelled."""
    usage: Usage


class Fingerprints(msgspec.Struct, frozen=True, kw_only=True, tag="fingerprints"):
    """What the activations behind an answer were, signed (EIP-712 `Fingerprints`): one for each 32 tokens and one for what is left over,
    base64. Only on rung 2, some time after the `response`; never where the host did not keep up. No answer is expected."""

    session_id: Session
    message_index: Count
    first: Count
    """Position of the answer's first token, counted from the start of the job."""
    tokens: Annotated[int, Meta(ge=1, le=2**32 - 2)]
    transcript: Hex32
    """The head after the answer."""
    fingerprints: Annotated[
        tuple[Annotated[bytes, Meta(min_length=1, max_length=SIZE)], ...], Meta(max_length=MAX_CHUNKS)
    ]
    signature: Signature


class SessionEnd(msgspec.Struct, frozen=True, kw_only=True, tag="session_end"):
    """From the renter: end and settle. From the host: ended, with the last position of the meter."""

    session_id: Session
    reason: str = ""
    tokens_served: Count = 0
    tokens_acknowledged: Count = 0
    close_signature: Signature | None = None
    """The host's `Close` signature over what was acknowledged: with it the renter may close at once (closeCooperative)."""


class Error(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """The one error shape. `session_id` and `message_index` where they are known."""

    code: str
    message: str
    retryable: bool
    detail: str = ""
    next_step: str = ""
    session_id: str | None = None
    message_index: int | None = None

    @classmethod
    def of(cls, fault: FabstirError, session_id: str | None = None, message_index: int | None = None) -> Error:
        """`fault` as a message."""
        return cls(
            code=fault.code,
            message=fault.message,
            retryable=fault.retryable,
            detail=fault.detail,
            next_step=fault.next_step,
            session_id=session_id,
            message_index=message_index,
        )


class PaymentRequired(msgspec.Struct, frozen=True, kw_only=True, tag="payment_required"):
    """The deposit will soon pay for no further token: top the job up (`topUp`), then send `deposit_changed`. Sent once for each deposit."""

    session_id: Session
    tokens_served: Count
    tokens_affordable: Count
    """What the deposit pays for, from the start of the job."""
    deposit: Decimal


class PaymentReceived(msgspec.Struct, frozen=True, kw_only=True, tag="payment_received"):
    """The deposit as the host sees it on chain now."""

    session_id: Session
    tokens_affordable: Count
    deposit: Decimal


class Pong(msgspec.Struct, frozen=True, kw_only=True, tag="pong"):
    """Answer to `ping`."""

    id: Count = 0


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice"):
    """For people: a wait and its reason, a drain that begins. No answer is expected."""

    code: str
    message: str
    session_id: str | None = None


FromRenter = SessionInit | SessionResume | Prompt | ReceiptAck | Cancel | DepositChanged | SessionEnd | Ping
FromHost = (
    SessionReady
    | StreamChunk
    | Receipt
    | Response
    | Fingerprints
    | PaymentRequired
    | PaymentReceived
    | SessionEnd
    | Error
    | Pong
    | Notice
)

encode: Final = msgspec.json.Encoder().encode
"""A message as JSON bytes."""
canonical: Final = msgspec.json.Encoder(order="sorted").encode
"""The one encoding of whatever is hashed: JSON with sorted keys, no spaces, defaults included."""

_from_renter: Final[msgspec.json.Decoder[FromRenter]] = msgspec.json.Decoder(FromRenter)
_from_host: Final[msgspec.json.Decoder[FromHost]] = msgspec.json.Decoder(FromHost)


class _Tag(msgspec.Struct):
    type: str = ""


_tag: Final = msgspec.json.Decoder(_Tag)
RENTER_TYPES: Final = frozenset(
    ("session_init", "session_resume", "prompt", "receipt_ack", "cancel", "deposit_changed", "session_end", "ping")
)
HOST_TYPES: Final = frozenset(
    (
        "session_ready",
        "stream_chunk",
        "receipt",
        "response",
        "fingerprints",
        "payment_required",
        "payment_received",
        "session_end",
        "error",
        "pong",
        "notice",
    )
)


def decode_from_renter(data: bytes | str) -> FromRenter:
    """Read what a renter sent. Raises PeerFault (`message_malformed`, `message_unknown`)."""
    try:
        return _from_renter.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as fault:
        raise _why(data, RENTER_TYPES, fault) from None


def decode_from_host(data: bytes | str) -> FromHost:
    """Read what a host sent. Raises PeerFault (`message_malformed`, `message_unknown`)."""
    try:
        return _from_host.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as fault:
        raise _why(data, HOST_TYPES, fault) from None


def _why(data: bytes | str, known: frozenset[str], fault: Exception) -> FabstirError:
    try:
        kind = _tag.decode(data).type
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return error("message_malformed", "not a JSON object with a `type`")
    if kind not in known:
        return error("message_unknown", f"type {kind[:40]!r}" if kind else "no `type`")
    return error("message_malformed", f"{kind}: {fault}"[:200])


def amount_of(text: str) -> BaseUnits:
    """The amount written as decimal `text`. Raises PeerFault (`message_malformed`) above 2**96 - 1."""
    value = int(text)
    if value > MAX_AMOUNT:
        raise error("message_malformed", "amount above 2**96 - 1")
    return BaseUnits(value)


def job_of(text: str) -> JobId:
    """The job id written as `text`."""
    return JobId(from_hex(text, 32))


def records_valid(records: tuple[TokenRecord, ...]) -> bool:
    """Every number fits the record's binary form."""
    return all(_record_valid(record) for record in records)


def _record_valid(record: TokenRecord) -> bool:
    pairs = ((record.token, record.logprob), *record.top)
    return len(record.top) <= MAX_TOP and all(0 <= t < 2**32 and MIN_LOGPROB <= p <= 0 for t, p in pairs)
