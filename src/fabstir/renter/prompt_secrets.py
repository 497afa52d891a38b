"""The secrets of one prompt job, derived from one secret of the renter and the salt of the terms.

So nothing secret is in the journal, and whoever has the renter's sealing key and the terms finds every key again after a
crash: the signer of vouchers, the key that results are sealed to, the salt of the token records. Pure.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from fabstir.domain.ids import Hash32
from fabstir.protocol.sealed import SealingKey
from fabstir.protocol.signing import SigningKey


class PromptSecrets:
    """Of one job. Never printed."""

    def __init__(self, secret: bytes, salt: Hash32) -> None:
        """`secret`: 32 bytes, the renter's sealing key."""
        self.own = SealingKey(secret)
        """What prompts are sealed to, beside the hosts, so that the renter can read them again."""
        self.signer = SigningKey(_derived(secret, b"signer", salt))
        self.reply = SealingKey(_derived(secret, b"reply", salt))
        self.records = _derived(secret, b"records", salt)

    def __repr__(self) -> str:
        return f"<PromptSecrets of signer {self.signer.address.hex()[:8]}>"


def _derived(secret: bytes, purpose: bytes, salt: Hash32) -> bytes:
    return hmac.new(secret, b"fabstir/prompt/1/" + purpose + b"/" + salt, sha256).digest()
