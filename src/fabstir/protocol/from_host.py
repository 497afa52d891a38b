"""Messages that the host sends."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fabstir.protocol.context.plan import ContextPlan
from fabstir.protocol.fingerprinted import MAX_CHUNKS, SIZE
from fabstir.protocol.from_both import Error, Pong, SessionEnd
from fabstir.protocol.transcript import TokenRecord
from fabstir.protocol.wire_types import Count, Decimal, Hex20, Hex32, Session, Signature


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


class ContextPlanned(msgspec.Struct, frozen=True, kw_only=True, tag="context_plan"):
    """What the engine is given for a prompt that has a `context`; comes before the first token. With the prompt and the conversation it is
    what the request hash binds."""

    session_id: Session
    message_index: Count
    plan: ContextPlan


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
    context: ContextPlan | None = None
    """What the engine was given, and what each message cost."""


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


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice"):
    """For people: a wait and its reason, a drain that begins. No answer is expected."""

    code: str
    message: str
    session_id: str | None = None


FromHost = (
    SessionReady
    | ContextPlanned
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
