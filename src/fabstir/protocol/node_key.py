"""The node's identity: one Ed25519 key, for libp2p, for what the node answers over HTTP and for the end of each answer.

The account (secp256k1, where the money is) says once a day that this key speaks for it on one market (EIP-712 `Node`), so that what is
signed often is signed with a key that owns nothing. Pure; the time comes as an argument. Why there is one identity and where it is kept:
docs/decisions/0013-one-node-identity.md.
"""

from __future__ import annotations

from typing import Final

import msgspec
import nacl.exceptions
from nacl.signing import SigningKey as NodeSecret
from nacl.signing import VerifyKey

from fabstir.domain.ids import Address, Hash32
from fabstir.protocol.signing import Market, SigningKey, recover

BINDING_SECONDS: Final = 86_400
"""For which the account's word holds; it is given anew after half of them."""
NODE_SIGNATURE_BYTES: Final = 64


class NodeBinding(msgspec.Struct, frozen=True):
    """The account's word for the key."""

    key: Hash32
    """Ed25519, public."""
    bound_until: int
    """Unix seconds."""
    signature: bytes
    """By the account over EIP-712 `Node(bytes32 nodeKey,uint64 validUntil)`."""

    def objection(self, market: Market, account: Address, now: float) -> str:
        """Why the key does not speak for `account`; empty where it does."""
        if now >= self.bound_until:
            return f"the account's word for the node key ended at {self.bound_until}, it is {int(now)}"
        if recover(market.node_digest(self.key, self.bound_until), self.signature) != account:
            return "the account did not name this node key"
        return ""


class NodeKey:
    """The identity of one host on one market. Never printed. Memory: the last binding."""

    def __init__(self, secret: NodeSecret, account: SigningKey, market: Market) -> None:
        self._secret = secret
        self._account = account
        self._market = market
        self.public: Final = Hash32(bytes(secret.verify_key))
        self._binding = NodeBinding(self.public, 0, b"")

    def __repr__(self) -> str:
        return f"<NodeKey {self.public.hex()[:8]}>"

    def binding(self, now: float) -> NodeBinding:
        """The account's word, good for half a day at least."""
        if self._binding.bound_until < now + BINDING_SECONDS // 2:
            until = int(now) + BINDING_SECONDS
            signature = self._account.sign(self._market.node_digest(self.public, until))
            self._binding = NodeBinding(self.public, until, signature)
        return self._binding

    def sign(self, data: bytes) -> bytes:
        """64 bytes; deterministic."""
        return bytes(self._secret.sign(data).signature)


def signed_by(node: Hash32, data: bytes, signature: bytes) -> bool:
    """Whether `node` signed `data`."""
    try:
        VerifyKey(node).verify(data, signature)
    except (nacl.exceptions.CryptoError, nacl.exceptions.TypeError, nacl.exceptions.ValueError):
        return False
    return True
