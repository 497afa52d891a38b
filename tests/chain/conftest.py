"""One anvil for all tests of the chain shell; each test gets the chain as it was after deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.chain.playing import World
from tests.chain.support import QUICK, RENTER, Chain, Make, mine_until, rpc_to, set_up

from fabstir.chain.anvil import find_anvil
from fabstir.chain.devnet import DEV_KEYS, Devnet, DevnetControl
from fabstir.chain.market import MarketClient
from fabstir.chain.outbox import Outbox, OutboxSettings
from fabstir.chain.rpc import JsonRpc
from fabstir.ops import paths
from fabstir.ops.clock import SystemClock
from fabstir.protocol.signing import SigningKey
from fabstir.testing.journal import MemoryJournal


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def anvil() -> Path:
    """The program, fetched once per machine."""
    return await find_anvil(paths.cache_dir())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _deployed(anvil: Path) -> AsyncIterator[Chain]:
    async with Devnet(anvil) as net:
        yield await set_up(net.url)


@pytest.fixture
async def chain(_deployed: Chain) -> AsyncIterator[Chain]:
    """The deployed contracts; what a test does to the chain is undone."""
    rpc = rpc_to(_deployed.url)
    control = DevnetControl(rpc)
    before = await control.snapshot()
    yield _deployed
    await rpc.request(
        "anvil_dropAllTransactions"
    )  # the pool outlives a revert, and automine would take from it afterwards
    await control.automine()
    await control.revert(before)
    await rpc.close()


@pytest.fixture
async def rpc(chain: Chain) -> AsyncIterator[JsonRpc]:
    """Straight to the node."""
    opened = rpc_to(chain.url)
    yield opened
    await opened.close()


@pytest.fixture
def control(rpc: JsonRpc) -> DevnetControl:
    """What only a development chain can do."""
    return DevnetControl(rpc)


@pytest.fixture
def clock() -> SystemClock:
    """Real time: the chain has its own."""
    return SystemClock()


@pytest.fixture
async def real_world(chain: Chain, rpc: JsonRpc, control: DevnetControl) -> AsyncIterator[World]:
    """The same four accounts on anvil; blocks come only when asked for, as in memory."""
    clients = [
        await MarketClient.connect([chain.url], DEV_KEYS[index], chain.info, MemoryJournal(), SystemClock())
        for index in (1, 2, 0, 3)
    ]
    await control.automine()  # ends the block every second

    async def mine_to(block: int) -> None:
        await mine_until(control, rpc, block)

    renter, host, treasury, other = clients

    yield World(renter, host, treasury, other, chain.model, mine_to, control.advance)
    for client in clients:
        await client.close()


@pytest.fixture
async def make(chain: Chain, rpc: JsonRpc, clock: SystemClock) -> AsyncIterator[Make]:
    """Outboxes of one account over a given store."""
    opened: list[Outbox] = []

    def make_outbox(
        store: MemoryJournal,
        *,
        over: JsonRpc = rpc,
        settings: OutboxSettings = QUICK,
        key: SigningKey = RENTER,
        **more: Any,
    ) -> Outbox:
        outbox = Outbox(over, store, key, clock, chain_id=31337, settings=settings, **more)
        opened.append(outbox)
        return outbox

    yield make_outbox
    for outbox in opened:
        await outbox.close()
