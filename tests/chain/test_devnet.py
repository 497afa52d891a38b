"""The devnet process: it starts, keeps its state, ends with us, and says why it does not start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.chain.support import coins, rpc_to

from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS, Devnet, DevnetControl, dev_key
from fabstir.chain.rpc import quantity
from fabstir.domain.errors import ChainFault, LocalFault
from fabstir.domain.ids import Address, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.protocol.signing import SigningKey

SOMEBODY = Address(bytes([7]) * 20)

PARENT = """
import asyncio, sys
from pathlib import Path
from fabstir.chain.devnet import Devnet

async def main():
    async with Devnet(Path(sys.argv[1])) as net:
        print(net.pid, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.real
async def test_it_makes_blocks_by_itself_and_funds_the_development_keys(anvil: Path) -> None:
    """Chain 31337 on a free port, coins for all ten keys, safe and finalized close behind the head."""
    async with Devnet(anvil) as net:
        rpc = rpc_to(net.url)
        assert quantity(await rpc.request("eth_chainId")) == CHAIN_ID
        for key in DEV_KEYS:
            assert await coins(rpc, SigningKey(key).address) == 10_000 * 10**18
        await DevnetControl(rpc).mine(5)
        tags = {
            tag: (await rpc.request("eth_getBlockByNumber", tag, False))["number"] for tag in ("latest", "finalized")
        }
        assert 1 <= quantity(tags["latest"]) - quantity(tags["finalized"]) <= 3
        before = quantity(await rpc.request("eth_blockNumber"))
        while quantity(await rpc.request("eth_blockNumber")) == before:
            pass  # nobody sends anything: the interval makes the block
        await rpc.close()


@pytest.mark.real
async def test_a_state_file_is_taken_up_again(anvil: Path, tmp_path: Path) -> None:
    """Balances and block hashes of a stopped devnet are those of the next one."""
    state = tmp_path / "state.json"
    hashes = []
    for amount in (1, 0):
        async with Devnet(anvil, state=state) as net:
            rpc = rpc_to(net.url)
            if amount:
                await DevnetControl(rpc).set_balance(SOMEBODY, BaseUnits(amount))
                await DevnetControl(rpc).mine(3)
            assert await coins(rpc, SOMEBODY) == 1
            hashes.append([(await rpc.request("eth_getBlockByNumber", hex(n), False))["hash"] for n in (0, 2)])
            await rpc.close()
    assert hashes[0] == hashes[1]


@pytest.mark.real
def test_it_dies_with_its_parent(anvil: Path) -> None:
    """kill -9 of the program that started it leaves no chain behind."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(anvil)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    chain = psutil.Process(int(parent.stdout.readline()))
    assert chain.is_running()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    chain.wait(timeout=30)
    assert not chain.is_running()


@pytest.mark.real
async def test_a_port_in_use_is_named(anvil: Path) -> None:
    """`devnet_failed` with anvil's own words, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        net = Devnet(anvil, port=taken.getsockname()[1])
        with pytest.raises(LocalFault) as refused:
            await net.start()
    assert refused.value.code == "devnet_failed"
    assert "in use" in refused.value.detail
    assert not psutil.pid_exists(net.pid)


async def test_asking_before_the_start_is_named() -> None:
    """`devnet_missing`."""
    net = Devnet(Path("/nowhere"))
    with pytest.raises(LocalFault, match="devnet_missing"):
        await net.wait()
    await net.stop()


def test_development_keys_are_for_the_devnet_only() -> None:
    """Everybody knows them: on any other chain they would lose money."""
    assert dev_key(1, CHAIN_ID) == DEV_KEYS[1]
    with pytest.raises(ChainFault, match="chain_mismatch"):
        dev_key(1, 8453)
    assert to_hex(SigningKey(DEV_KEYS[0]).address) == "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"
