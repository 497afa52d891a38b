"""An anvil that answers as a public network does, with what our checklist looks for put in place by force. For tests alone."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from fabstir.chain import artifacts
from fabstir.chain.devnet import CHAIN_ID, Devnet
from fabstir.chain.networks import Network
from fabstir.chain.rpc import JsonRpc
from fabstir.chain.survey import GAS_PRICE_ORACLE
from fabstir.domain.ids import Address, to_hex

TIMELOCK = Address(b"\x71" * 20)
SAFE = Address(b"\x72" * 20)
ANSWERS = "62{seconds:06x}5f5260205ff3"
"""PUSH3 seconds, PUSH0, MSTORE, PUSH1 32, PUSH0, RETURN: the same answer to every call."""


class PublicChain(Devnet):
    """`chain_id` in the place of the devnet's."""

    def __init__(self, anvil: Path, chain_id: int) -> None:
        super().__init__(anvil)
        self._command[self._command.index(str(CHAIN_ID))] = str(chain_id)


async def pose_as(rpc: JsonRpc, network: Network) -> None:
    """Circle's token at its address, a timelock of 48 hours, and an oracle of L1 fees."""
    await put_answer(rpc, TIMELOCK, 48 * 3600)
    await put_answer(rpc, GAS_PRICE_ORACLE, 1_000_000)
    assert network.usdc is not None
    usdc = artifacts.load("TestUSDC")
    code = await rpc.request("eth_call", {"data": to_hex(usdc.bytecode)}, "latest")
    await rpc.request("anvil_setCode", to_hex(network.usdc), code)
    for label, text in (("_name", network.usdc_name), ("_symbol", "USDC")):
        await rpc.request("anvil_setStorageAt", to_hex(network.usdc), slot_of("TestUSDC", label), short_string(text))


async def put_answer(rpc: JsonRpc, place: Address, number: int) -> None:
    """Code that answers `number` to everything."""
    await rpc.request("anvil_setCode", to_hex(place), "0x" + ANSWERS.format(seconds=number))


def slot_of(contract: str, label: str) -> str:
    raw: Any = json.loads(resources.files("fabstir.chain.artifacts").joinpath(f"{contract}.json").read_text())
    slot = next(item["slot"] for item in raw["storageLayout"]["storage"] if item["label"] == label)
    return f"0x{int(slot):064x}"


def short_string(text: str) -> str:
    """As Solidity keeps strings below 32 bytes."""
    return "0x" + (text.encode().ljust(31, b"\0") + bytes([2 * len(text)])).hex()
