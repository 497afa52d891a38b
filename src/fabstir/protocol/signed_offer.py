"""An offer as it is published: signed by the host's account, with the node's identity in it, for a few minutes.

Whoever stands between host and renter (a proxy that ends TLS, a network) could otherwise strip the encrypted channel from an offer,
change its prices or its URL's host, and the renter would talk in plain text. What is signed is the whole JSON but the signature itself,
so that a field that a renter does not know yet is covered too:

    digest = EIP-712 Offer(bytes32 offer,uint64 validUntil), domain of the market
    offer  = keccak-256 of the JSON without `signature`: keys sorted, no spaces, UTF-8

Decides whether an offer may be believed, not whether it is wanted. Whether its host is the one that was asked for, `fabstir.market.choice`
compares with the registry. Specification: docs/reference/http.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, from_hex, to_hex
from fabstir.protocol.messages import Hex32, Signature
from fabstir.protocol.node_key import NodeBinding, NodeKey
from fabstir.protocol.offer import Offer, WireOffer
from fabstir.protocol.signing import SIGNATURE_BYTES, SigningKey, keccak, recover

VALID_SECONDS: Final = 600
"""An offer of before a change may be shown again for so long."""
CLOCK_SKEW: Final = 120
"""Seconds that the host's clock may be ahead of the renter's; `SessionAuth` allows as much."""

Seconds = Annotated[int, Meta(ge=1, le=2**40)]
_canonical: Final = msgspec.json.Encoder(order="sorted").encode


class WireNode(msgspec.Struct, frozen=True, kw_only=True):
    """The node's identity, and the account's word for it."""

    key: Hex32
    """Ed25519 public key: signs the host's answers over HTTP and the end of each answer, and is its name in libp2p."""
    bound_until: Seconds
    """Unix seconds."""
    binding: Signature
    """By the account over EIP-712 `Node(bytes32 nodeKey,uint64 validUntil)`."""


class WireSignedOffer(WireOffer, frozen=True, kw_only=True):
    """What `GET /v1/offer` answers."""

    node: WireNode
    issued_at: Seconds
    """Unix seconds."""
    valid_until: Seconds
    """Unix seconds; at most ten minutes later."""
    signature: Signature
    """By the account `host` over EIP-712 `Offer(bytes32 offer,uint64 validUntil)`; `offer` is the keccak-256 of this object without
    `signature`, keys sorted, no spaces."""


def sign_offer(offer: Offer, account: SigningKey, node: NodeKey, now: float) -> WireSignedOffer:
    """`offer` as it is published at `now`."""
    bound, issued_at, wire = node.binding(now), int(now), WireOffer.of(offer)
    unsigned = WireSignedOffer(
        **{name: getattr(wire, name) for name in WireOffer.__struct_fields__},
        node=WireNode(key=to_hex(bound.key), bound_until=bound.bound_until, binding=to_hex(bound.signature)),
        issued_at=issued_at,
        valid_until=issued_at + VALID_SECONDS,
        signature="",
    )
    tree = msgspec.to_builtins(unsigned)
    del tree["signature"]
    digest = offer.market.offer_digest(keccak(_canonical(tree)), unsigned.valid_until)
    return msgspec.structs.replace(unsigned, signature=to_hex(account.sign(digest)))


def read_offer(body: bytes, now: float) -> Offer:
    """The offer in `body`, with the node's key in it, signed and of today.

    Raises PeerFault: `message_malformed` where it is none, `offer_untrusted` where its host did not sign it, or not for now.
    """
    tree = _tree(body)
    if "signature" not in tree:
        raise error("offer_untrusted", "it is not signed")
    try:
        said = msgspec.convert(tree, WireSignedOffer)
        offer = said.offer()
    except (msgspec.MsgspecError, ValueError) as unreadable:
        raise error("message_malformed", f"GET /v1/offer: {unreadable}"[:200]) from unreadable
    del tree["signature"]
    digest = offer.market.offer_digest(keccak(_canonical(tree)), said.valid_until)
    if recover(digest, from_hex(said.signature, SIGNATURE_BYTES)) != offer.host:
        raise error("offer_untrusted", f"not signed by {said.host}")
    node = NodeBinding(
        Hash32(from_hex(said.node.key, 32)), said.node.bound_until, from_hex(said.node.binding, SIGNATURE_BYTES)
    )
    objection = _objection(said, now) or node.objection(offer.market, offer.host, now)
    if objection:
        raise error("offer_untrusted", objection)
    return msgspec.structs.replace(offer, node=node.key)


def _objection(said: WireSignedOffer, now: float) -> str:
    """Why it is not of now; empty where it is."""
    if said.valid_until > said.issued_at + VALID_SECONDS:
        return f"valid for {said.valid_until - said.issued_at} s, at most {VALID_SECONDS} s are believed"
    if said.issued_at > now + CLOCK_SKEW:
        return f"issued at {said.issued_at}, here it is {int(now)}: a clock is wrong by more than {CLOCK_SKEW} s"
    if now >= said.valid_until:
        return f"it was valid until {said.valid_until}, it is {int(now)}"
    return ""


def _tree(body: bytes) -> dict[str, Any]:
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as unreadable:
        raise error("message_malformed", f"GET /v1/offer: {unreadable}"[:200]) from unreadable
    if not isinstance(tree, dict):
        raise error("message_malformed", "GET /v1/offer: no object")
    return tree
