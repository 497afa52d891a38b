"""Fees above the bound, transactions that a pool forgets, and how an outbox waits: nothing lost, no busy loop, the state is named."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace
from tests.chain.support import QUICK, RENTER, TARGET, Chain, Make, WriteCounter, coins, mine_until_done, nonce

from fabstir.chain import transactions
from fabstir.chain.devnet import DevnetControl
from fabstir.chain.fees import GWEI
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.ids import to_hex
from fabstir.ops.clock import SystemClock
from fabstir.testing.journal import MemoryJournal

pytestmark = pytest.mark.real


class CountingRpc(JsonRpc):
    """Counts requests by method, and lets a test wait for a number of them."""

    def __init__(self, url: str) -> None:
        super().__init__([url], SystemClock())
        self.asked: Counter[str] = Counter()
        self._more = asyncio.Event()

    async def request(self, method: str, *params: object) -> Any:
        self.asked[method] += 1
        self._more.set()
        return await super().request(method, *params)

    async def reached(self, method: str, number: int) -> None:
        while self.asked[method] < number:
            self._more.clear()
            await self._more.wait()


async def _ask_for(rpc: JsonRpc, control: DevnetControl, base_fee: int) -> None:
    await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(base_fee))
    await control.mine()


async def test_a_gas_spike_is_waited_out_and_named(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """Above the bound: `fee_too_high` in the state, nothing signed above it; when the fee falls the transaction goes out by itself."""
    await control.hold_blocks()
    await _ask_for(rpc, control, 50 * GWEI)
    writes = WriteCounter()
    store = MemoryJournal(writes)
    outbox = make(store, settings=replace(QUICK, max_fee=10 * GWEI))
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await writes.reached(2)
    assert outbox.state[0] == "fee_too_high"
    assert "50 gwei, the bound is 10" in outbox.state[1]
    assert outbox.waiting == 1
    await _ask_for(rpc, control, GWEI)
    await mine_until_done(control, task)
    await task
    entry = await store.get("pay")
    assert entry is not None and all(transactions.read(raw).fee.max_fee <= 10 * GWEI for raw in entry.raw)
    assert (await coins(rpc, TARGET), outbox.state, outbox.waiting) == (7, ("ok", ""), 0)


async def test_a_transaction_that_is_refused_is_not_pushed_in_a_loop(
    chain: Chain, rpc: JsonRpc, control: DevnetControl, make: Make
) -> None:
    """While the node refuses it the pauses between two pushes double; only its receipt is asked for at each poll."""
    await control.hold_blocks()
    await _ask_for(rpc, control, 50 * GWEI)
    counting = CountingRpc(chain.url)
    patient = replace(QUICK, max_fee=10 * GWEI, first_poll=0.001, longest_poll=0.002, bump_after=3600.0)
    outbox = make(MemoryJournal(), over=counting, settings=patient)
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await counting.reached("eth_getTransactionReceipt", 100)
    assert 1 < counting.asked["eth_sendRawTransaction"] <= 20
    assert counting.asked["eth_getBlockByNumber"] <= 2
    task.cancel()
    await outbox.close()
    await counting.close()


async def test_a_stuck_transaction_is_raised_up_to_the_bound(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """Every form has the same nonce, each offers more, none more than the bound; and then it stays as it is."""
    await control.hold_blocks()
    await _ask_for(rpc, control, GWEI)
    counted = WriteCounter()
    store = MemoryJournal(counted)
    outbox = make(store, settings=replace(QUICK, max_fee=4 * GWEI, bump_after=0.01))
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await counted.reached(5)  # planned, signed, three bumps: 2, 2.5, 3.1 and 3.9 gwei
    await mine_until_done(control, task)
    entry = await store.get("pay")
    assert entry is not None
    forms = [transactions.read(raw) for raw in entry.raw]
    assert {form.nonce for form in forms} == {forms[0].nonce}
    assert len(forms) == 4 and max(form.fee.max_fee for form in forms) <= 4 * GWEI
    assert await coins(rpc, TARGET) == 7


async def test_a_transaction_that_the_pool_forgot_is_pushed_again(
    rpc: JsonRpc, control: DevnetControl, make: Make
) -> None:
    """Evicted, it comes back on its own nonce and is paid once."""
    await control.hold_blocks()
    first = await nonce(rpc, RENTER.address)
    writes = WriteCounter()
    store = MemoryJournal(writes)
    outbox = make(store)
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await writes.reached(2)
    entry = await store.get("pay")
    assert entry is not None
    while await rpc.request("eth_getTransactionByHash", to_hex(entry.hashes[0])) is None:
        pass
    await rpc.request("anvil_dropAllTransactions")
    await mine_until_done(control, task)
    await task
    assert (await coins(rpc, TARGET), await nonce(rpc, RENTER.address)) == (7, first + 1)
