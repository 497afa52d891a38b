"""Messages that go both ways, and the one shape of an error."""

from __future__ import annotations

import math

import msgspec

from fabstir.domain.errors import FabstirError
from fabstir.protocol.wire_types import Count, Session, Signature


class SessionEnd(msgspec.Struct, frozen=True, kw_only=True, tag="session_end"):
    """From the renter: end and settle. From the host: ended, with the last position of the meter."""

    session_id: Session
    reason: str = ""
    tokens_served: Count = 0
    tokens_acknowledged: Count = 0
    close_signature: Signature | None = None
    """The host's `Close` signature over what was acknowledged: with it the renter may close at once (closeCooperative)."""


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping"):
    """Are you there? Answered by `pong` with the same id, whatever else is going on. The renter may always ask; the host asks where both
    named the capability `ping`, after `ping_s` in which it heard nothing."""

    id: Count = 0


class Pong(msgspec.Struct, frozen=True, kw_only=True, tag="pong"):
    """Answer to `ping`."""

    id: Count = 0


class Error(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """The one error shape, in messages and over HTTP. `session_id` and `message_index` where they are known."""

    code: str
    category: str
    """refused: a valid request that is declined. peer_fault: whoever reads this broke the protocol. local_fault: something at the sender.
    chain_fault: the chain or the way to it. interrupted: cut off; may be resumed."""
    message: str
    retryable: bool
    detail: str = ""
    next_step: str = ""
    session_id: str | None = None
    message_index: int | None = None
    retry_after_s: int | None = None
    """Seconds after which it can be tried again, where the host knows: what a request would wait in line."""

    @classmethod
    def of(cls, fault: FabstirError, session_id: str | None = None, message_index: int | None = None) -> Error:
        """`fault` as a message."""
        return cls(
            code=fault.code,
            category=fault.category,
            message=fault.message,
            retryable=fault.retryable,
            detail=fault.detail,
            next_step=fault.next_step,
            session_id=session_id,
            message_index=message_index,
            retry_after_s=None if fault.retry_after is None else max(1, math.ceil(fault.retry_after)),
        )
