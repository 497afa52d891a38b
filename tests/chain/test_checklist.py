"""A deployment's checklist: each unsafe wish is refused by name, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from fabstir.chain.checklist import MIN_DELAY, Wishes, checklist, cost
from fabstir.chain.checks import failed
from fabstir.chain.deployment import FACTORY_CODE, Parameters, plan, salt_of
from fabstir.chain.deployment_record import Record, differences, load, record_of, save
from fabstir.chain.networks import NETWORKS, Network, network, network_of
from fabstir.chain.survey import Survey, TokenFacts, domain_separator
from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Address, Hash32

BASE, DEVNET = network("base"), network("devnet")
DEPLOYER, TIMELOCK, SAFE = (Address(bytes([n]) * 20) for n in (1, 2, 3))


def wishes(**changes: Any) -> Wishes:
    fields: dict[str, Any] = {
        "deployer": DEPLOYER,
        "owner": TIMELOCK,
        "treasury": SAFE,
        "token": BASE.usdc,
        "without_circuit": True,
        "stale": "",
    }
    return Wishes(**(fields | changes))


def circle(chain: Network = BASE, **changes: Any) -> TokenFacts:
    """What Circle's token of that network says."""
    assert chain.usdc is not None
    separator = domain_separator(chain.usdc_name, "2", chain.chain_id, chain.usdc)
    fields: dict[str, Any] = {
        "has_code": True,
        "name": chain.usdc_name,
        "symbol": "USDC",
        "decimals": 6,
        "version": "2",
        "domain_separator": separator,
    }
    return TokenFacts(**(fields | changes))


def found(**changes: Any) -> Survey:
    fields: dict[str, Any] = {
        "chain_ids": frozenset({8453}),
        "factory_code": FACTORY_CODE,
        "owner_code": 100,
        "owner_delay": MIN_DELAY,
        "token": circle(),
        "waiting": 0,
        "balance": 10**18,
        "base_fee": 5_000_000,
        "gas": 17_000_000,
        "l1_fee": 10**13,
        "left": ("HostStake",),
    }
    return Survey(**(fields | changes))


def record(**changes: Any) -> Record:
    parameters = Parameters(
        chain_id=8453, deployer=DEPLOYER, owner=TIMELOCK, treasury=SAFE, token=BASE.usdc, circuit=None
    )
    return replace(record_of("base", plan(parameters, salt_of(0))), **changes)


def refused(
    wish: Wishes | None = None, survey: Survey | None = None, begun: Record | None = None, on: Network = BASE
) -> list[str]:
    """Names of the items that refuse."""
    return [item.name for item in failed(checklist(on, wish or wishes(), survey or found(), begun, record()))]


def test_a_safe_deployment_is_not_refused() -> None:
    """Timelock, foreign treasury, Circle's token, no development circuit."""
    assert refused() == []


@pytest.mark.parametrize(
    ("wish", "item"),
    [
        ({"without_circuit": False}, "circuit"),
        ({"owner": None}, "owner"),
        ({"treasury": None}, "treasury"),
        ({"treasury": DEPLOYER}, "treasury"),
        ({"treasury": Address(bytes(20))}, "treasury"),
        ({"token": SAFE}, "USDC address"),
        ({"stale": "HostStake: the sources have changed"}, "artifacts"),
    ],
    ids=repr,
)
def test_an_unsafe_wish_is_refused(wish: dict[str, Any], item: str) -> None:
    """By its own name, with a next step."""
    named = refused(wishes(**wish))
    assert item in named and set(named) <= {item, "USDC domain"}


@pytest.mark.parametrize(
    ("fact", "item"),
    [
        ({"chain_ids": frozenset({1})}, "chain"),
        ({"chain_ids": frozenset({8453, 84532})}, "chain"),
        ({"owner_code": 0, "owner_delay": None}, "owner"),
        ({"owner_delay": None}, "owner"),
        ({"owner_delay": MIN_DELAY - 1}, "owner"),
        ({"token": TokenFacts(has_code=False)}, "USDC domain"),
        ({"token": circle(name="USDC")}, "USDC domain"),
        ({"token": circle(version="1")}, "USDC domain"),
        ({"token": circle(decimals=18)}, "USDC domain"),
        ({"token": circle(symbol="USDbC")}, "USDC domain"),
        ({"token": circle(domain_separator=bytes(32))}, "USDC domain"),
        ({"factory_code": b""}, "factory"),
        ({"waiting": 1}, "waiting transactions"),
        ({"balance": cost(found()) - 1}, "deployer balance"),
    ],
    ids=repr,
)
def test_an_unsafe_chain_is_refused(fact: dict[str, Any], item: str) -> None:
    """By its own name alone."""
    assert refused(survey=found(**fact)) == [item]


def test_the_exact_cost_is_enough() -> None:
    """Gas at the base fee and the L1 fee, half again."""
    assert cost(found()) == (17_000_000 * 5_000_000 + 10**13) * 3 // 2
    assert refused(survey=found(balance=cost(found()))) == []


def test_every_refusal_says_what_to_do() -> None:
    """Why, and the next step."""
    worst = found(
        chain_ids=frozenset({1}), owner_code=0, token=TokenFacts(has_code=False), factory_code=b"", waiting=2, balance=0
    )
    wish = wishes(without_circuit=False, treasury=DEPLOYER, token=SAFE, stale="x")
    items = failed(checklist(BASE, wish, worst, record(finished=True), record()))
    assert len(items) == 11
    assert all(item.why and item.next_step and item.measured for item in items)


def test_on_the_devnet_owner_and_treasury_are_free() -> None:
    """And the development circuit is at home there."""
    wish = wishes(owner=None, treasury=None, token=None, without_circuit=False)
    survey = found(chain_ids=frozenset({31337}), owner_code=0, owner_delay=None, token=None)
    assert refused(wish, survey, on=DEVNET) == []
    free = wishes(owner=DEPLOYER, treasury=DEPLOYER, token=None, stale="HostStake: the sources have changed")
    assert refused(free, survey, on=DEVNET) == []
    told = {item.name: item.verdict for item in checklist(DEVNET, free, survey, None, record())}
    assert told["artifacts"] == "warn", "told all the same"


def test_an_interrupted_deployment_goes_on_as_it_began() -> None:
    """With the same parameters and artifacts; its own waiting transactions are no obstacle."""
    assert refused(begun=record(), survey=found(waiting=3)) == []
    assert refused(begun=record(treasury="0x" + "05" * 20)) == ["earlier deployment"]
    other = {name: replace(one, source_hash="0") for name, one in record().contracts.items()}
    assert differences(record(contracts=other), record()) == ["contracts"]
    assert refused(begun=record(contracts=other)) == ["earlier deployment"]


def test_a_finished_deployment_is_not_done_again() -> None:
    """Two markets on one network split it; on a devnet that is what a restart is for."""
    assert refused(begun=record(finished=True)) == ["earlier deployment"]
    survey = found(chain_ids=frozenset({31337}), token=None)
    assert refused(wishes(token=None), survey, record(finished=True), on=DEVNET) == []


def test_networks_are_told_apart() -> None:
    """Names and ids are unique; an unknown name is refused, an unknown id is nobody's."""
    assert len({n.name for n in NETWORKS}) == len({n.chain_id for n in NETWORKS}) == 3
    assert network_of(84532) == network("base-sepolia") and network_of(1) is None
    with pytest.raises(LocalFault, match="config_invalid"):
        network("mainnet")
    assert [n.name for n in NETWORKS if n.play_money] == ["devnet"]
    assert all((n.usdc is None) == n.play_money for n in NETWORKS)


def test_a_record_is_read_as_it_was_written(tmp_path: Any) -> None:
    """What cannot be read is named, never taken for no record: that would deploy twice."""
    file = tmp_path / "deployment-base.json"
    assert load(file) is None
    save(file, record())
    assert load(file) == record()
    file.write_text(file.read_text()[:-20])
    with pytest.raises(LocalFault, match="config_invalid"):
        load(file)


def test_a_circuit_is_in_the_record() -> None:
    """So that a deployment with proofs does not go on without."""
    with_circuit = Parameters(
        chain_id=8453,
        deployer=DEPLOYER,
        owner=TIMELOCK,
        treasury=SAFE,
        token=BASE.usdc,
        circuit=Hash32(bytes(31) + b"\1"),
    )
    assert "circuit" in differences(record_of("base", plan(with_circuit, salt_of(0))), record())
