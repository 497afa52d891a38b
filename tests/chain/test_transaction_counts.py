"""What becomes of transactions is counted, with their gas: once each, and only when it is certain. On a real chain."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from tests.chain.support import (
    HOST,
    QUICK,
    RENTER,
    TARGET,
    Chain,
    Make,
    WriteCounter,
    foreign_transfer,
    mine_until_done,
    nonce,
)

from fabstir.chain.account import HORIZON
from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import to_hex
from fabstir.domain.money import BaseUnits
from fabstir.ops.clock import SystemClock
from fabstir.ops.metrics import Metrics
from fabstir.ports.chain import TransactionEnd
from fabstir.testing.journal import MemoryJournal

pytestmark = pytest.mark.real

REVERTING_CODE = "0x5f5ffd"


class Counted:
    """The metrics of a node, and a way to wait for an end."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._more = asyncio.Event()

    def __call__(self, end: TransactionEnd, gas_used: int) -> None:
        self.metrics.transaction(end, gas_used)
        self._more.set()

    async def reached(self, ends: int) -> None:
        async with asyncio.timeout(30):
            while sum(self.ends().values()) < ends:
                self._more.clear()
                await self._more.wait()

    def ends(self) -> dict[str, float]:
        """By result, those that happened."""
        value = self.metrics.registry.get_sample_value
        ends = {str(end): value("fabstir_transactions_total", {"result": str(end)}) or 0 for end in TransactionEnd}
        return {end: count for end, count in ends.items() if count}

    @property
    def gas(self) -> float | None:
        return self.metrics.registry.get_sample_value("fabstir_gas_used_total")


async def test_a_transaction_counts_once_it_is_buried(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """Not before: a reorganisation may take it back. The next process with the same store counts what this one did not, and no more."""
    store, first, second = MemoryJournal(), Counted(), Counted()
    outbox = make(store)
    outbox.on_end = first
    result = await outbox.send("pay", TARGET, b"", 7)
    await outbox.close()
    assert (first.ends(), first.gas) == ({}, 0)
    again = make(store.reopen())
    again.on_end = second
    await control.mine(HORIZON + 1)
    await again.reconcile()
    await second.reached(1)
    assert (second.ends(), second.gas) == ({"mined": 1}, result.gas_used)
    entry = await store.get("pay")
    assert entry is not None and entry.status == "mined"
    await again.send("pay", TARGET, b"", 7)
    await again.close()
    assert second.ends() == {"mined": 1}


async def test_gas_without_effect_counts(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """A transaction that reverted in its block was paid for; one that was refused before it was signed cost nothing."""
    writes, counted = WriteCounter(), Counted()
    await control.hold_blocks()
    store = MemoryJournal(writes)
    outbox = make(store)
    outbox.on_end = counted
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 0))
    await writes.reached(2)
    await rpc.request("anvil_setCode", to_hex(TARGET), REVERTING_CODE)
    await mine_until_done(control, task)
    with pytest.raises(ChainFault, match="chain_reverted"):
        await task
    with pytest.raises(ChainFault, match="chain_reverted"):
        await outbox.send("pay again", TARGET, b"", 0)
    assert (counted.ends(), counted.gas) == ({"refused": 1}, 0)
    await control.mine(HORIZON + 1)
    await counted.reached(2)
    entry = await store.get("pay")
    assert entry is not None and entry.gas_used > 0
    assert (counted.ends(), counted.gas) == ({"refused": 1, "reverted": 1}, entry.gas_used)


async def test_a_nonce_that_a_stranger_took_is_a_lost_transaction(
    rpc: JsonRpc, control: DevnetControl, make: Make
) -> None:
    """The form that was signed can never be mined; the intent is signed again and ends by itself."""
    writes, counted = WriteCounter(), Counted()
    await control.hold_blocks()
    outbox = make(MemoryJournal(writes), settings=replace(QUICK, bump_after=0.3))
    outbox.on_end = counted
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await writes.reached(2)
    foreign = foreign_transfer(await nonce(rpc, RENTER.address), HOST.address)
    await rpc.request("eth_sendRawTransaction", to_hex(foreign.raw))
    await control.mine(HORIZON + 1)
    await mine_until_done(control, task)
    result = await task
    await control.mine(HORIZON + 1)
    await counted.reached(2)
    assert (counted.ends(), counted.gas) == ({"lost": 1, "mined": 1}, result.gas_used)


async def test_the_client_of_the_market_counts(chain: Chain, control: DevnetControl, clock: SystemClock) -> None:
    """As the host connects its metrics."""
    client = await MarketClient.connect([chain.url], DEV_KEYS[1], chain.info, MemoryJournal(), clock, QUICK)
    counted = Counted()
    client.count_ends(counted)
    try:
        result = await client.approve("approve", chain.info.usdc, BaseUnits(1))
        await control.mine(HORIZON + 1)
        await counted.reached(1)
        assert (counted.ends(), counted.gas) == ({"mined": 1}, result.gas_used)
    finally:
        await client.close()
