"""A real host's page of metrics, on a devnet."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path

import pytest

from fabstir.bootstrap.devnet import devnet
from fabstir.chain.account import HORIZON
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import DEV_KEYS
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places
from fabstir.ops.config import Config
from fabstir.protocol.signing import SigningKey
from tests.host.world import eventually


def page(url: str) -> dict[str, float]:
    """Each series with its value."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value)
        for name, value in (re.split(r" (?=\S+$)", line) for line in lines if not line.startswith("#"))
    }


@pytest.mark.real
@pytest.mark.scenario
async def test_a_host_counts_its_own_transactions_and_shows_its_money(tmp_path: Path) -> None:
    """Those with which it stakes and registers, with their gas, once their blocks are buried; what it could withdraw, by currency."""
    async with devnet(Config(), book=tmp_path / "addresses.json") as net:
        await net.fund(SigningKey(DEV_KEYS[1]).address, MINIMUM_STAKE)
        host = HostProcess("a", Places(tmp_path, net.url, net.info).host("a", DEV_KEYS[1]))
        await host.start()
        try:
            seen: dict[str, float] = {}

            async def counted() -> bool:
                await net.mine()
                seen.update(await asyncio.to_thread(page, host.url))
                return seen['fabstir_transactions_total{result="mined"}'] >= 1

            for _ in range(HORIZON):
                await net.mine()
            await eventually(counted)
        finally:
            await host.kill()
    assert seen["fabstir_gas_used_total"] > 21_000
    assert (
        seen['fabstir_withdrawable_base_units{token="usdc"}'],
        seen['fabstir_withdrawable_base_units{token="eth"}'],
    ) == (0, 0)
