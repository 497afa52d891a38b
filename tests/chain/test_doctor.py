"""`doctor chain`: every bound at its edge, and a chain on which one thing after the other is broken."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from tests.chain.support import HOST, RENTER, Chain, rpc_to

from fabstir.chain import bindings
from fabstir.chain.checks import Check, failed
from fabstir.chain.deploy import Operator
from fabstir.chain.deployer import read
from fabstir.chain.deployment import MERKLE, MINIMUM_STAKE
from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.doctor_account import SETTLEMENT_GAS, examine_account, examine_host, judge_gas
from fabstir.chain.doctor_contracts import CONTRACTS, examine_circuit, examine_contracts
from fabstir.chain.doctor_endpoints import EndpointFacts, examine_endpoints, judge_endpoints
from fabstir.chain.rpc import JsonRpc
from fabstir.chain.web3_provider import connect_web3
from fabstir.domain.ids import Address, Hash32, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.ops.clock import SystemClock
from fabstir.protocol.signing import SigningKey
from fabstir.testing.clock import ManualClock

NOW = 1_800_000_000
STRANGER = SigningKey(DEV_KEYS[6])
SOMEBODY_S_CIRCUIT = Hash32(bytes([9]) * 32)


def facts(**changes: Any) -> EndpointFacts:
    fields: dict[str, Any] = {
        "label": "one",
        "latency_ms": 20,
        "chain_id": 8453,
        "head": 1000,
        "head_time": NOW - 2,
        "tags": {"safe": 990, "finalized": 900},
        "log_span": 10_000,
    }
    return EndpointFacts(**(fields | changes))


def troubles(*found: EndpointFacts) -> dict[str, str]:
    """What is not ok."""
    judged = judge_endpoints(found, 8453, NOW)
    return {check.name: check.verdict for check in judged.checks if check.verdict != "ok"}


def test_a_good_endpoint_is_well() -> None:
    """At every bound, too."""
    assert troubles(facts()) == {}
    assert troubles(facts(latency_ms=1000, head_time=NOW - 30, log_span=2000)) == {}
    assert troubles(facts(head_time=NOW + 15)) == {}


@pytest.mark.parametrize(
    ("change", "name", "verdict"),
    [
        ({"latency_ms": 1001}, "reachable", "warn"),
        ({"chain_id": 1}, "chain", "fail"),
        ({"head_time": NOW - 31}, "head", "warn"),
        ({"head_time": NOW - 121}, "head", "fail"),
        ({"head_time": NOW + 16}, "clock", "warn"),
        ({"head_time": NOW + 121}, "clock", "fail"),
        ({"tags": {"safe": 990, "finalized": None}}, "finality", "warn"),
        ({"log_span": 500}, "logs", "warn"),
        ({"log_span": 0}, "logs", "fail"),
        ({"fault": "HTTP 503"}, "reachable", "fail"),
    ],
    ids=repr,
)
def test_one_step_beyond_a_bound_is_told(change: dict[str, Any], name: str, verdict: str) -> None:
    """That alone, with a next step."""
    judged = judge_endpoints([facts(**change)], 8453, NOW)
    bad = [check for check in judged.checks if check.verdict != "ok"]
    assert [(check.name, check.verdict) for check in bad] == [(f"one {name}", verdict)]
    assert bad[0].why and bad[0].next_step


def test_endpoints_are_held_against_each_other() -> None:
    """The newest head is the measure; one that is down is a warning while another answers."""
    assert troubles(facts(), facts(label="two", head=990)) == {}
    assert troubles(facts(), facts(label="two", head=989)) == {"two behind": "warn"}
    assert troubles(facts(), facts(label="two", head=935)) == {"two behind": "fail"}
    assert troubles(facts(), facts(label="two", fault="refused")) == {"two reachable": "warn"}


def test_what_contracts_say_counts_only_on_the_right_chain() -> None:
    """One endpoint of another chain, or none at all, and nothing more is asked."""
    assert judge_endpoints([facts()], 8453, NOW).usable
    assert judge_endpoints([facts(), facts(fault="down")], 8453, NOW).usable
    assert not judge_endpoints([facts(), facts(chain_id=1)], 8453, NOW).usable
    assert not judge_endpoints([facts(fault="down")], 8453, NOW).usable


def test_gas_is_counted_in_settlements() -> None:
    """100 is well, 5 is little, fewer fail."""
    one = SETTLEMENT_GAS * 7
    assert [judge_gas(one * n, 7).verdict for n in (100, 99, 5, 4)] == ["ok", "warn", "warn", "fail"]
    assert judge_gas(0, 0).verdict == "fail"


def verdicts(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.verdict for check in checks}


@pytest.mark.real
async def test_a_devnet_is_well(chain: Chain, rpc: JsonRpc) -> None:
    """Endpoint, contracts, token, owners."""
    endpoints = await examine_endpoints(rpc, 31337, chain.info.market, SystemClock())
    assert endpoints.usable and not failed(endpoints.checks)
    assert set(verdicts(await examine_contracts(rpc, chain.info)).values()) == {"ok"}


@pytest.mark.real
async def test_circuits_are_looked_at(chain: Chain, rpc: JsonRpc) -> None:
    """Those of the package by their verifiers' code; a host's own by whether the market knows it."""
    name, (circuit, contract) = next(iter(MERKLE.items()))
    assert verdicts(await examine_circuit(rpc, chain.info, name, circuit)) == {"proofs": "ok"}
    unknown = await examine_circuit(rpc, chain.info, name, Hash32(bytes(32)))
    assert verdicts(unknown) == {"proofs": "fail"} and unknown[0].next_step
    system = bindings.ProofSystem
    adapter = system.decode_verifier_of(await read(rpc, chain.info.proofs, system.encode_verifier_of(circuit))).adapter
    await rpc.request("anvil_setCode", to_hex(adapter), "0x60")
    found = {check.name: check for check in await examine_contracts(rpc, chain.info)}
    assert found[f"circuit {name}"].verdict == "fail" and contract not in found[f"circuit {name}"].measured


@pytest.mark.real
async def test_a_dead_endpoint_is_told_with_its_reason(chain: Chain) -> None:
    """Without the path of its URL, which may hold a key."""
    rpc = rpc_to("http://127.0.0.1:1/secret", chain.url)
    found = await examine_endpoints(rpc, 31337, None, ManualClock())
    await rpc.close()
    assert "Cannot connect" in found.checks[0].measured or "Error" in found.checks[0].measured
    assert "secret" not in str(found.checks)


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(CONTRACTS))
async def test_changed_code_is_found(chain: Chain, rpc: JsonRpc, name: str) -> None:
    """One byte less, at any of the contracts; no code at all is told as such."""
    place = to_hex(getattr(chain.info, name))
    code = await rpc.request("eth_getCode", place, "latest")
    for changed in (code[:-2], "0x"):
        await rpc.request("anvil_setCode", place, changed)
        found = verdicts(await examine_contracts(rpc, chain.info))
        assert {check for check, verdict in found.items() if verdict == "fail"} == {f"{name} code"}
        assert found["links"] == "skipped"


@pytest.mark.real
async def test_contracts_of_two_markets_do_not_fit(chain: Chain, rpc: JsonRpc) -> None:
    """Each one is genuine, and they do not know each other; the second market is not announced in the first one's stake."""
    other = await Operator(rpc, DEV_KEYS[0]).deploy(SOMEBODY_S_CIRCUIT)
    mixed = replace(chain.info, market=other.market)
    found = {check.name: check for check in await examine_contracts(rpc, mixed)}
    assert found["links"].verdict == "fail" and "market.stakes()" in found["links"].measured
    assert found["market announced"].verdict == "fail" and found["market announced"].measured == "never"


@pytest.mark.real
async def test_a_market_that_was_announced_a_moment_ago_must_wait(chain: Chain, rpc: JsonRpc) -> None:
    """Fifteen days for every market but the first."""
    other = await Operator(rpc, DEV_KEYS[0]).deploy(SOMEBODY_S_CIRCUIT)
    web3 = connect_web3(rpc, DEV_KEYS[0])
    data = bindings.HostStake.encode_announce(other.market)
    await web3.eth.send_transaction({"to": web3.to_checksum_address(chain.info.stakes), "data": data})
    mixed = replace(chain.info, market=other.market)
    announced = next(c for c in await examine_contracts(rpc, mixed) if c.name == "market announced")
    assert announced.verdict == "fail" and announced.next_step.startswith("Wait ")


@pytest.mark.real
async def test_a_host_is_examined_step_by_step(chain: Chain, rpc: JsonRpc) -> None:
    """Without stake it is neither staked nor listed; afterwards all is well, until a part of the stake is asked back."""
    found = verdicts(await examine_host(rpc, chain.info, STRANGER.address, chain.model))
    assert found == {"stake": "fail", "registered": "fail", "model approved": "ok", "model offered": "warn"}
    operator, web3 = Operator(rpc, DEV_KEYS[0]), connect_web3(rpc, DEV_KEYS[6])
    await operator.mint(chain.info, STRANGER.address, MINIMUM_STAKE)

    async def send(to: Address, data: bytes) -> None:
        await web3.eth.send_transaction({"to": web3.to_checksum_address(to), "data": data})

    await send(chain.info.usdc, bindings.TestUSDC.encode_approve(chain.info.stakes, MINIMUM_STAKE))
    await send(chain.info.stakes, bindings.HostStake.encode_stake(MINIMUM_STAKE))
    offer = bindings.Offer(chain.model, chain.info.usdc, 5)
    await send(chain.info.registry, bindings.NodeRegistry.encode_register("http://h", bytes(32), [offer]))
    assert set(verdicts(await examine_host(rpc, chain.info, STRANGER.address, chain.model)).values()) == {"ok"}
    await send(chain.info.stakes, bindings.HostStake.encode_request_unstake(1))
    found = verdicts(await examine_host(rpc, chain.info, STRANGER.address, chain.model))
    assert (found["stake"], found["registered"]) == ("fail", "fail")


@pytest.mark.real
async def test_a_transaction_that_hangs_and_an_empty_purse_are_told(
    chain: Chain, rpc: JsonRpc, control: DevnetControl
) -> None:
    """Sent and not mined; less than five settlements of coins."""
    assert set(verdicts(await examine_account(rpc, RENTER.address)).values()) == {"ok"}
    await control.hold_blocks()
    web3 = connect_web3(rpc, DEV_KEYS[1])
    await web3.eth.send_transaction({"to": web3.to_checksum_address(HOST.address), "value": 1, "gas": 21_000})  # type: ignore[typeddict-item]
    found = {check.name: check for check in await examine_account(rpc, RENTER.address)}
    assert found["transactions"].verdict == "warn" and "1 waiting" in found["transactions"].measured
    await control.set_balance(HOST.address, BaseUnits(1))
    assert verdicts(await examine_account(rpc, HOST.address))["gas"] == "fail"
