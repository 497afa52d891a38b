"""What tests of announcements share: keys, a market and an announcement that everybody would believe."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.ids import Address, ModelId
from fabstir.domain.money import PricePerMTok
from fabstir.protocol.p2p.announcement import AnnouncedModel, AnnouncedPrice, Announcement, bind, seal
from fabstir.protocol.signing import Market, SigningKey

NOW: Final = 1_800_000_000
MARKET: Final = Market(31337, Address(bytes([0x0A]) * 20))
MODEL: Final = ModelId(bytes([5]) * 32)
USDC: Final = Address(bytes([4]) * 20)
ETH: Final = Address(bytes(20))
NODE: Final = NodeSecret(bytes(range(32)))
ACCOUNT: Final = SigningKey(bytes([0x11]) * 32)
HOST: Final = ACCOUNT.address


def announcement(by: NodeSecret = NODE, of: SigningKey = ACCOUNT, **changes: Any) -> Announcement:
    """That of the golden vectors, with `changes`."""
    key = bytes(by.verify_key)
    prices = (AnnouncedPrice.of(USDC, PricePerMTok(200_000)), AnnouncedPrice.of(ETH, PricePerMTok(10**21)))
    said = Announcement(
        chain_id=MARKET.chain_id,
        market=MARKET.address,
        node=key,
        account=of.address,
        bound_until=NOW + 86_400,
        binding=bind(of, MARKET, key, NOW + 86_400),
        issued_ms=NOW * 1000 + 7,
        expires_at=NOW + 900,
        url="https://host.example:8443",
        addresses=("/ip4/203.0.113.7/tcp/4001",),
        region="DE-BY",
        features=("encrypted", "rung:3", "scores"),
        slots=8,
        free=3,
        models=(AnnouncedModel(MODEL, "tiny-chat", "Q4_K_M", 4096, prices),),
    )
    return msgspec.structs.replace(said, **changes)


def sealed(by: NodeSecret = NODE, of: SigningKey = ACCOUNT, **changes: Any) -> bytes:
    """The same, signed."""
    return seal(announcement(by, of, **changes), by)
