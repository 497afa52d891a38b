"""What messages are made of: the types of their fields, the bounds that hold for each, and the structures inside them.

Amounts are decimal strings (they exceed 2**53), hashes and keys 0x-prefixed lower-case hex. Nouns only.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.domain.ids import Address, Hash32, ModelId, from_hex, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms

PROTOCOL_VERSION: Final = 1
MAX_CONTENT: Final = 1 << 20
MAX_SCORED: Final = 1 << 16
"""Tokens of the longest answer that is scored at once."""

# \Z, since $ would let a line break through at the end
Hex32 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{64}\Z")]
Hex20 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{40}\Z")]
Signature = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{130}\Z")]
Decimal = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,28})\Z")]
Session = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**32 - 2)]
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,80}\Z")]
"""Name of a capability."""
Words = Annotated[tuple[Word, ...], Meta(max_length=64)]
Role = Annotated[str, Meta(pattern=r"^(system|user|assistant|tool)\Z")]
ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
CallId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{0,128}\Z")]


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the model asked for."""

    id: CallId = ""
    """Whoever reads the answer gives it one; the result names it."""
    name: ToolName
    arguments: Annotated[str, Meta(max_length=MAX_CONTENT)] = "{}"
    """JSON, as text."""


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation. `role` is system, user, assistant or tool. The last two fields are left out where they are empty, in
    the canonical encoding too."""

    role: Role
    content: Annotated[str, Meta(max_length=MAX_CONTENT)]
    tool_calls: Annotated[tuple[ToolCall, ...], Meta(max_length=128)] = ()
    """Of an assistant."""
    tool_call_id: CallId = ""
    """Of a tool: which call this is the result of."""


class WireTerms(msgspec.Struct, frozen=True, kw_only=True):
    """`Terms` as text."""

    renter: Hex20
    signer: Hex20
    host: Hex20
    token: Hex20
    arbiter: Hex20
    price_per_mtok: Decimal
    bond: Decimal
    expires_at: Annotated[int, Meta(ge=0, lt=2**40)]
    challenge: Annotated[int, Meta(ge=0, lt=2**32)]
    exposure: Annotated[int, Meta(ge=1, lt=2**32)]
    policy: Annotated[int, Meta(ge=0, le=1)]
    model_id: Hex32
    salt: Hex32

    @classmethod
    def of(cls, terms: Terms) -> WireTerms:
        """`terms` as text."""
        return cls(
            renter=to_hex(terms.renter),
            signer=to_hex(terms.signer),
            host=to_hex(terms.host),
            token=to_hex(terms.token),
            arbiter=to_hex(terms.arbiter),
            price_per_mtok=str(terms.price),
            bond=str(terms.bond),
            expires_at=terms.expires_at,
            challenge=terms.challenge,
            exposure=terms.exposure,
            policy=int(terms.policy),
            model_id=to_hex(terms.model_id),
            salt=to_hex(terms.salt),
        )

    def terms(self) -> Terms:
        """The terms that this text stands for."""
        return Terms(
            renter=Address(from_hex(self.renter, 20)),
            signer=Address(from_hex(self.signer, 20)),
            host=Address(from_hex(self.host, 20)),
            token=Address(from_hex(self.token, 20)),
            arbiter=Address(from_hex(self.arbiter, 20)),
            price=PricePerMTok(int(self.price_per_mtok)),
            bond=BaseUnits(int(self.bond)),
            expires_at=self.expires_at,
            challenge=self.challenge,
            exposure=Tokens(self.exposure),
            policy=ProofPolicy(self.policy),
            model_id=ModelId(from_hex(self.model_id, 32)),
            salt=Hash32(from_hex(self.salt, 32)),
        )


class SessionAuth(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that the sender holds the session key (EIP-712 `SessionAuth`). Used once, valid for two minutes."""

    issued_at: Annotated[int, Meta(ge=0, lt=2**53)]
    nonce: Hex32
    signature: Signature
