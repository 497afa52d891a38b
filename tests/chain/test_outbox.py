"""The outbox on a real chain: whatever fails and wherever the process dies, each intent happens once."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from msgspec.structs import replace
from tests.chain.proxy import FlakyProxy
from tests.chain.support import (
    HOST,
    QUICK,
    RENTER,
    TARGET,
    Chain,
    Make,
    WriteCounter,
    coins,
    foreign_transfer,
    mine_until_done,
    nonce,
    rpc_to,
)

from fabstir.chain import transactions
from fabstir.chain.account import HORIZON
from fabstir.chain.devnet import DevnetControl
from fabstir.chain.fees import GWEI
from fabstir.chain.outbox import GAS_HEADROOM, Outbox
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import ChainFault, error
from fabstir.domain.ids import to_hex
from fabstir.ops.clock import SystemClock
from fabstir.ports.chain import TxResult
from fabstir.ports.journal import OutboxEntry
from fabstir.protocol.signing import SigningKey
from fabstir.testing.journal import MemoryJournal, SimulatedCrash, WritePhase, crash_at

pytestmark = pytest.mark.real

REVERTING_CODE = "0x" + "63deadbeef" + "5f52" + "6004601cfd"
"""PUSH4 0xdeadbeef, MSTORE at 0, REVERT with these four bytes."""


class DyingRpc(JsonRpc):
    """The process dies at request number `at`, before it leaves or after it was answered, and never speaks again."""

    def __init__(self, url: str, at: int, phase: WritePhase) -> None:
        super().__init__([url], SystemClock())
        self._at, self._phase = at, phase
        self.asked = 0

    async def request(self, method: str, *params: object) -> Any:
        self.asked += 1
        if self.asked > self._at or (self.asked == self._at and self._phase == "before"):
            raise SimulatedCrash(method)
        answer = await super().request(method, *params)
        if self.asked == self._at:
            raise SimulatedCrash(method)
        return answer


class AbsentRpc(JsonRpc):
    """Nobody answers requests number `first` to `first + 2`."""

    def __init__(self, url: str, first: int) -> None:
        super().__init__([url], SystemClock())
        self._absent = range(first, first + 3)
        self.asked = 0

    async def request(self, method: str, *params: object) -> Any:
        self.asked += 1
        if self.asked in self._absent:
            raise error("chain_unreachable", detail=method)
        return await super().request(method, *params)


class SlowStore(MemoryJournal):
    """Suspends inside `put`, as a disk does, and remembers which key was ever given which nonce."""

    def __init__(self) -> None:
        super().__init__()
        self.nonces: dict[int, set[str]] = {}

    async def put(self, entry: OutboxEntry) -> None:
        if entry.nonce is not None:
            self.nonces.setdefault(entry.nonce, set()).add(entry.key)
        await asyncio.sleep(0)
        await super().put(entry)


async def _once_more(outbox: Outbox, rpc: JsonRpc, *, intended: bool) -> TxResult:
    """After a restart: reconcile alone pays what was intended; asking again under the same key pays nothing twice."""
    await outbox.reconcile()
    assert await coins(rpc, TARGET) == (7 if intended else 0)
    result = await outbox.send("pay", TARGET, b"", 7)
    assert await coins(rpc, TARGET) == 7
    receipt = await rpc.request("eth_getTransactionReceipt", to_hex(result.hash))
    assert (int(receipt["blockNumber"], 16), int(receipt["gasUsed"], 16)) == (result.block, result.gas_used)
    return result


async def test_a_key_is_sent_once_and_answers_for_ever(chain: Chain, rpc: JsonRpc, make: Make) -> None:
    """Asked twice at once and again in the next process, even with no chain in reach: one transaction, one answer."""
    store = MemoryJournal()
    outbox = make(store)
    both = await asyncio.gather(*(outbox.send("pay", TARGET, b"", 7) for _ in range(2)))
    assert both[0] == both[1]
    dead = rpc_to("http://127.0.0.1:1")
    assert await make(store.reopen(), over=dead).send("pay", TARGET, b"", 7) == both[0]
    assert await coins(rpc, TARGET) == 7
    await dead.close()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("phase", ["before", "after"])
async def test_death_at_any_write_is_survived(
    chain: Chain, rpc: JsonRpc, make: Make, number: int, phase: WritePhase
) -> None:
    """Killed before or after storing the intent, the signed form, or the result: one transaction after the restart."""
    store = MemoryJournal(crash_at(number, phase))
    first = make(store)
    with pytest.raises(SimulatedCrash):
        await first.send("pay", TARGET, b"", 7)
    await first.close()
    await _once_more(make(store.reopen()), rpc, intended=(number, phase) != (1, "before"))


@pytest.mark.parametrize("phase", ["before", "after"])
async def test_death_at_any_request_is_survived(chain: Chain, rpc: JsonRpc, make: Make, phase: WritePhase) -> None:
    """Killed at each request to the chain in turn, before it leaves or after it was answered: one transaction after the restart."""
    for at in range(1, 20):
        before = await coins(rpc, TARGET)
        store = MemoryJournal()
        dying = DyingRpc(chain.url, at, phase)
        first = make(store, over=dying)
        try:
            await first.send("pay", TARGET, b"", 7)
        except SimulatedCrash:
            await first.close()
        else:
            break
        finally:
            await dying.close()
        await make(store.reopen()).reconcile()
        await make(store.reopen()).send("pay", TARGET, b"", 7)
        assert await coins(rpc, TARGET) == before + 7
    assert at > 6


async def test_a_restart_waits_out_a_chain_that_is_away(chain: Chain, rpc: JsonRpc, make: Make) -> None:
    """Away at any moment of reconciling, and back: what was planned happens, once, and nothing is abandoned."""
    for first in range(1, 12):
        before = await coins(rpc, TARGET)
        store = MemoryJournal(crash_at(1, "after"))
        with pytest.raises(SimulatedCrash):
            await make(store).send("pay", TARGET, b"", 7)
        absent = AbsentRpc(chain.url, first)
        outbox = make(store.reopen(), over=absent, settings=replace(QUICK, bump_after=0.01))
        await outbox.reconcile()
        assert await coins(rpc, TARGET) == before + 7
        await outbox.close()
        await absent.close()


async def test_a_hundred_at_once_over_failing_endpoints(chain: Chain, rpc: JsonRpc, make: Make) -> None:
    """A fifth of all calls fail, half of these after the node did what was asked: each is mined once, no nonce is left out."""
    first_nonce = await nonce(rpc, RENTER.address)
    async with FlakyProxy(chain.url, 0.2, seed=1) as one, FlakyProxy(chain.url, 0.2, seed=2) as two:
        flaky = JsonRpc([one.url, two.url], SystemClock(), cooldown=0.05)
        store = SlowStore()
        outbox = make(store, over=flaky)
        results = await asyncio.gather(*(outbox.send(f"pay {n}", TARGET, b"", n) for n in range(1, 101)))
        await outbox.close()
        await flaky.close()
        assert one.fates["refuse"] > 10
        assert one.fates["lose answer"] > 10
    assert len({result.hash for result in results}) == 100
    assert all(len(keys) == 1 for keys in store.nonces.values())
    assert await coins(rpc, TARGET) == sum(range(1, 101))
    assert await nonce(rpc, RENTER.address) == first_nonce + 100


async def test_a_stuck_transaction_gets_a_higher_fee_on_its_nonce(
    rpc: JsonRpc, control: DevnetControl, make: Make
) -> None:
    """No block comes: it is signed again for the same nonce with a quarter more, stored, and one of the forms is mined."""
    writes = WriteCounter()
    store = MemoryJournal(writes)
    await control.hold_blocks()
    outbox = make(store)
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await writes.reached(4)  # planned, signed, two bumps
    await mine_until_done(control, task)
    result = await task
    entry = await store.get("pay")
    assert entry is not None
    forms = [transactions.read(raw) for raw in entry.raw]
    assert len({form.nonce for form in forms}) == 1
    fees = sorted(form.fee.max_fee for form in forms)
    assert all(higher * 100 >= lower * 125 for lower, higher in itertools.pairwise(fees))
    assert entry.hashes[-1] == result.hash
    assert await coins(rpc, TARGET) == 7


async def test_a_nonce_that_was_taken_long_ago_is_given_up(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """A transaction that was not ours has it, and more blocks than any reorganisation takes back are on top: the intent is signed again
    with the next one, and happens once."""
    writes = WriteCounter()
    await control.hold_blocks()
    outbox = make(MemoryJournal(writes), settings=replace(QUICK, bump_after=0.3))
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await writes.reached(2)
    foreign = foreign_transfer(await nonce(rpc, RENTER.address), HOST.address)
    await rpc.request("eth_sendRawTransaction", to_hex(foreign.raw))
    await control.mine(HORIZON + 1)
    await mine_until_done(control, task)
    await task
    assert await coins(rpc, TARGET) == 7
    assert (await rpc.request("eth_getTransactionReceipt", to_hex(foreign.hash)))["status"] == "0x1"


async def test_what_fails_on_chain_is_final_under_its_key(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """The contract changed its mind between estimate and block: `chain_reverted` with its reason, now and when asked again."""
    writes = WriteCounter()
    store = MemoryJournal(writes)
    await control.hold_blocks()
    task = asyncio.create_task(make(store).send("pay", TARGET, b"", 0))
    await writes.reached(2)
    await rpc.request("anvil_setCode", to_hex(TARGET), REVERTING_CODE)
    await mine_until_done(control, task)
    with pytest.raises(ChainFault) as refused:
        await task
    with pytest.raises(ChainFault) as again:
        await make(store.reopen()).send("pay", TARGET, b"", 0)
    for fault in (refused.value, again.value):
        assert (fault.code, fault.detail) == ("chain_reverted", "0xdeadbeef")
    entry = await store.get("pay")
    assert entry is not None and entry.block > 0 and entry.gas_used > 0 and entry.error == "0xdeadbeef"


async def test_a_refusal_before_signing_costs_no_nonce_and_may_be_asked_again(rpc: JsonRpc, make: Make) -> None:
    """Nothing was signed, so the same key may try again when the contract agrees."""
    first_nonce = await nonce(rpc, RENTER.address)
    await rpc.request("anvil_setCode", to_hex(TARGET), "0x5f5ffd")
    store = MemoryJournal()
    outbox = make(store)
    with pytest.raises(ChainFault, match="chain_reverted"):
        await outbox.send("pay", TARGET, b"", 7)
    assert await store.unfinished() == []
    assert await nonce(rpc, RENTER.address) == first_nonce
    await rpc.request("anvil_setCode", to_hex(TARGET), "0x")
    await outbox.send("pay", TARGET, b"", 7)
    assert await coins(rpc, TARGET) == 7


async def test_an_account_that_cannot_pay_is_told_before_signing(rpc: JsonRpc, make: Make) -> None:
    """A signed transaction without money would hold up every later one."""
    poor = SigningKey(bytes.fromhex("77" * 32))
    outbox = make(MemoryJournal(), key=poor)
    with pytest.raises(ChainFault) as refused:
        await outbox.send("pay", TARGET, b"", 7)
    assert refused.value.code == "funds_insufficient"
    assert to_hex(poor.address) in refused.value.detail or "nsufficient" in refused.value.detail


async def test_an_impatient_caller_is_told_and_the_transaction_goes_on(
    rpc: JsonRpc, control: DevnetControl, make: Make
) -> None:
    """`transaction_lost` after the patience; the entry is followed all the same, and asking again gives its result."""
    await control.hold_blocks()
    store = MemoryJournal()
    outbox = make(store, settings=replace(QUICK, patience=0.1))
    with pytest.raises(ChainFault) as lost:
        await outbox.send("pay", TARGET, b"", 7)
    assert lost.value.code == "transaction_lost"
    while (entry := await store.get("pay")) is not None and entry.status != "mined":
        await control.mine()
    await outbox.send("pay", TARGET, b"", 7)
    assert await coins(rpc, TARGET) == 7


async def test_a_cancelled_caller_does_not_cancel_the_transaction(
    rpc: JsonRpc, control: DevnetControl, make: Make
) -> None:
    """Who stops waiting has still sent it."""
    writes = WriteCounter()
    await control.hold_blocks()
    outbox = make(MemoryJournal(writes))
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await writes.reached(2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await mine_until_done(control, again)
    await again
    assert await coins(rpc, TARGET) == 7


async def test_a_chain_above_the_fee_bound_is_waited_out(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """Nothing above the bound is signed: `fee_too_high` meanwhile, mined once the chain asks less."""
    await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(20 * GWEI))
    await control.mine()
    store = MemoryJournal()
    outbox = make(store, settings=replace(QUICK, patience=0.2, max_fee=10 * GWEI))
    with pytest.raises(ChainFault) as waiting:
        await outbox.send("pay", TARGET, b"", 7)
    assert waiting.value.code == "fee_too_high"
    entry = await store.get("pay")
    assert entry is not None and all(transactions.read(raw).fee.max_fee <= 10 * GWEI for raw in entry.raw)
    await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    await control.mine()
    patient = make(store.reopen())
    await outbox.close()
    await patient.send("pay", TARGET, b"", 7)
    assert await coins(rpc, TARGET) == 7


async def test_a_nonce_that_waits_in_the_store_is_not_given_away(rpc: JsonRpc, make: Make) -> None:
    """A new intent before `reconcile` takes the nonce after the one that a dead process had signed with."""
    store = MemoryJournal(crash_at(2, "after"))
    with pytest.raises(SimulatedCrash):
        await make(store).send("pay", TARGET, b"", 7)
    writes = WriteCounter()
    store = store.reopen(writes)
    dead = await store.get("pay")
    outbox = make(store)
    other = asyncio.create_task(outbox.send("other", TARGET, b"", 100))
    await writes.reached(2)  # planned, signed
    await outbox.reconcile()
    await other
    assert await coins(rpc, TARGET) == 107
    first, second = await store.get("pay"), await store.get("other")
    assert dead is not None and first is not None and second is not None and dead.nonce is not None
    assert (first.nonce, second.nonce) == (dead.nonce, dead.nonce + 1)


async def test_a_call_with_a_floor_gets_that_much_gas(rpc: JsonRpc, make: Make) -> None:
    """Estimates of calls with a verifier behind them cannot be trusted; other calls get the estimate and room."""
    store = MemoryJournal()
    outbox = make(store, gas_floors={b"\x01\x02\x03\x04": 500_000})
    await outbox.send("floor", TARGET, b"\x01\x02\x03\x04 and more")
    await outbox.send("no floor", TARGET, b"")
    gas = {}
    for key in ("floor", "no floor"):
        entry = await store.get(key)
        assert entry is not None
        gas[key] = transactions.read(entry.raw[0]).gas
    assert gas == {"floor": 500_000, "no floor": 21_000 + GAS_HEADROOM}


async def test_what_others_change_after_the_estimate_does_not_starve_a_transaction(
    rpc: JsonRpc, control: DevnetControl, make: Make
) -> None:
    """A slot that was set at the estimate and is empty in the block costs 17,100 more: the limit leaves room for it."""

    async def set_slot(value: int) -> None:
        words = [to_hex(number.to_bytes(32, "big")) for number in (0, value)]
        await rpc.request("anvil_setStorageAt", to_hex(TARGET), *words)

    writes = WriteCounter()
    await rpc.request("anvil_setCode", to_hex(TARGET), "0x60025f55")  # PUSH1 2, PUSH0, SSTORE
    await set_slot(1)
    await control.hold_blocks()
    task = asyncio.create_task(make(MemoryJournal(writes)).send("pay", TARGET, b""))
    await writes.reached(2)
    await set_slot(0)
    await mine_until_done(control, task)
    assert (await task).gas_used > 21_000 * 2


async def test_running_out_of_gas_is_named(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """The contract came to need more than any room that was left."""
    writes = WriteCounter()
    await control.hold_blocks()
    task = asyncio.create_task(make(MemoryJournal(writes)).send("pay", TARGET, b""))
    await writes.reached(2)
    await rpc.request("anvil_setCode", to_hex(TARGET), "0x5b5f56")  # JUMPDEST, PUSH0, JUMP: for ever
    await mine_until_done(control, task)
    with pytest.raises(ChainFault, match="out of gas"):
        await task


async def test_accounts_share_a_store_and_not_their_entries(rpc: JsonRpc, make: Make) -> None:
    """Reconciling one account leaves the other's entries alone."""
    store = MemoryJournal(crash_at(2, "after"))
    renter = make(store)
    with pytest.raises(SimulatedCrash):
        await renter.send("pay", TARGET, b"", 7)
    store = store.reopen()
    await make(store, key=HOST).reconcile()
    assert [entry.status for entry in await store.unfinished()] == ["signed"]
    assert await coins(rpc, TARGET) == 0
    await make(store).reconcile()
    assert await coins(rpc, TARGET) == 7


async def test_no_endpoint_is_told_as_such_and_nothing_stays_behind(make: Make) -> None:
    """`chain_unreachable` before anything is signed hands the intent back: no later restart will send it."""
    store = MemoryJournal()
    dead = rpc_to("http://127.0.0.1:1")
    with pytest.raises(ChainFault) as refused:
        await make(store, over=dead).send("pay", TARGET, b"", 7)
    assert refused.value.code == "chain_unreachable"
    assert await store.unfinished() == []
    await dead.close()
