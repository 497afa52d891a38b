"""An announcement: what a host says of itself to everybody, signed twice, and what makes one that may be believed.

The host's account (secp256k1) signs once that an Ed25519 node key speaks for it on one market until a day; the node key signs
each announcement. So the account's key is not needed every few minutes, and a node key that leaks stops being worth anything.
`read` looks at what a stranger sent: size, shape, one encoding only, sense, then signatures, the dearest last. It never says
whether the host is registered, nor whether a newer announcement is known: `fabstir.protocol.p2p.book` does.
Specification: docs/explanation/p2p.md; vectors: tests/protocol/vectors/p2p.json.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import nacl.exceptions
from msgspec import Meta
from nacl.signing import SigningKey as NodeSecret
from nacl.signing import VerifyKey

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.domain.money import PricePerMTok
from fabstir.protocol.signing import Market, SigningKey, recover

VERSION: Final = 1
MAX_BYTES: Final = 4_096
"""Of a whole announcement; one of a host with a dozen models in two currencies has 2 KiB."""
MAX_LIFETIME: Final = 3_600
"""Seconds between issue and expiry. A host renews every few minutes; who stops is forgotten within the hour."""
CLOCK_SKEW: Final = 120
"""Seconds that a host's clock may be ahead of ours."""
_CONTEXT: Final = b"fabstir/announce/1\n"

Bytes20 = Annotated[bytes, Meta(min_length=20, max_length=20)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Seconds = Annotated[int, Meta(ge=1, le=2**40)]
Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._:-]{0,31}\Z")]


class AnnouncedPrice(msgspec.Struct, frozen=True, array_like=True):
    """What 1,000,000 generated tokens cost in one currency."""

    token: Bytes20
    """Zeros: the chain's native coin."""
    amount: Annotated[bytes, Meta(min_length=12, max_length=12)]
    """Base units, big-endian: an amount in wei may exceed the integers of msgpack."""

    @classmethod
    def of(cls, token: Address, price: PricePerMTok) -> AnnouncedPrice:
        """As it is written."""
        return cls(token, price.to_bytes(12, "big"))

    @property
    def price(self) -> PricePerMTok:
        """As it is meant."""
        return PricePerMTok(int.from_bytes(self.amount, "big"))


class AnnouncedModel(msgspec.Struct, frozen=True, array_like=True):
    """One model that is served."""

    model_id: Bytes32
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    """The host's word; the id is what counts."""
    quantisation: Annotated[str, Meta(max_length=16)]
    """As the weights file has it, `Q4_K_M`; empty where it is not known."""
    context_size: Annotated[int, Meta(ge=1, le=2**31)]
    prices: Annotated[tuple[AnnouncedPrice, ...], Meta(min_length=1, max_length=8)]

    def price_in(self, token: Address) -> PricePerMTok | None:
        """None where the currency is not taken."""
        return next((row.price for row in self.prices if row.token == token), None)


class Announcement(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is signed, in the order in which it is encoded."""

    chain_id: Annotated[int, Meta(ge=1, le=2**53)]
    market: Bytes20
    """JobMarketplace."""
    node: Bytes32
    """Ed25519 public key: the libp2p identity."""
    account: Bytes20
    """The host, as NodeRegistry knows it."""
    bound_until: Seconds
    binding: Annotated[bytes, Meta(min_length=65, max_length=65)]
    """By the account over EIP-712 `Node(bytes32 nodeKey,uint64 validUntil)`."""
    issued_ms: Annotated[int, Meta(ge=1, le=2**50)]
    """Unix milliseconds. Also the sequence number: the later issue replaces the earlier one, never the other way."""
    expires_at: Seconds
    url: Annotated[str, Meta(max_length=200, pattern=r"^https?://[!-~]{1,192}\Z")]
    """Base URL of the host's API."""
    addresses: tuple[Annotated[str, Meta(max_length=128, pattern=r"^/[!-~]+\Z")], ...]
    """Multiaddrs, at most eight."""
    region: Annotated[str, Meta(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,3})?)?\Z")]
    """ISO 3166 country or subdivision; empty where the host does not say."""
    features: tuple[Word, ...]
    """Sorted, at most sixteen: `encrypted`, `scores`, `rung:3`."""
    slots: Annotated[int, Meta(ge=1, le=65_535)]
    """Sessions at the same time."""
    free: Annotated[int, Meta(ge=0, le=65_535)]
    """Of the slots, when it was issued."""
    models: Annotated[tuple[AnnouncedModel, ...], Meta(min_length=1, max_length=32)]

    @property
    def contract(self) -> Market:
        """Where jobs with this host are opened."""
        return Market(self.chain_id, Address(self.market))

    def model(self, model_id: ModelId) -> AnnouncedModel | None:
        """None where it is not served."""
        return next((model for model in self.models if model.model_id == model_id), None)

    def lives(self, now: float) -> bool:
        """It has been issued, clocks permitting, and has not expired."""
        return self.issued_ms / 1000 <= now + CLOCK_SKEW and now < self.expires_at


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    body: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


_encoder: Final = msgspec.msgpack.Encoder()
_signed: Final = msgspec.msgpack.Decoder(_Signed)
_body: Final = msgspec.msgpack.Decoder(Announcement)


def node_digest(market: Market, node: bytes, valid_until: int) -> Hash32:
    """What a host's account signs so that the key `node` may speak for it."""
    return market.node_digest(Hash32(node), valid_until)


def bind(account: SigningKey, market: Market, node: bytes, valid_until: int) -> bytes:
    """The account's signature for `node`."""
    return account.sign(node_digest(market, node, valid_until))


def seal(announcement: Announcement, node: NodeSecret) -> bytes:
    """Signed and encoded, as it is sent. Raises ValueError where nobody would believe it (a programmer error)."""
    if (nonsense := _nonsense(announcement)) or bytes(node.verify_key) != announcement.node:
        raise ValueError(nonsense or "another node's key")
    body = _encoder.encode(announcement)
    raw = _encoder.encode(_Signed(VERSION, body, node.sign(_CONTEXT + body).signature))
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{len(raw)} bytes, the bound is {MAX_BYTES}")
    return raw


class Unverified(msgspec.Struct, frozen=True):
    """Well-formed, and not yet known to be from whom it says."""

    announcement: Announcement
    body: bytes
    signature: bytes

    def verified(self) -> Announcement:
        """Raises PeerFault (`announcement_forged`)."""
        said = self.announcement
        try:
            VerifyKey(said.node).verify(_CONTEXT + self.body, self.signature)
        except (nacl.exceptions.CryptoError, nacl.exceptions.TypeError, nacl.exceptions.ValueError) as forged:
            raise error("announcement_forged", "the node key did not sign it") from forged
        if recover(node_digest(said.contract, said.node, said.bound_until), said.binding) != said.account:
            raise error("announcement_forged", "the account did not name this node key")
        return said


def read(raw: bytes) -> Unverified:
    """What a stranger sent, checked for all but its signatures. Raises PeerFault (`announcement_invalid`)."""
    if len(raw) > MAX_BYTES:
        raise error("announcement_invalid", f"{len(raw)} bytes, the bound is {MAX_BYTES}")
    try:
        signed = _signed.decode(raw)
        if signed.version != VERSION:
            raise error("announcement_invalid", f"version {signed.version}, this node reads {VERSION}")
        said = _body.decode(signed.body)
    except (msgspec.MsgspecError, ValueError) as unreadable:
        raise error("announcement_invalid", str(unreadable)[:200]) from unreadable
    if _encoder.encode(said) != signed.body or _encoder.encode(signed) != raw:
        raise error("announcement_invalid", "not the canonical encoding")
    if nonsense := _nonsense(said):
        raise error("announcement_invalid", nonsense)
    return Unverified(said, signed.body, signed.signature)


def _nonsense(said: Announcement) -> str:
    """What contradicts itself in it; empty where nothing does."""
    issued = said.issued_ms / 1000
    prices = [row for model in said.models for row in model.prices]
    checks = {
        "more than eight addresses": len(said.addresses) <= 8,
        "features are at most sixteen, sorted, each once": len(said.features) <= 16
        and list(said.features) == sorted(set(said.features)),
        "more free slots than slots": said.free <= said.slots,
        "a model twice": len({model.model_id for model in said.models}) == len(said.models),
        "a currency twice": all(len({row.token for row in model.prices}) == len(model.prices) for model in said.models),
        "a price of nothing": all(row.price > 0 for row in prices),
        "it expires before it is issued": issued < said.expires_at,
        f"it lives longer than {MAX_LIFETIME} s": said.expires_at <= issued + MAX_LIFETIME,
        "it outlives the account's word for the node key": said.expires_at <= said.bound_until,
    }
    return next((what for what, holds in checks.items() if not holds), "")
