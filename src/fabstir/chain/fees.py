"""What a transaction offers for gas: EIP-1559 fees, their bump on a stuck nonce, and the bound.

Pure. The base fee is refunded down to what the block asks, so head-room costs nothing and saves bumps
(research/chain.md 3.2). Nothing above `cap` is ever signed: where the chain asks for more, the transaction waits.
"""

from __future__ import annotations

from typing import Final

import msgspec

GWEI: Final = 10**9
HEADROOM: Final = 2
"""Six full blocks in a row raise the base fee by 2 (12.5 % each)."""
MIN_REPLACEMENT_PERCENT: Final = 110
"""Nodes refuse a replacement that raises either fee by less than a tenth."""


class Fee(msgspec.Struct, frozen=True):
    """Wei for one unit of gas."""

    max_fee: int
    tip: int


def first_fee(base_fee: int, tip: int, cap: int) -> Fee:
    """For a new transaction while the newest block asks `base_fee`."""
    max_fee = min(HEADROOM * base_fee + tip, cap)
    return Fee(max_fee, min(tip, max_fee))


def bumped_fee(last: Fee, base_fee: int, cap: int) -> Fee | None:
    """For a replacement of a transaction that offered `last`: a quarter more, or what a new one would offer now.

    None where the bound leaves no room for a replacement that nodes accept.
    """
    tip = last.tip * 5 // 4 + 1
    wanted = Fee(max(last.max_fee * 5 // 4 + 1, HEADROOM * base_fee + tip), tip)
    max_fee = min(wanted.max_fee, cap)
    if max_fee * 100 < last.max_fee * MIN_REPLACEMENT_PERCENT or max_fee < tip:
        return None
    return Fee(max_fee, tip)
