"""`fabstir host stake` and its siblings on a devnet: what a host has to lose, put there, asked back and taken."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.chain.support import mine_until_done
from tests.cli.conftest import Fabstir, Ran

from fabstir.bootstrap.devnet import devnet
from fabstir.bootstrap.keys import read_key
from fabstir.bootstrap.parts import open_journal
from fabstir.bootstrap.staking import staking
from fabstir.chain.devnet import DevnetControl
from fabstir.chain.rpc import JsonRpc
from fabstir.ops import settings
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.chain import TxResult
from fabstir.protocol.signing import SigningKey

DELAY = 14 * 86_400


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with no keys and no configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def code_of(ran: Ran) -> str:
    assert ran.code == 1, ran.out
    code: str = ran.json()["error"]["code"]
    return code


@pytest.mark.parametrize("amount", ["-1", "1e-7", "lots", "NaN", "1" + "0" * 40])
def test_an_amount_that_is_none_is_refused(fabstir: Fabstir, amount: str) -> None:
    """Before a key or a chain is looked at."""
    for command in ("stake", "unstake"):
        ran = fabstir("host", command, "--json", "--", amount)
        assert code_of(ran) == "request_invalid"


def test_without_a_key_the_next_step_is_told(fabstir: Fabstir) -> None:
    """For every one of the commands."""
    for command in (["stake"], ["unstake", "1"], ["withdraw-stake"], ["stake-status"]):
        assert code_of(fabstir("host", *command, "--json")) == "key_missing"


@pytest.mark.real
async def test_a_stake_from_init_to_its_end(fabstir: Fabstir, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`host init` brings the minimum as play money and writes it into the settings; then staked, asked back, locked, taken."""

    async def told(*arguments: str, code: int = 0) -> dict[str, Any]:
        ran = await asyncio.to_thread(fabstir, "host", *arguments, "--json")
        assert ran.code == code, ran.out + ran.err
        return ran.json()

    async with devnet(settings.load(environ={})) as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        made = await told("init")
        assert made["funded"] is True
        written = tomllib.loads((home / "config" / "fabstir" / "config.toml").read_text())
        assert written["host"]["stake"] == 100_000_000
        await told("init")  # again: the play money is there already
        status = await told("stake-status", code=1)
        assert (status["holds"], status["staked"], status["enough"]) == (100_000_000, 0, False)

        assert (await told("stake"))["stake"]["staked"] == 100_000_000
        assert (await told("stake", "100"))["transaction"] is None
        assert (await told("stake", "100.5", code=1))["error"]["code"] == "funds_insufficient"
        assert (await told("stake-status"))["enough"] is True

        assert (await told("withdraw-stake", code=1))["error"]["code"] == "stake_not_requested"
        assert (await told("unstake", "100.5", code=1))["error"]["code"] == "stake_exceeded"
        asked = (await told("unstake", "40"))["stake"]
        assert (asked["asked_back"], asked["kept"], asked["enough"]) == (40_000_000, 60_000_000, False)
        assert (await told("withdraw-stake", code=1))["error"]["code"] == "stake_locked"
        await running.advance(DELAY)
        taken = await told("withdraw-stake")
        assert taken["withdrawn"] == taken["stake"]["holds"] == 40_000_000


@pytest.mark.real
async def test_while_the_host_runs_only_looking_is_allowed(fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch) -> None:
    """One account has one outbox: who sends beside the node could take its nonces."""
    async with devnet(settings.load(environ={})) as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        await asyncio.to_thread(fabstir, "host", "init")
        config = settings.load()
        journal = open_journal(config.host.data_dir, config.chain.chain_id)
        try:
            ran = await asyncio.to_thread(fabstir, "host", "stake", "--json")
            assert code_of(ran) == "journal_locked"
            assert "fabstir host stop" in ran.json()["error"]["next_step"]
            status = await asyncio.to_thread(fabstir, "host", "stake-status", "--json")
            assert status.json()["minimum"] == 100_000_000
        finally:
            await journal.close()


async def raised(config: Config) -> TxResult | None:
    """What the command does."""
    async with staking(config) as held:
        return await held.raise_to(None)


@pytest.mark.real
async def test_a_stake_that_was_under_way_is_not_staked_again(
    fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after sending, repeated before it is mined: what was sent is finished first, and nothing is left to do."""
    async with devnet(settings.load(environ={})) as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        await asyncio.to_thread(fabstir, "host", "init")
        await asyncio.to_thread(fabstir, "wallet", "fund", "--role", "host", "--usdc=100")
        config = settings.load()
        account = "0x" + SigningKey(read_key(config, "host")).address.hex()
        rpc = JsonRpc([running.url], SystemClock())
        control = DevnetControl(rpc)
        await control.hold_blocks()
        first = asyncio.create_task(raised(config))
        while await rpc.request("eth_getTransactionCount", account, "pending") != "0x2":  # allowance, stake
            assert not first.done()
            if await rpc.request("eth_getTransactionCount", account, "pending") == "0x1":
                await control.mine()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.create_task(raised(config))
        await mine_until_done(control, second)
        assert await second is None
        await control.automine()
        await rpc.close()
        found = (await asyncio.to_thread(fabstir, "host", "stake-status", "--json")).json()
        assert (found["staked"], found["holds"]) == (100_000_000, 100_000_000)


@pytest.mark.usefixtures("quick_scrypt")
def test_off_the_devnet_no_stake_is_written(fabstir: Fabstir, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where money is real, how much is staked is a person's decision."""
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", "8453")
    monkeypatch.setenv("FABSTIR_KEY_PASSWORD", "open-sesame")
    assert fabstir("host", "init", "--json").code == 0
    assert "stake" not in tomllib.loads((home / "config" / "fabstir" / "config.toml").read_text())["host"]
