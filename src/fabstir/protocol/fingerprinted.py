"""Of which answer fingerprints are, and what the host signs about them: what host, renter and whoever checks later agree on.

A fingerprint stands for the activations behind CHUNK_TOKENS tokens (`fabstir.protocol.fingerprint` makes and compares them). Here they
are bytes: bound by one signature to the job, to the answer's place in it and to the transcript head after the answer, so to what both
sides signed. Pure; knows nothing of the model.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import Address, Hash32, JobId, SessionId
from fabstir.domain.money import Tokens
from fabstir.protocol.signing import Market, recover

CHUNK_TOKENS: Final = 32
ENTRIES: Final = 128
SIZE: Final = 2 + 2 * ENTRIES
"""Bytes of one fingerprint at most."""
MAX_CHUNKS: Final = 1 << 15
"""Of the longest answer that can be asked for."""


class FingerprintedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, by its place in the job."""

    session: SessionId
    message_index: int
    first: Tokens
    """Position of its first token, counted from the start of the job."""
    tokens: Tokens
    """How many it has."""
    transcript: Hash32
    """The head after it."""

    def digest(self, market: Market, job: JobId, made: tuple[bytes, ...]) -> Hash32:
        """What the host signs."""
        return market.fingerprints_digest(job, self.message_index, self.first, self.tokens, self.transcript, made)

    def fits(self, made: tuple[bytes, ...]) -> bool:
        """One for each CHUNK_TOKENS tokens and one for what is left over, none empty or too long."""
        return len(made) == -(-self.tokens // CHUNK_TOKENS) and all(0 < len(one) <= SIZE for one in made)

    def signed_by(self, market: Market, job: JobId, made: tuple[bytes, ...], signature: bytes) -> Address | None:
        """Whose signature this is; None where it is nobody's."""
        return recover(self.digest(market, job, made), signature)
