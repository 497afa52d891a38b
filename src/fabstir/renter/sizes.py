"""Whether a host reads a message of such a size, before it is sent: a host drops the connection over a larger one. Pure."""

from __future__ import annotations

from typing import Final

from fabstir.domain.errors import error
from fabstir.protocol.messages import encode

ENVELOPE_BYTES: Final = 2048
"""Of a message beside what is said in it: terms, signatures, names."""


def require_size(said: object, limit: int) -> None:
    """Before anything is sent: a host drops the connection over a message that is larger than it reads.

    Raises PeerFault (`message_too_large`).
    """
    size = len(encode(said)) + ENVELOPE_BYTES
    if size > limit:
        raise error("message_too_large", f"{size} bytes, the host reads {limit}")


def fits(said: object, limit: int) -> bool:
    """The same as a question."""
    return len(encode(said)) + ENVELOPE_BYTES <= limit
