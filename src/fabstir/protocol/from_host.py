"""Messages that the host sends."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fabstir.protocol.context.plan import ContextPlan
from fabstir.protocol.fingerprinted import MAX_CHUNKS, SIZE
from fabstir.protocol.from_both import Error, Ping, Pong, SessionEnd
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
    """What this host has, whatever the renter named; see Capabilities."""
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
    server: str = ""
    """Program and version of the host, for people."""
    max_answer_tokens: Count = 0
    """Of one answer, at most; 0: not said."""
    ack_timeout_s: Count = 0
    """So long a stream waits at the exposure bound before it ends with `ack_timeout`; 0: not said."""
    ping_s: Count = 0
    """After so long without a word the host asks (`ping`), and after as long again it is gone; 0: it never asks."""
    token: str | None = None
    """For one `session_resume` within ten minutes, in place of `auth`; only inside an encrypted channel."""


class StateSync(msgspec.Struct, frozen=True, kw_only=True, tag="session_state"):
    """Where the host stands: after `session_resume` where both have the capability `state`, and always after `session_clear`. A renter that
    knows another conversation or another count goes to another host."""

    session_id: Session
    message_index: Count
    """Index that the next prompt must have."""
    messages: Count
    """Of the conversation that the host holds."""
    conversation: Hex32
    """Hash of it: SHA-256 of "fabstir/conversation/1", the connection's salt, and its canonical encoding."""
    tokens_served: Count
    tokens_acknowledged: Count
    transcript: Hex32
    """The host's head at `tokens_served`."""


class Handoff(msgspec.Struct, frozen=True, kw_only=True, tag="handoff"):
    """This host is leaving: go on with another one from here. Sent where both have the capability `handoff`; an answer that streamed is cut
    off with it, and what was delivered of it is the `prefix` for the next host. Acknowledge the last receipt and send `session_end`:
    whoever does not is disconnected after `grace_s`."""

    session_id: Session
    reason: str
    """Code of an error: `draining`."""
    message_index: Count
    """Index that the next prompt would have had."""
    tokens_served: Count
    tokens_acknowledged: Count
    transcript: Hex32
    """The head at `tokens_served`."""
    grace_s: Count


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

    prompt_tokens: Count
    completion_tokens: Count


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
    signature: Signature
    """By the host's account (EIP-712 `Response`), over counts, reason and the head after the answer: what no receipt says."""


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
    """For people: a wait and its reason (`queued`), a drain that begins (`draining`). No answer is expected."""

    code: str
    message: str
    session_id: str | None = None
    position: int | None = None
    """In line for the model, where the code is `queued`; 1 is next."""
    wait_s: int | None = None
    """Expected seconds until then."""


FromHost = (
    SessionReady
    | StateSync
    | ContextPlanned
    | StreamChunk
    | Receipt
    | Response
    | Fingerprints
    | PaymentRequired
    | PaymentReceived
    | Handoff
    | SessionEnd
    | Error
    | Ping
    | Pong
    | Notice
)
