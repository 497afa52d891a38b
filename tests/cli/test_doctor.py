"""`fabstir doctor chain` as a shell sees it: a table or one object, and an exit code that tells good from bad."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.cli.conftest import Fabstir

from fabstir.bootstrap.devnet import devnet
from fabstir.ops import settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person with no keys and no address book."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_without_an_endpoint_the_rest_is_skipped(fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch) -> None:
    """One failed check, and what could not be looked at is said."""
    monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", "http://127.0.0.1:1")
    ran = fabstir("doctor", "chain", "--json")
    assert ran.code == 1
    told = ran.json()
    assert told["ok"] is False
    assert [check["verdict"] for check in told["endpoints"]] == ["fail"]
    assert told["contracts"][0]["verdict"] == told["account"][0]["verdict"] == "skipped"


@pytest.mark.real
async def test_on_a_devnet_without_a_key_all_is_well(fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account's part is skipped and says why; a host that has nothing yet fails by name."""
    async with devnet(settings.load(environ={})) as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        ran = await asyncio.to_thread(fabstir, "doctor", "chain")
        assert ran.code == 0, ran.out
        assert "skipped  account: no key at" in ran.out
        bare = await asyncio.to_thread(fabstir, "doctor", "chain", "--account", "0x" + "77" * 20, "--json")
        assert bare.code == 1
        failing = {check["name"] for check in bare.json()["account"] if check["verdict"] == "fail"}
        assert failing == {"gas", "stake", "registered"}
        renter = await asyncio.to_thread(fabstir, "doctor", "chain", "--role", "renter", "--json")
        assert "stake" not in {check["name"] for check in renter.json()["account"]}


@pytest.mark.real
async def test_without_an_address_book_the_contracts_fail(
    fabstir: Fabstir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The endpoint is looked at all the same, and the next step is told."""
    async with devnet(settings.load(environ={}), book=tmp_path / "elsewhere.json") as running:
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", running.url)
        told = (await asyncio.to_thread(fabstir, "doctor", "chain", "--json")).json()
        assert {check["verdict"] for check in told["endpoints"]} == {"ok"}
        assert told["contracts"][0]["verdict"] == "fail" and "devnet_missing" in told["contracts"][0]["measured"]
