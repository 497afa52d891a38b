"""The chains that the market can stand on: names, ids and the dollar that Circle issues there. A closed table, asked by deployment,
address book and `doctor`; never guesses.

Addresses of USDC: https://developers.circle.com/stablecoins/usdc-contract-addresses.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, address


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """One chain."""

    name: str
    chain_id: int
    usdc: Address | None = None
    """None: a test token is deployed with the market."""
    usdc_name: str = "USD Coin"
    """Part of the token's EIP-712 domain, which differs between Base and its test network."""
    play_money: bool = False
    """Keys and proofs of this chain are known to everybody; nothing on it is worth anything."""


NETWORKS: Final = (
    Network(name="devnet", chain_id=31337, play_money=True),
    Network(
        name="base-sepolia",
        chain_id=84532,
        usdc=address("0x036cbd53842c5426634e7929541ec2318f3dcf7e"),
        usdc_name="USDC",
    ),
    Network(name="base", chain_id=8453, usdc=address("0x833589fcd6edb6e08f4c7c32d4f71b54bda02913")),
)


def network(name: str) -> Network:
    """Raises LocalFault (`config_invalid`) on a name that is not in the table."""
    found = next((one for one in NETWORKS if one.name == name), None)
    if found is None:
        raise error("config_invalid", f"there is no network {name!r}; known: {', '.join(n.name for n in NETWORKS)}")
    return found


def network_of(chain_id: int) -> Network | None:
    """None where the chain is not in the table."""
    return next((one for one in NETWORKS if one.chain_id == chain_id), None)
