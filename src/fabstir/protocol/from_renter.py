"""Messages that the renter sends."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fabstir.protocol.context.plan import ContextRequest
from fabstir.protocol.controls import Controls
from fabstir.protocol.from_both import Ping, Pong, SessionEnd
from fabstir.protocol.wire_types import (
    MAX_CONTENT,
    MAX_SCORED,
    PROTOCOL_VERSION,
    CallId,
    ChatMessage,
    Count,
    Decimal,
    Hex32,
    Session,
    SessionAuth,
    Signature,
    WireTerms,
    Words,
)


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
    summarised: Count = 0
    """Messages that the first question and answer of `conversation_context` stand for, where they are a summary; else 0."""
    rung: Annotated[int, Meta(ge=0, le=9)] | None = None
    """Of the ladder of verification, as the offer lists it: the price of the terms must be that of this rung. None: what their policy
    implies."""
    capabilities: Words = ()
    """What the sender understands beyond the messages that every renter must; see Capabilities. What is not known is ignored."""
    requires: Words = ()
    """Capabilities that the host must have, else it answers `capability_missing`."""
    client: Annotated[str, Meta(pattern=r"^[ -~]{0,64}\Z")] = ""
    """Program and version of the sender, for people."""


class SessionResume(msgspec.Struct, frozen=True, kw_only=True, tag="session_resume"):
    """Go on after a drop, on this host or another one: the renter brings the conversation, both agree on the count. Between two answers
    it also replaces the conversation of a running session."""

    session_id: Session
    job_id: Hex32
    terms: WireTerms
    auth: SessionAuth | None = None
    """None: `token` says who is there."""
    token: Annotated[str, Meta(max_length=2048)] | None = None
    """Of the last `session_ready` of this session; used once. Where it is refused (`session_token_invalid`), `auth` still does."""
    protocol: tuple[int, ...] = (PROTOCOL_VERSION,)
    conversation_context: tuple[ChatMessage, ...] = ()
    summarised: Count = 0
    """As in `session_init`."""
    last_message_index: Count = 0
    """Messages in `conversation_context`. For people who read logs: the next prompt's index stands in `session_ready`."""
    tokens_received: Count = 0
    """Tokens of this job that the renter has."""
    transcript: Hex32 | None = None
    """The renter's transcript head at `tokens_received`; None before the first token."""
    rung: Annotated[int, Meta(ge=0, le=9)] | None = None
    """As in `session_init`."""
    capabilities: Words = ()
    """As in `session_init`."""
    requires: Words = ()
    """As in `session_init`."""
    client: Annotated[str, Meta(pattern=r"^[ -~]{0,64}\Z")] = ""
    """As in `session_init`."""


class Prompt(Controls, frozen=True, kw_only=True, tag="prompt"):
    """Ask. Answered by `stream_chunk`s, `receipt`s and one `response`, or by `error`. What it asks of the answer beyond temperature, top_p,
    seed and stop needs the control that the field names, in `capabilities`; else `control_unsupported`."""

    session_id: Session
    message_index: Count
    content: Annotated[str, Meta(min_length=1, max_length=MAX_CONTENT)]
    role: Annotated[str, Meta(pattern=r"^(user|tool)\Z")] = "user"
    """`tool`: the content is the result of a call; with several results the earlier ones stand in the conversation."""
    tool_call_id: CallId = ""
    """With role `tool`: of which call."""
    prefix: Annotated[str, Meta(max_length=MAX_CONTENT)] = ""
    """Beginning of the answer that the renter has already (from another host): go on after it. Not where the form of the answer is
    prescribed."""
    score: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**32)], ...], Meta(max_length=MAX_SCORED)] = ()
    """Ids of an answer that is there. Nothing is generated: the records say how likely each of these tokens was, and are billed like
    generated ones. Only where `capabilities` has `score`."""
    context: ContextRequest | None = None
    """What may be left out where the conversation does not fit. None: nothing, and no `context_plan` comes."""
    conversation_context: tuple[ChatMessage, ...] | None = None
    """What was said before this question, in place of what the host holds: a client that keeps the conversation itself sends it with each
    prompt. None: go on from the conversation of the session."""
    summarised: Count = 0
    """As in `session_init`, of this `conversation_context`."""

    @property
    def message(self) -> ChatMessage:
        """What it adds to the conversation."""
        return ChatMessage(self.role, self.content, tool_call_id=self.tool_call_id)


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


class SessionClear(msgspec.Struct, frozen=True, kw_only=True, tag="session_clear"):
    """Between two answers: forget what was said; the job, its meter and the connection stay. Answered by `session_state`."""

    session_id: Session


class DepositChanged(msgspec.Struct, frozen=True, kw_only=True, tag="deposit_changed"):
    """The job was topped up on chain: look there. Answered by `payment_received`, or by `error`."""

    session_id: Session


FromRenter = (
    SessionInit
    | SessionResume
    | Prompt
    | ReceiptAck
    | Cancel
    | SessionClear
    | DepositChanged
    | SessionEnd
    | Ping
    | Pong
)
