"""The plan of a deployment: pure, complete, and recognised on the chain by what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from fabstir.chain import artifacts
from fabstir.chain.code_check import difference, same_code
from fabstir.chain.deployment import (
    FACTORY,
    MERKLE,
    OWNED,
    Call,
    Create,
    Parameters,
    Plan,
    Probe,
    create2_address,
    plan,
    salt_of,
    word,
)
from fabstir.domain.ids import Address, Hash32, address
from fabstir.ports.chain import contract_addresses

SOMEBODY = Address(b"\x11" * 20)
OWNER, TREASURY, TOKEN = (Address(bytes([n]) * 20) for n in (0x22, 0x33, 0x44))
CIRCUIT = Hash32(bytes([1]) * 32)


def wanted(**changes: Any) -> Parameters:
    fields: dict[str, Any] = {
        "chain_id": 31337,
        "deployer": SOMEBODY,
        "owner": OWNER,
        "treasury": TREASURY,
        "token": TOKEN,
        "circuit": CIRCUIT,
    }
    return Parameters(**(fields | changes))


def made(**changes: Any) -> Plan:
    return plan(wanted(**changes), salt_of(0))


def names(deployment: Plan) -> list[str]:
    return [step.name for step in deployment.steps]


def test_the_order_is_that_of_the_arguments() -> None:
    """Nothing is made before what its constructor names; the market is announced once it is there."""
    assert names(made()) == [
        "ModelRegistry",
        "HostStake",
        "NodeRegistry",
        "ProofSystem",
        "Halo2BindVerifier",
        "EzklBindVerifier",
        "EpochProofs",
        "JobMarketplace",
        "PromptBoard",
        "Delegation",
        "MerkleBindVerifier",
        "MerkleSampleVerifier",
        "HostStake.announce",
        "ProofSystem.register merkle/bind",
        "ProofSystem.register merkle/sample",
        "ProofSystem.register",
        "ModelRegistry.transferOwnership",
        "HostStake.transferOwnership",
        "ProofSystem.transferOwnership",
    ]
    assert names(made(token=None))[0] == "TestUSDC"


def test_without_a_circuit_there_is_no_verifier() -> None:
    """And none is registered."""
    assert not {"Halo2BindVerifier", "EzklBindVerifier", "ProofSystem.register"} & set(names(made(circuit=None)))


def test_circuits_without_a_reference_string_are_in_every_market() -> None:
    """Each with its own verifier, whatever else is registered; every step has a name of its own, as intents must."""
    for deployment in (made(), made(circuit=None)):
        named = {step.name: step for step in deployment.steps}
        assert len(named) == len(deployment.steps)
        for name, (_, contract) in MERKLE.items():
            verifier = named[contract]
            assert isinstance(verifier, Create)
            assert [probe.word for probe in named[f"ProofSystem.register {name}"].probes] == [word(verifier.address)]


def test_spot_gets_its_verifier_where_it_is_wanted() -> None:
    """In front of the generated one, reading heads from this market's registry, and registered under its own id."""
    with_spot = made(spot=Hash32(b"\x5b" * 32))
    added = [name for name in names(with_spot) if name not in names(made())]
    assert added == ["Halo2SpotVerifier", "EzklSpotVerifier", "ProofSystem.register spot"]
    adapter = next(step for step in with_spot.creates if step.name == "EzklSpotVerifier")
    assert adapter.arguments[-20:] == with_spot.info.models


def test_every_address_of_the_book_is_a_contract_of_the_plan() -> None:
    """But the token, where it was given."""
    places = {step.address for step in made().creates}
    book = contract_addresses(made().info)
    assert {name for name, place in book.items() if address(place) not in places} == {"usdc"}
    assert made().info.usdc == TOKEN


@pytest.mark.parametrize("step", made(token=None).creates, ids=lambda step: step.name)
def test_every_argument_reads_back(step: Create) -> None:
    """Each constructor argument has a getter of its name whose answer is compared; owners are compared at the end."""
    inputs: list[dict[str, Any]] = next(
        (item["inputs"] for item in artifacts.load(step.name).abi if item["type"] == "constructor"), []
    )
    getters = {f["name"] for f in artifacts.load(step.name).abi if f["type"] == "function" and not f["inputs"]}
    read = [probe.what.split(".")[1] for probe in step.probes]
    assert read == [item["name"].rstrip("_") for item in inputs if item["name"] != "owner"]
    assert set(read) <= getters
    assert all(probe.to == step.address and probe.word is not None for probe in step.probes)


def test_every_owned_contract_is_handed_over() -> None:
    """Offered or accepted, both count as done."""
    owned = {name for name in artifacts_with("transferOwnership") if name in {s.name for s in made().creates}}
    assert owned == set(OWNED)
    for step in made().steps:
        if step.name.endswith("transferOwnership"):
            assert isinstance(step, Call)
            assert [probe.word for probe in step.probes] == [word(OWNER)] * 2


def artifacts_with(function: str) -> set[str]:
    every = {step.name for step in made(token=None).creates}
    return {name for name in every if any(item.get("name") == function for item in artifacts.load(name).abi)}


def test_addresses_follow_from_parameters_and_salt() -> None:
    """The same again gives the same; another treasury or salt gives another market."""
    assert made() == made()
    assert made().info.market != made(treasury=OWNER).info.market
    assert made().info.market != plan(wanted(), salt_of(1)).info.market
    assert made().info.market == made(owner=TREASURY).info.market, "the owner is offered the contracts afterwards"


def test_salt_and_code_name_the_place() -> None:
    """Another salt or one other byte of code is another address; that the factory agrees is held on a chain (test_deploy)."""
    places = {create2_address(salt_of(n), code) for n in (0, 1) for code in (b"\0", b"\1")}
    assert len(places) == 4
    assert made().creates[0].to == FACTORY and made().creates[0].data[:32] == made().salt


def test_a_probe_compares_the_first_word() -> None:
    """An empty answer, as from an address without code, satisfies none."""
    probe = Probe(what="x", to=SOMEBODY, data=b"", word=word(5))
    assert probe.holds(word(5) + b"more") and not probe.holds(word(6)) and not probe.holds(b"")
    anything = replace(probe, word=None)
    assert anything.holds(word(1)) and not anything.holds(word(0)) and not anything.holds(b"")


def test_code_is_compared_without_immutables() -> None:
    """A change of one byte elsewhere is found; a change in an immutable is for the getters."""
    market = artifacts.load("JobMarketplace")
    start, length = market.immutables[0]
    code = bytearray(market.deployed_bytecode)
    code[start : start + length] = b"\xff" * length
    assert same_code(market, bytes(code)) and difference(market, bytes(code)) == ""
    code[start - 1] ^= 1
    assert difference(market, bytes(code)) == f"differs from the artifact at byte {start - 1}"
    assert difference(market, b"") == "no code"
    assert "bytes of code" in difference(market, bytes(code[:-1]))


def test_every_contract_with_constructor_arguments_but_owners_has_immutables() -> None:
    """Otherwise the mask would be missing from the artifacts and every comparison on a chain would fail."""
    for step in made().creates:
        assert bool(artifacts.load(step.name).immutables) == bool(step.probes), step.name
