"""`fabstir deploy`: nothing is sent while one item refuses; what is deployed is what was planned; what was interrupted goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.chain.public_chain import SAFE, TIMELOCK, PublicChain, pose_as, put_answer
from tests.chain.support import mine_until_done
from tests.cli.conftest import Fabstir

from fabstir.bootstrap.deploy import Order, Prepared, deploy
from fabstir.bootstrap.deploy import prepare as measure
from fabstir.bootstrap.doctor import examine_chain
from fabstir.bootstrap.parts import address_book
from fabstir.chain import addresses, deployment_record
from fabstir.chain.anvil import find_anvil
from fabstir.chain.checklist import MIN_DELAY
from fabstir.chain.deployer import is_done
from fabstir.chain.deployment import Call
from fabstir.chain.devnet import DEV_KEYS, Devnet, DevnetControl
from fabstir.chain.networks import network
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.errors import ChainFault, LocalFault
from fabstir.domain.ids import to_hex
from fabstir.ops import paths, settings
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.protocol.signing import SigningKey

KEY = DEV_KEYS[0]
DEPLOYER = SigningKey(KEY).address
BASE = network("base")
SAFE_ORDER = Order(network=BASE, owner=TIMELOCK, treasury=SAFE, without_circuit=True)
DEVNET_ORDER = Order(network=network("devnet"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with no keys and no address book. The programs stay where they are."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def quiet(_: str) -> None:
    """Nobody listens."""


async def prepare(config: Config, order: Order, key: bytes) -> Prepared:
    """With current artifacts, whatever somebody is changing in contracts/."""
    return await measure(config, order, key, stale=str)


def config_for(url: str, chain_id: int) -> Config:
    return settings.load(environ={"FABSTIR_CHAIN_RPC_URLS": url, "FABSTIR_CHAIN_CHAIN_ID": str(chain_id)})


class Running:
    """A chain, and the settings of somebody who uses it."""

    def __init__(self, url: str, chain_id: int) -> None:
        self.url = url
        self.config = config_for(url, chain_id)
        self.rpc = JsonRpc([url], SystemClock())

    async def sent(self) -> int:
        """Transactions of the deployer so far."""
        return quantity(await self.rpc.request("eth_getTransactionCount", to_hex(DEPLOYER), "latest"))

    async def gas_used(self) -> int:
        """In all blocks."""
        head = quantity(await self.rpc.request("eth_blockNumber"))
        blocks = [await self.rpc.request("eth_getBlockByNumber", hex(n), False) for n in range(head + 1)]
        return sum(quantity(block["gasUsed"]) for block in blocks)

    async def done(self, prepared: Prepared) -> list[str]:
        """Names of the steps that are there."""
        return [step.name for step in prepared.plan.steps if await is_done(self.rpc, step)]


@pytest.fixture
async def base() -> AsyncIterator[Running]:
    """A chain that looks like Base."""
    async with PublicChain(await find_anvil(paths.cache_dir()), BASE.chain_id) as net:
        running = Running(net.url, BASE.chain_id)
        await pose_as(running.rpc, BASE)
        yield running
        await running.rpc.close()


@pytest.fixture
async def local() -> AsyncIterator[Running]:
    """A devnet without our contracts."""
    async with Devnet(await find_anvil(paths.cache_dir())) as net:
        running = Running(net.url, 31337)
        yield running
        await running.rpc.close()


def names(prepared: Prepared) -> list[str]:
    return [item.name for item in prepared.refused]


@pytest.mark.real
async def test_a_market_is_deployed_on_a_public_network(base: Running) -> None:
    """Every contract is the artifact's, the owner is offered what it owns, the book has the network's entry; the estimate held, and
    a second market is refused.
    """
    prepared = await prepare(base.config, SAFE_ORDER, KEY)
    assert names(prepared) == []
    record = await deploy(base.config, prepared, KEY, quiet)
    assert record.finished and await base.done(prepared) == [step.name for step in prepared.plan.steps]
    assert await base.sent() == len(prepared.plan.steps)
    used, estimated = await base.gas_used(), sum(step.gas for step in prepared.plan.steps)
    assert used <= estimated <= 1.5 * used, (used, estimated)
    assert addresses.load(address_book(), 8453) == prepared.plan.info
    assert '"network": "base"' in address_book().read_text()
    again = await prepare(base.config, SAFE_ORDER, KEY)
    assert names(again) == ["earlier deployment"]
    with pytest.raises(LocalFault, match="deployment_refused"):
        await deploy(base.config, again, KEY, quiet)


@pytest.mark.real
async def test_the_doctor_finds_a_fresh_public_market_well(base: Running) -> None:
    """Code, links, token; that the timelock has not accepted yet is a warning."""
    await deploy(base.config, await prepare(base.config, SAFE_ORDER, KEY), KEY, quiet)
    report = await examine_chain(base.config, "renter", DEPLOYER)
    verdicts = {check.name: check.verdict for part in report.values() for check in part}
    assert {name for name, verdict in verdicts.items() if verdict != "ok"} == {
        f"{contract} owner" for contract in ("ModelRegistry", "HostStake", "ProofSystem")
    }
    assert set(verdicts.values()) == {"ok", "warn"}


@pytest.mark.real
async def test_what_is_unsafe_is_refused_and_nothing_is_sent(base: Running) -> None:
    """Each wish by the name of its item, measured on the chain."""
    unsafe: dict[str, Order] = {
        "circuit": replace(SAFE_ORDER, without_circuit=False),
        "owner": replace(SAFE_ORDER, owner=SAFE),
        "treasury": replace(SAFE_ORDER, treasury=DEPLOYER),
        "chain": replace(SAFE_ORDER, network=network("base-sepolia")),
    }
    for item, order in unsafe.items():
        prepared = await prepare(base.config, order, KEY)
        assert item in names(prepared)
        with pytest.raises(LocalFault, match="deployment_refused"):
            await deploy(base.config, prepared, KEY, quiet)
    await put_answer(base.rpc, TIMELOCK, MIN_DELAY - 1)
    assert names(await prepare(base.config, SAFE_ORDER, KEY)) == ["owner"]
    assert await base.sent() == 0
    assert not address_book().exists()


@pytest.mark.real
async def test_a_poor_deployer_is_refused_with_what_it_needs(base: Running) -> None:
    """In ETH, with gas, base fee and the L1 fee that the chain's oracle tells, one for each transaction."""
    await base.rpc.request("anvil_setBalance", to_hex(DEPLOYER), hex(1))
    prepared = await prepare(base.config, SAFE_ORDER, KEY)
    assert names(prepared) == ["deployer balance"]
    assert "for 16 transactions" in prepared.refused[0].why and "L1 fee 16,000,000 wei" in prepared.refused[0].why


class Killed(Exception):
    """Stands for a process that ends."""


def killed(_: str) -> None:
    raise Killed


async def deploy_with_deaths(on: Running, order: Order) -> tuple[Prepared, int]:
    """Die after each step that was sent; the last plan, and how often."""
    markets, runs = set(), 0
    while True:
        prepared = await prepare(on.config, order, KEY)
        markets.add(prepared.plan.info.market)
        assert names(prepared) == []
        if not prepared.left:
            break
        assert await on.sent() == runs
        with pytest.raises(Killed):
            await deploy(on.config, prepared, KEY, killed)
        runs += 1
        assert not address_book().exists()
    await deploy(on.config, prepared, KEY, killed)
    assert len(markets) == 1 and await on.sent() == runs
    assert addresses.load(address_book(), order.network.chain_id) == prepared.plan.info
    return prepared, runs


@pytest.mark.real
async def test_an_interrupted_deployment_goes_on(local: Running) -> None:
    """Killed after each step, it is taken up with the same addresses, and no transaction is sent twice."""
    prepared, runs = await deploy_with_deaths(local, replace(DEVNET_ORDER, without_circuit=True))
    assert runs == len([step for step in prepared.plan.steps if not _is_handover(step)])


@pytest.mark.real
async def test_an_interrupted_deployment_goes_on_where_money_is_real(base: Running) -> None:
    """The same with the outbox on disk, and the contracts offered to their owner."""
    prepared, runs = await deploy_with_deaths(base, SAFE_ORDER)
    assert runs == len(prepared.plan.steps)


@pytest.mark.real
async def test_a_transaction_that_was_under_way_is_not_sent_again(base: Running) -> None:
    """Killed between sending and mining: the next run goes on, although the deployer has one that waits, and sends nothing twice."""
    control = DevnetControl(base.rpc)
    await control.hold_blocks()
    prepared = await prepare(base.config, SAFE_ORDER, KEY)
    first = asyncio.create_task(deploy(base.config, prepared, KEY, quiet))
    while await base.rpc.request("eth_getTransactionCount", to_hex(DEPLOYER), "pending") == "0x0":
        assert not first.done()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    again = await prepare(base.config, SAFE_ORDER, KEY)
    assert names(again) == [] and len(again.left) == len(prepared.plan.steps)
    second = asyncio.create_task(deploy(base.config, again, KEY, quiet))
    await mine_until_done(control, second)
    assert (await second).finished
    assert await base.sent() == len(prepared.plan.steps)


def _is_handover(step: Any) -> bool:
    return isinstance(step, Call) and step.name.endswith("transferOwnership")


@pytest.mark.real
async def test_an_interrupted_deployment_is_not_finished_otherwise(base: Running) -> None:
    """Another treasury in the middle would be another market with half of the first one's contracts."""
    prepared = await prepare(base.config, SAFE_ORDER, KEY)
    file = deployment_record.file_of(address_book(), "base")
    deployment_record.save(file, deployment_record.record_of("base", prepared.plan))
    other = await prepare(base.config, replace(SAFE_ORDER, treasury=TIMELOCK), KEY)
    assert names(other) == ["earlier deployment"]
    assert "treasury" in other.refused[0].measured


@pytest.mark.real
async def test_on_the_devnet_the_command_needs_nothing(
    fabstir: Fabstir, local: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist first, then the market; again makes another one."""
    monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", local.url)
    looked = await asyncio.to_thread(fabstir, "deploy", "--check", "--json")
    assert looked.code == 0 and looked.json()["refused"] is False
    assert await local.sent() == 0
    first = (await asyncio.to_thread(fabstir, "deploy", "--json")).json()
    second = (await asyncio.to_thread(fabstir, "deploy", "--json")).json()
    assert first["addresses"]["market"] != second["addresses"]["market"]
    contract = second["verification"]["contracts"]["HostStake"]
    assert contract["address"] == second["addresses"]["stakes"]
    assert contract["source"] == "src/HostStake.sol:HostStake" and len(contract["arguments"]) == 2 + 6 * 64


@pytest.mark.real
async def test_the_checklist_of_another_network_is_printed_and_fails(
    fabstir: Fabstir, local: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1; the wrong chain, the missing timelock and the forgeable circuit are all told at once."""
    monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", local.url)
    monkeypatch.setenv("FABSTIR_KEY_PASSWORD", "open-sesame")
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", "8453")
    monkeypatch.setenv("FABSTIR_HOST_KEY_FILE", str(paths.config_dir() / "deployer.key"))
    fabstir("wallet", "new", "--role", "host")
    ran = await asyncio.to_thread(fabstir, "deploy", "--network", "base", "--check")
    assert ran.code == 1
    for item in (
        "chain: chain 31337",
        "owner: not given",
        "treasury: not given",
        "circuit: development",
        "USDC domain",
    ):
        assert f"fail     {item}" in ran.out


@pytest.mark.real
async def test_where_money_is_real_the_command_asks_first(
    fabstir: Fabstir, base: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal and without --yes nothing is sent; with it the market is there, and its owner is told what to accept."""
    monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", base.url)
    monkeypatch.setenv("FABSTIR_KEY_PASSWORD", "open-sesame")
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", "8453")
    monkeypatch.setenv("FABSTIR_HOST_KEY_FILE", str(paths.config_dir() / "deployer.key"))
    account = fabstir("wallet", "new", "--role", "host", "--json").json()["address"]
    await base.rpc.request("anvil_setBalance", account, hex(10**18))
    wanted = (
        "deploy",
        "--network",
        "base",
        "--owner",
        to_hex(TIMELOCK),
        "--treasury",
        to_hex(SAFE),
        "--without-circuit",
    )
    unasked = await asyncio.to_thread(fabstir, *wanted, "--json")
    assert (unasked.code, unasked.json()["error"]["code"]) == (1, "request_invalid")
    assert await base.rpc.request("eth_getTransactionCount", account, "latest") == "0x0"
    done = await asyncio.to_thread(fabstir, *wanted, "--yes", "--json")
    assert done.code == 0, done.out + done.err
    told = done.json()
    assert told["owner"] == to_hex(TIMELOCK)
    assert told["must_accept_ownership"] == [told["addresses"][name] for name in ("models", "stakes", "proofs")]


def test_without_a_key_the_next_step_is_told(fabstir: Fabstir) -> None:
    """Before a chain is asked."""
    ran = fabstir("deploy", "--network", "base", "--json")
    assert (ran.code, ran.json()["error"]["code"]) == (1, "key_missing")


def test_an_address_that_is_none_is_refused(fabstir: Fabstir) -> None:
    """With the option it came from."""
    ran = fabstir("deploy", "--owner", "0x12", "--json")
    assert ran.json()["error"]["code"] == "request_invalid"
    assert "--owner" in ran.json()["error"]["detail"]


async def test_an_endpoint_that_is_down_refuses() -> None:
    """`chain_unreachable`; nothing is written."""
    with pytest.raises(ChainFault, match="chain_unreachable"):
        await prepare(config_for("http://127.0.0.1:1", 8453), SAFE_ORDER, KEY)
    assert not deployment_record.file_of(address_book(), "base").exists()
