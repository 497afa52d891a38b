"""What a setting may be: the types that the tree of settings (`fabstir.ops.config`) is written in. Holds no setting and reads nothing."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from fabstir.domain.money import BaseUnits

Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Url = Annotated[str, Meta(title="URL", pattern="^https?://")]
Role = Literal["renter", "host", "arbiter"]
"""Whose key a command uses."""
ContractAddress = Annotated[str, Meta(title="address", pattern=r"^0x[0-9a-fA-F]{40}\Z")]

LARGEST_NUMBER: Final = 2**63 - 1
"""TOML's integers have 64 bits; a larger amount is written as text."""
Amount = (
    Annotated[int, Meta(ge=0, le=LARGEST_NUMBER, title="amount")]
    | Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,28})\Z")]
)
"""Base units as an integer, or as decimal text where they exceed 64 bits."""
USDC: Final = "usdc"
ETH: Final = "eth"
Currency = Annotated[str, Meta(title="`usdc`, `eth` or an address", pattern=r"^(usdc|eth|0x[0-9a-fA-F]{40})\Z")]


def units(amount: int | str) -> BaseUnits:
    """The amount that an `Amount` stands for."""
    return BaseUnits(int(amount))


def about(description: str, *, secret: bool = False, live: bool = False) -> Meta:
    """What a setting is for; of a `secret` one only that it is set is ever shown, of a secret URL its origin. A `live` one takes effect
    in a host that runs (`fabstir.ops.reload`); any other one at its next start."""
    return Meta(description=description, extra={"secret": secret, "live": live})


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file. A key that is not listed is refused, so that a misspelt setting is never ignored."""
