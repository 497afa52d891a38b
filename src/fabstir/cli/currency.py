"""Amounts for people in the currency that they are in. Decides nothing."""

from __future__ import annotations

from typing import Final, NamedTuple

from fabstir.cli.frame import USDC_DECIMALS
from fabstir.domain.ids import ZERO_ADDRESS, Address, to_hex
from fabstir.domain.money import BaseUnits, format_units

WEI_DECIMALS: Final = 18


class Currency(NamedTuple):
    """What it is called, and how many digits are behind the point."""

    symbol: str
    decimals: int

    def text(self, amount: BaseUnits) -> str:
        """`1.250000 USDC`."""
        return format_units(amount, self.decimals, self.symbol)


IN_USDC: Final = Currency("USDC", USDC_DECIMALS)
IN_ETH: Final = Currency("ETH", WEI_DECIMALS)


def currency_of(token: Address, usdc: Address) -> Currency:
    """ETH and USDC by name; of another token the base units, since its decimals are not known here."""
    if token == ZERO_ADDRESS:
        return IN_ETH
    return IN_USDC if token == usdc else Currency(f"base units of {to_hex(token)}", 0)
