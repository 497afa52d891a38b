"""The hash of a conversation: what host and renter compare, so that both know that they hold the same one."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from fabstir.domain.ids import Hash32
from fabstir.protocol.messages import canonical
from fabstir.protocol.wire_types import ChatMessage


def conversation_hash(salt: Hash32, messages: Sequence[ChatMessage]) -> Hash32:
    """For `session_state`. The connection's salt keeps others from guessing words by it."""
    return Hash32(sha256(b"fabstir/conversation/1" + salt + canonical(messages)).digest())
