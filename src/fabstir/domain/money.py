"""Money as integers of the smallest unit, in types whose names carry the unit.

The one formula of the market is here: the cost of a channel is the floor of *cumulative tokens x price*, so rounding
never adds up and always favours the renter (research: 1,000 checkpoints rounded one by one drift, one cumulative
product cannot).
"""

from __future__ import annotations

from typing import Final, NewType

BaseUnits = NewType("BaseUnits", int)
"""The token's smallest unit: 1e-6 USDC, 1 wei. 0 <= value < 2**96."""

PricePerMTok = NewType("PricePerMTok", int)
"""Base units for 1,000,000 generated tokens. 0 < value < 2**96."""

Tokens = NewType("Tokens", int)
"""Generated tokens counted by tokenizer ids, cumulative over a job. 0 <= value < 2**32 - 1."""

TOKENS_PER_PRICE: Final = 1_000_000
MAX_AMOUNT: Final = 2**96 - 1
MAX_DEPOSIT: Final = 2**88 - 1
"""The contract keeps deposits in 88 bits: 309 million ETH in wei."""
MAX_TOKENS: Final = 2**32 - 2
FEE_BASIS_POINTS: Final = 500
"""The marketplace's fee: 5 %, fixed per contract version (JobMarketplace.FEE_BPS)."""


def cost(tokens: Tokens, price: PricePerMTok) -> BaseUnits:
    """What `tokens` generated tokens, counted from the start of the job, cost at `price`: floor(tokens * price / 1e6)."""
    return BaseUnits(tokens * price // TOKENS_PER_PRICE)


def fee_of(delta: BaseUnits) -> BaseUnits:
    """The marketplace's share of one redemption of `delta`: floor(delta * 5 %)."""
    return BaseUnits(delta * FEE_BASIS_POINTS // 10_000)


def affordable(deposit: BaseUnits, price: PricePerMTok) -> Tokens:
    """The largest number of tokens whose cost does not exceed `deposit`.

    floor(n * price / 1e6) <= deposit  <=>  n * price < (deposit + 1) * 1e6.
    """
    return Tokens(min(((deposit + 1) * TOKENS_PER_PRICE - 1) // price, MAX_TOKENS))


def format_units(amount: BaseUnits, decimals: int = 6, symbol: str = "USDC") -> str:
    """For people: `1234567` -> `1.234567 USDC`. Never parsed back."""
    whole, part = divmod(amount, 10**decimals)
    return f"{whole}.{part:0{decimals}d} {symbol}" if decimals else f"{whole} {symbol}"
