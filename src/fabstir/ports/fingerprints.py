"""What fingerprints of an answer need and no engine keeps: the activations behind its tokens, computed again.

What a fingerprint is: `fabstir.protocol.fingerprint`.
"""

from __future__ import annotations

from typing import Protocol

from fabstir.protocol.messages import ChatMessage


class Fingerprinter(Protocol):
    """The weights that answers are generated with, once more."""

    async def fingerprints(
        self, messages: tuple[ChatMessage, ...], prefix: str, answer: tuple[int, ...]
    ) -> tuple[bytes, ...]:
        """Of `answer`, token ids, as it followed on `messages` (`prefix`: the beginning of it that was there): one for each 32 tokens
        and one for what is left over. Raises Refused (`context_too_long`), Interrupted (`engine_gone`), PeerFault (`token_unknown`)."""
        ...
