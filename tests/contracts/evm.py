"""An EVM in this process for tests of the contracts: deploys artifacts, calls by calldata, names reverts, moves time.

Uses pyrevm, 0.16 ms a call; its gas figures are too low over several calls and are never reported. Mirrors nothing of the market.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Final

import pyrevm
from eth_utils.address import to_checksum_address

from fabstir.chain.abi import Revert
from fabstir.chain.bindings import decode_revert
from fabstir.domain.ids import Address, Hash32
from fabstir.protocol.signing import keccak

CHAIN_ID: Final = 31337
START_TIME: Final = 1_800_000_000
START_BLOCK: Final = 1_000
DEPLOYER: Final = Address(b"\xde" * 20)
BLOCKHASHES: Final = 256
_OUTPUT: Final = re.compile(r"output: 0x([0-9a-f]*)")


class CallReverted(Exception):
    """The call reverted."""

    def __init__(self, revert: Revert) -> None:
        super().__init__(str(revert))
        self.revert: Final = revert


class Evm:
    """A chain with one block per `mine`; every call commits unless it reverts."""

    def __init__(self) -> None:
        env = pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=CHAIN_ID))
        self._evm = pyrevm.EVM(env=env, spec_id="CANCUN", gas_limit=60_000_000)
        self.time = START_TIME
        self.block = START_BLOCK
        self.mine(0, 0)

    def mine(self, blocks: int, seconds: int) -> None:
        """Go on by so many blocks and seconds."""
        self.block += blocks
        self.time += seconds
        self._evm.set_block_env(pyrevm.BlockEnv(number=self.block, timestamp=self.time, gas_limit=60_000_000))

    def block_hash(self, number: int) -> Hash32 | None:
        """As the EVM sees it; None outside the last 256 blocks. (pyrevm's own rule for a chain without headers.)"""
        known = self.block - BLOCKHASHES <= number < self.block
        return keccak(str(number).encode()) if known else None

    def fund(self, account: Address, amount: int) -> None:
        """Give native coin."""
        self._evm.set_balance(_text(account), amount)

    def balance(self, account: Address) -> int:
        """Native coin of an account."""
        return int(self._evm.get_balance(_text(account)))

    def deploy(self, creation_code: bytes) -> Address:
        """A new contract."""
        self._evm.reset_transient_storage()
        return Address(bytes.fromhex(self._evm.deploy(_text(DEPLOYER), creation_code)[2:]))

    def call(self, sender: Address, to: Address, data: bytes, value: int = 0, static: bool = False) -> bytes:
        """What the call returns. Raises CallReverted."""
        self._evm.reset_transient_storage()  # pyrevm would carry it from one transaction into the next
        try:
            out = self._evm.message_call(_text(sender), _text(to), calldata=data, value=value, is_static=static)
        except RuntimeError as fault:
            output = _OUTPUT.search(str(fault))  # pyrevm gives the returned bytes in its words alone
            raise CallReverted(
                decode_revert(bytes.fromhex(output[1])) if output else Revert(str(fault)[:120], ())
            ) from None
        return bytes(out)

    def view(self, to: Address, data: bytes) -> bytes:
        """A call that changes nothing."""
        return self.call(DEPLOYER, to, data, static=True)


def creation_code_of(name: str) -> bytes:
    """Creation code of a contract that only tests deploy."""
    file = Path(__file__).parent / "artifacts" / f"{name}.json"
    return bytes.fromhex(json.loads(file.read_text())["bytecode"][2:])


@functools.cache  # a checksum costs a Keccak, and the few accounts of a test are named in each of its calls
def _text(account: Address) -> str:
    return str(to_checksum_address(account))
