"""The wire: every message of the session protocol, version 1, as JSON objects tagged by `type`.

The same messages travel over the WebSocket `/v1/ws` and, later, over a libp2p stream. Unknown fields are ignored (a newer
peer may send more), unknown types are answered with an error. The messages themselves stand in `from_renter`, `from_host` and
`from_both`, what they are made of in `wire_types`; here they are read and written.
Specification: docs/reference/protocol.md (generated from here); golden vectors: tests/protocol/vectors/messages.json.
"""

from __future__ import annotations

from typing import Final, get_args

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import JobId, from_hex
from fabstir.domain.money import MAX_AMOUNT, BaseUnits
from fabstir.protocol.context.plan import ContextPlan, ContextRequest
from fabstir.protocol.from_both import Error, Ping, Pong, SessionEnd
from fabstir.protocol.from_host import (
    ContextPlanned,
    Fingerprints,
    FromHost,
    Handoff,
    Notice,
    PaymentReceived,
    PaymentRequired,
    Receipt,
    Response,
    SessionReady,
    StateSync,
    StreamChunk,
    Usage,
)
from fabstir.protocol.from_renter import (
    Cancel,
    DepositChanged,
    FromRenter,
    Prompt,
    ReceiptAck,
    SessionClear,
    SessionInit,
    SessionResume,
)
from fabstir.protocol.transcript import MAX_TOP, MIN_LOGPROB, TokenRecord
from fabstir.protocol.wire_types import (
    MAX_CONTENT,
    MAX_SCORED,
    PROTOCOL_VERSION,
    ChatMessage,
    Count,
    Decimal,
    Hex20,
    Hex32,
    Role,
    Session,
    SessionAuth,
    Signature,
    ToolCall,
    WireTerms,
    Word,
    Words,
)

__all__ = [
    "HOST_TYPES",
    "MAX_CONTENT",
    "MAX_SCORED",
    "PROTOCOL_VERSION",
    "RENTER_TYPES",
    "Cancel",
    "ChatMessage",
    "ContextPlan",
    "ContextPlanned",
    "ContextRequest",
    "Count",
    "Decimal",
    "DepositChanged",
    "Error",
    "Fingerprints",
    "FromHost",
    "FromRenter",
    "Handoff",
    "Hex20",
    "Hex32",
    "Notice",
    "PaymentReceived",
    "PaymentRequired",
    "Ping",
    "Pong",
    "Prompt",
    "Receipt",
    "ReceiptAck",
    "Response",
    "Role",
    "Session",
    "SessionAuth",
    "SessionClear",
    "SessionEnd",
    "SessionInit",
    "SessionReady",
    "SessionResume",
    "Signature",
    "StateSync",
    "StreamChunk",
    "ToolCall",
    "Usage",
    "WireTerms",
    "Word",
    "Words",
    "amount_of",
    "canonical",
    "decode_from_host",
    "decode_from_renter",
    "encode",
    "job_of",
    "records_valid",
]

encode: Final = msgspec.json.Encoder().encode
"""A message as JSON bytes."""
canonical: Final = msgspec.json.Encoder(order="sorted").encode
"""The one encoding of whatever is hashed: JSON with sorted keys, no spaces, defaults included."""

_from_renter: Final[msgspec.json.Decoder[FromRenter]] = msgspec.json.Decoder(FromRenter)
_from_host: Final[msgspec.json.Decoder[FromHost]] = msgspec.json.Decoder(FromHost)


class _Tag(msgspec.Struct):
    type: str = ""


_tag: Final = msgspec.json.Decoder(_Tag)
RENTER_TYPES: Final = frozenset(str(cls.__struct_config__.tag) for cls in get_args(FromRenter))
HOST_TYPES: Final = frozenset(str(cls.__struct_config__.tag) for cls in get_args(FromHost))


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
