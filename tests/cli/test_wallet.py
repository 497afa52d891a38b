"""`fabstir wallet`: keys are made once and never shown, balances are the chain's, and play money exists on the devnet only."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from tests.cli.conftest import Fabstir, Ran

from fabstir.bootstrap import keys, parts
from fabstir.bootstrap.devnet import devnet
from fabstir.chain import addresses
from fabstir.chain.keys import load_key
from fabstir.domain.ids import Address
from fabstir.ops import settings
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.signing import SigningKey


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with no keys yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize("role", ["renter", "host"])
def test_a_new_key_is_in_the_role_s_file_and_nobody_else_may_read_it(fabstir: Fabstir, home: Path, role: str) -> None:
    """Mode 0600; what is printed is the address of exactly this key."""
    made = fabstir("wallet", "new", "--role", role, "--json").json()
    path = home / "config" / "fabstir" / f"{role}.key"
    assert made["key_file"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made["address"] == "0x" + SigningKey(load_key(path, chain_id=31337)).address.hex()
    assert fabstir("wallet", "show", "--role", role, "--offline", "--json").json()["address"] == made["address"]


def test_no_command_prints_the_key(fabstir: Fabstir, home: Path) -> None:
    """In no form, in no stream."""
    told = [
        fabstir("wallet", "new"),
        fabstir("wallet", "show", "--offline"),
        fabstir("wallet", "show", "--offline", "--json"),
    ]
    secret = (home / "config" / "fabstir" / "renter.key").read_text().strip().removeprefix("0x")
    assert all(secret not in ran.out + ran.err for ran in told)


def test_a_key_is_never_replaced(fabstir: Fabstir, home: Path) -> None:
    """The money is with the first one."""
    fabstir("wallet", "new")
    before = (home / "config" / "fabstir" / "renter.key").read_text()
    ran = fabstir("wallet", "new")
    assert ran.code == 1
    assert "exists and is not replaced" in ran.err
    assert (home / "config" / "fabstir" / "renter.key").read_text() == before


@pytest.mark.usefixtures("quick_scrypt")
def test_off_the_devnet_a_key_is_encrypted(fabstir: Fabstir, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the password of the environment; the wrong one does not open it."""
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", "8453")
    monkeypatch.setenv(keys.PASSWORD_VARIABLE, "open-sesame")
    made = fabstir("wallet", "new", "--json").json()
    assert (home / "config" / "fabstir" / "renter.key").read_text().startswith("{")
    assert fabstir("wallet", "show", "--offline", "--json").json()["address"] == made["address"]
    monkeypatch.setenv(keys.PASSWORD_VARIABLE, "something else")
    assert fabstir("wallet", "show", "--offline", "--json").json()["error"]["code"] == "key_invalid"


def test_without_password_and_terminal_the_next_step_is_told(fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service must not wait for an answer that never comes."""
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", "8453")
    ran = fabstir("wallet", "new")
    assert ran.code == 1
    assert f"Set ${keys.PASSWORD_VARIABLE}." in ran.err


def test_what_is_missing_is_told(fabstir: Fabstir) -> None:
    """First the key, then the devnet."""
    assert fabstir("wallet", "show", "--json").json()["error"]["code"] == "key_missing"
    fabstir("wallet", "new")
    assert fabstir("wallet", "show", "--json").json()["error"]["code"] == "devnet_missing"


@pytest.mark.parametrize("amount", ["-1", "1e-7", "NaN", "Infinity", "lots", ""])
def test_an_amount_that_is_none_is_refused(fabstir: Fabstir, amount: str) -> None:
    """Before a key or a chain is looked at."""
    assert fabstir("wallet", "fund", f"--usdc={amount}", "--json").json()["error"]["code"] == "request_invalid"


@pytest.mark.real
async def test_on_the_devnet_an_account_is_funded_and_shows_what_it_holds(
    fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are the chain's, to the last unit."""
    async with devnet(settings.load(environ={})) as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        fabstir("wallet", "new")
        empty = await asyncio.to_thread(fabstir, "wallet", "show", "--json")
        assert (
            empty.json() | {"usdc": "0", "wei": "0", "withdrawable_usdc": "0", "withdrawable_wei": "0"} == empty.json()
        )
        funded = await asyncio.to_thread(fabstir, "wallet", "fund", "--usdc=2.5", "--json")
        assert funded.json()["usdc"] == "2500000"
        assert int(funded.json()["wei"]) > 0
        shown = await asyncio.to_thread(fabstir, "wallet", "show")
        assert "2.500000 USDC" in shown.out


@pytest.mark.parametrize(
    "options",
    [(), ("--budget=0",), ("--budget=5", "--revoke"), ("--budget=5", "--days=0"), ("--budget=five",)],
    ids=["neither", "nothing", "both", "no time", "no amount"],
)
def test_a_permission_must_say_how_much_or_be_taken_back(fabstir: Fabstir, options: tuple[str, ...]) -> None:
    """Before a key or a chain is looked at."""
    ran = fabstir("wallet", "delegate", "0x" + "12" * 20, *options, "--json")
    assert ran.json()["error"]["code"] == "request_invalid"


@pytest.mark.real
async def test_a_delegate_is_named_seen_and_revoked(fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of `wallet delegates` are the contract's."""
    who = "0x" + "12" * 20

    async def wallet(*arguments: str) -> Ran:
        return await asyncio.to_thread(fabstir, "wallet", *arguments)

    async with devnet(settings.load(environ={})) as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        fabstir("wallet", "new")
        await wallet("fund", "--usdc=10")
        assert (await wallet("delegates", "--json")).json() == {"delegates": []}
        named = (await wallet("delegate", who, "--budget=5", "--days=30", "--json")).json()
        [row] = (await wallet("delegates", "--json")).json()["delegates"]
        assert (row["delegate"], row["left"], row["until"], row["live"]) == (who, "5000000", named["until"], True)
        assert "5.000000 USDC left, until" in (await wallet("delegates")).out
        assert "may spend nothing any more" in (await wallet("delegate", who, "--revoke")).out
        [row] = (await wallet("delegates", "--json")).json()["delegates"]
        assert (row["left"], row["live"]) == ("0", False)
        assert f"{who}  revoked" in (await wallet("delegates")).out


@pytest.mark.usefixtures("quick_scrypt")
def test_play_money_is_refused_for_another_chain(fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where money is real, the development key signs nothing; no endpoint is asked before that is known."""
    monkeypatch.setenv("FABSTIR_CHAIN_CHAIN_ID", "8453")
    monkeypatch.setenv(keys.PASSWORD_VARIABLE, "open-sesame")
    fabstir("wallet", "new")
    somewhere = Address(bytes(19) + b"\1")
    names = ("market", "registry", "models", "proofs", "usdc", "stakes", "board", "delegation", "epochs")
    contracts = dict.fromkeys(names, somewhere)
    addresses.save(parts.address_book(), ChainInfo(chain_id=8453, **contracts))
    assert fabstir("wallet", "fund", "--json").json()["error"]["code"] == "chain_mismatch"
