"""Each hardening of libp2p stands a siege that is lost without it; after a change of the pinned version this says what still holds."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from fabstir.p2p import network

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
SIEGES = {
    "six_bytes": "guard_handlers",
    "random_bytes": "guard_handlers",
    "idle_streams": "guard_handlers",
    "many_lives": "release_slots",
    "cut_writes": "finish_writes",
    "full_buffers": "bound_unread",
    "one_address": "bound_addresses",
    "plaintext": "make_host",
    "foreign_values": "make_dht",
    "same_port": "own_port",
    "no_pulse": "feel_pulse",
}


async def stands(siege: str, without: str = "") -> bool:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.p2p.siege", siege, without),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait() == 0


@pytest.mark.parametrize("siege", SIEGES)
async def test_sieges(siege: str) -> None:
    """The host stands it; without the hardening, or with the library's defaults, it does not."""
    assert await stands(siege)
    assert not await stands(siege, SIEGES[siege])


async def test_our_dht_has_its_own_name() -> None:
    """Without our change of it the library would join the public DHT."""
    assert not await stands("foreign_values", "separate_dht")


def test_the_pinned_version() -> None:
    """The hardenings are of one version of libp2p, and that one is installed and required."""
    network._require_pinned()
    assert f'"libp2p=={network.VERSION}"' in (ROOT / "pyproject.toml").read_text()
