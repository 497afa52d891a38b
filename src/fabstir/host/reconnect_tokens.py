"""Gives and takes tokens for reconnects: EdDSA keys that rotate, one use each, and what is revoked.

The keys are made here and never leave the process; a restart makes new ones, and renters sign again. A key signs for KEY_SECONDS and is
believed until the last of its tokens has ended. `fabstir.protocol.session_tokens` says what a token must say. Never logs a token.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32, JobId, SessionId, from_hex, to_hex
from fabstir.host.nonces import NonceCache
from fabstir.ports.clock import Clock
from fabstir.protocol.session_tokens import (
    ALGORITHM,
    TOKEN_SECONDS,
    TOKEN_SKEW_SECONDS,
    TOKEN_TYPE,
    Subject,
    TokenClaims,
)

KEY_SECONDS: Final = 3_600.0
MOST_REVOKED: Final = 65_536
"""Jobs, sessions and tokens that are remembered as revoked for TOKEN_SECONDS; beyond it every token of before is."""
_LASTS: Final = TOKEN_SECONDS + TOKEN_SKEW_SECONDS
_UNCHECKED: Final = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
"""What the library would check by the system's clock, or not as strictly as TokenClaims."""


class _Key(msgspec.Struct, frozen=True):
    name: str
    private: Ed25519PrivateKey
    since: float


class ReconnectTokens:
    """Of one host. Memory: two keys, the tokens used and what was revoked within ten minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: list[_Key] = []
        """Oldest first; the last one signs."""
        self._used = NonceCache()
        self._revoked: dict[str, float] = {}
        """Job, session or token -> when."""
        self._all_revoked_at = -1.0

    def __repr__(self) -> str:
        return f"<ReconnectTokens {len(self._keys)} keys, {len(self._revoked)} revoked>"

    def issue(self, subject: Subject) -> str:
        """A new token."""
        now = self._clock.now()
        key = self._signing(now)
        claims = TokenClaims.of(subject, secrets.token_bytes(32), now)
        headers = {"kid": key.name, "typ": TOKEN_TYPE}
        return jwt.encode(msgspec.to_builtins(claims), key.private, algorithm=ALGORITHM, headers=headers)

    def redeem(self, token: str, subject: Subject) -> None:
        """Use `token` up. Raises Refused (`session_token_invalid`)."""
        now = self._clock.now()
        claims = self._read(token, now)
        if objection := claims.objection(subject, now) or self._revocation(claims):
            raise error("session_token_invalid", objection)
        try:
            self._used.use(subject.job, Hash32(from_hex(claims.jti, 32)), claims.exp + TOKEN_SKEW_SECONDS, now)
        except FabstirError as again:
            raise error("session_token_invalid", again.detail) from again

    def revoke(
        self, *, job: JobId | None = None, session: SessionId | None = None, token_id: str | None = None
    ) -> None:
        """Every token until now of a job, of a session, or one; without any of them, every token of this host."""
        now = self._clock.now()
        named = [text for text in (to_hex(job) if job else None, session, token_id) if text is not None]
        self._revoked = {what: at for what, at in self._revoked.items() if at + _LASTS > now}
        if not named or len(self._revoked) >= MOST_REVOKED:
            self._all_revoked_at, self._revoked = now, {}
            return
        self._revoked.update(dict.fromkeys(named, now))

    def public_keys(self) -> dict[str, Any]:
        """The JSON Web Key Set (RFC 7517) of the keys that are believed now."""
        self._signing(self._clock.now())
        keys = []
        for key in self._keys:
            told = dict(OKPAlgorithm.to_jwk(key.private.public_key(), as_dict=True))
            keys.append({**told, "kid": key.name, "alg": ALGORITHM, "use": "sig"})
        return {"keys": keys}

    def _signing(self, now: float) -> _Key:
        """The key that signs; keys whose tokens have all ended are forgotten."""
        self._keys = [key for key in self._keys if now < key.since + KEY_SECONDS + _LASTS]
        if not self._keys or now >= self._keys[-1].since + KEY_SECONDS:
            self._keys.append(_Key(secrets.token_hex(8), Ed25519PrivateKey.generate(), now))
        return self._keys[-1]

    def _read(self, token: str, now: float) -> TokenClaims:
        """Raises Refused (`session_token_invalid`) where none of the keys signed it."""
        self._signing(now)
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TOKEN_TYPE or header.get("alg") != ALGORITHM or "crit" in header:
                raise error("session_token_invalid", "it is of another kind or algorithm")
            key = next((one for one in self._keys if one.name == header.get("kid")), None)
            if key is None:
                raise error("session_token_invalid", "its key is not known here, or not any more")
            payload = jwt.decode(token, key.private.public_key(), algorithms=[ALGORITHM], options=_UNCHECKED)  # type: ignore[arg-type]
            return msgspec.convert(payload, TokenClaims)
        except (jwt.PyJWTError, msgspec.ValidationError, ValueError, TypeError) as unreadable:
            raise error("session_token_invalid", f"it cannot be read: {type(unreadable).__name__}") from unreadable

    def _revocation(self, claims: TokenClaims) -> str:
        at = max(self._revoked.get(what, -1.0) for what in (claims.job, claims.session, claims.jti))
        return "it was revoked" if claims.iat <= max(at, self._all_revoked_at) else ""
