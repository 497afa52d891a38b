"""What stands at an address is compared with what this package was built with."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.chain.support import Chain

from fabstir.chain import artifacts
from fabstir.chain.code_check import same_code
from fabstir.chain.devnet import DEV_KEYS
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import to_hex
from fabstir.ops.clock import SystemClock
from fabstir.testing.journal import MemoryJournal

MARKET = artifacts.load("JobMarketplace")


def test_immutables_do_not_matter_and_all_else_does() -> None:
    """A byte of an immutable may be anything; any other byte, one more or one less is another contract."""
    code = bytearray(MARKET.deployed_bytecode)
    start, length = MARKET.immutables[0]
    code[start : start + length] = b"\xff" * length
    assert same_code(MARKET, bytes(code))
    assert not same_code(MARKET, bytes(code) + b"\0")
    assert not same_code(MARKET, bytes(code[:-1]))
    assert not same_code(MARKET, b"")
    code[start - 1] ^= 1
    assert not same_code(MARKET, bytes(code))


def test_places_of_immutables_are_empty_in_every_artifact() -> None:
    """Zeros in the compiler's output, inside the code, and some contract has one: the mask covers what it should."""
    every = [artifacts.load(name) for name in ("JobMarketplace", "NodeRegistry", "ModelRegistry", "ProofSystem")]
    assert sum(len(artifact.immutables) for artifact in every) > 0
    for artifact in every:
        for start, length in artifact.immutables:
            assert artifact.deployed_bytecode[start : start + length] == bytes(length)


@pytest.mark.real
async def test_another_contract_at_an_address_is_refused(chain: Chain, rpc: JsonRpc, clock: SystemClock) -> None:
    """`contract_mismatch` names contract, address and the next step; a registry in the market's place is no market."""
    swapped = replace(chain.info, market=chain.info.registry, registry=chain.info.market)
    with pytest.raises(ChainFault, match="contract_mismatch") as refused:
        await MarketClient.connect([chain.url], DEV_KEYS[1], swapped, MemoryJournal(), clock)
    assert f"JobMarketplace at {to_hex(chain.info.registry)}" in refused.value.detail
    assert "NodeRegistry" in refused.value.detail and "ProofSystem" not in refused.value.detail
    assert refused.value.next_step and not refused.value.retryable
    code = bytes.fromhex((await rpc.request("eth_getCode", to_hex(chain.info.market), "latest"))[2:])
    await rpc.request("anvil_setCode", to_hex(chain.info.market), to_hex(code[:-1] + bytes([code[-1] ^ 1])))
    with pytest.raises(ChainFault, match="contract_mismatch"):
        await MarketClient.connect([chain.url], DEV_KEYS[1], chain.info, MemoryJournal(), clock)
