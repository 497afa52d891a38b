"""What a token for reconnects says and when it holds: a JWT (RFC 7519) that a host gives for one session, in place of a fresh signature.

A token is given in `session_ready` and accepted once, in `session_resume`, both inside an encrypted channel only: what carries no
signature of the renter must not be readable on the way. It saves the host a look at the chain and the renter's wallet a signature; it
carries no right that the session did not have. Pure: signing and remembering is `fabstir.host.reconnect_tokens`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.domain.ids import Address, JobId, SessionId, to_hex
from fabstir.protocol.messages import Hex20, Hex32
from fabstir.protocol.signing import Market

TOKEN_SECONDS: Final = 600
TOKEN_SKEW_SECONDS: Final = 30
"""A host reads its own clock twice; between the two somebody may have set it."""
TOKEN_TYPE: Final = "fabstir-session+jwt"  # noqa: S105 - the header `typ`, so that no other JWT is taken for one
ALGORITHM: Final = "EdDSA"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """For whom and for what a token is."""

    host: Address
    market: Market
    signer: Address
    """The session key."""
    job: JobId
    session: SessionId

    @property
    def audience(self) -> str:
        """The market, as CAIP-10 writes an account."""
        return f"eip155:{self.market.chain_id}:{to_hex(self.market.address)}"


class TokenClaims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload."""

    iss: Hex20
    """The host's account."""
    aud: Annotated[str, Meta(max_length=128)]
    """The market."""
    sub: Hex20
    """The session key."""
    job: Hex32
    session: Annotated[str, Meta(max_length=64)]
    iat: Annotated[int, Meta(ge=0, le=2**40)]
    exp: Annotated[int, Meta(ge=0, le=2**40)]
    jti: Hex32
    """Drawn by chance; used once."""

    @classmethod
    def of(cls, subject: Subject, token_id: bytes, now: float) -> TokenClaims:
        """Of a token that is given at `now`."""
        return cls(
            iss=to_hex(subject.host),
            aud=subject.audience,
            sub=to_hex(subject.signer),
            job=to_hex(subject.job),
            session=subject.session,
            iat=int(now),
            exp=int(now) + TOKEN_SECONDS,
            jti=to_hex(token_id),
        )

    def objection(self, subject: Subject, now: float) -> str:
        """Why it is no token of `subject` at `now`; empty where it is."""
        if (self.iss, self.aud) != (to_hex(subject.host), subject.audience):
            return "it is of another host or market"
        if (self.sub, self.job, self.session) != (to_hex(subject.signer), to_hex(subject.job), subject.session):
            return "it is of another session, job or key"
        if self.exp - self.iat != TOKEN_SECONDS:
            return f"it lives {self.exp - self.iat} s, tokens live {TOKEN_SECONDS} s"
        if self.iat > now + TOKEN_SKEW_SECONDS:
            return f"it is of {self.iat}, here it is {int(now)}"
        if now >= self.exp:
            return f"it ended at {self.exp}, it is {int(now)}"
        return ""
