"""Under which keys of the DHT a host is found: one for each model and each capability, of one market.

A key is a SHA-256 multihash, as in every Kademlia network of libp2p. Servers keep at most twenty providers a key, first come first
kept, so that each key is divided into shards: a host announces itself in the shard of its node key, who looks asks all of them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from fabstir.domain.ids import ModelId
from fabstir.protocol.signing import Market

SHARDS: Final = 8
"""160 providers of one model; who looks pays eight look-ups, in the background."""
MULTIHASH: Final = b"\x12\x20"
"""SHA-256, 32 bytes."""
_CONTEXT: Final = b"fabstir/provider/1\n"
_MODEL: Final = b"model\n"
_CAPABILITY: Final = b"capability\n"


def model_key(market: Market, model: ModelId, shard: int) -> bytes:
    """Of hosts that serve `model`."""
    return _key(market, _MODEL + model, shard)


def capability_key(market: Market, capability: str, shard: int) -> bytes:
    """Of hosts with a feature, or in a region (`region:DE`)."""
    return _key(market, _CAPABILITY + capability.encode(), shard)


def shard_of(node: bytes) -> int:
    """Where a node key belongs."""
    return sha256(node).digest()[0] % SHARDS


def model_keys(market: Market, model: ModelId) -> tuple[bytes, ...]:
    """All shards, for whoever looks."""
    return tuple(model_key(market, model, shard) for shard in range(SHARDS))


def capability_keys(market: Market, capability: str) -> tuple[bytes, ...]:
    """All shards, for whoever looks."""
    return tuple(capability_key(market, capability, shard) for shard in range(SHARDS))


def _key(market: Market, what: bytes, shard: int) -> bytes:
    if not 0 <= shard < SHARDS:
        raise ValueError(f"shard {shard} of {SHARDS}")
    place = market.chain_id.to_bytes(8, "big") + market.address
    return MULTIHASH + sha256(_CONTEXT + place + bytes((shard,)) + what).digest()
