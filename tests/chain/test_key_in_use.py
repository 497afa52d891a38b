"""Two programs with one key: noticed by what the chain has seen, refused before anything is paid twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.chain.support import (
    HOST,
    OTHER,
    QUICK,
    RENTER,
    TARGET,
    Make,
    WriteCounter,
    coins,
    foreign_transfer,
    nonce,
)

from fabstir.chain.devnet import DevnetControl
from fabstir.chain.keys import held
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import ChainFault, LocalFault
from fabstir.domain.ids import to_hex
from fabstir.testing.journal import MemoryJournal


@pytest.mark.real
async def test_a_foreign_transaction_on_our_nonce_stops_the_sending(
    rpc: JsonRpc, control: DevnetControl, make: Make
) -> None:
    """It was mined in our place: `key_in_use` names it, the intent stays planned, and the next process sends it once."""
    writes = WriteCounter()
    await control.hold_blocks()
    store = MemoryJournal(writes)
    outbox = make(store)
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await writes.reached(2)
    foreign = foreign_transfer(await nonce(rpc, RENTER.address), HOST.address)
    await rpc.request("eth_sendRawTransaction", to_hex(foreign.raw))
    await control.mine()
    with pytest.raises(ChainFault, match="key_in_use") as refused:
        await task
    assert to_hex(foreign.hash) in refused.value.detail and refused.value.next_step and not refused.value.retryable
    assert outbox.state[0] == "key_in_use"
    entry = await store.get("pay")
    assert entry is not None and (entry.status, entry.raw) == ("planned", ())
    await outbox.close()
    await control.automine()
    await make(store.reopen()).reconcile()
    assert await coins(rpc, TARGET) == 7


@pytest.mark.real
async def test_a_nonce_that_was_used_elsewhere_is_noticed_before_signing(rpc: JsonRpc, make: Make) -> None:
    """The next send sees that the account has moved on by itself: nothing more is signed, asked for or stored."""
    store = MemoryJournal()
    outbox = make(store)
    await outbox.send("first", TARGET, b"", 1)
    foreign = foreign_transfer(await nonce(rpc, RENTER.address), OTHER.address)
    await rpc.request("eth_sendRawTransaction", to_hex(foreign.raw))
    await rpc.request("anvil_mine", "0x1")
    used = await nonce(rpc, RENTER.address)
    for key in ("second", "third"):
        with pytest.raises(ChainFault, match="key_in_use"):
            await outbox.send(key, TARGET, b"", 1)
    assert (await coins(rpc, TARGET), await nonce(rpc, RENTER.address)) == (1, used)
    assert await store.get("third") is None


@pytest.mark.real
async def test_of_two_nodes_with_one_key_one_stops_and_nothing_is_paid_twice(rpc: JsonRpc, make: Make) -> None:
    """Each with its own journal, sending in turn: from the second round on one of them refuses; each intent was paid at most once."""
    first, second = make(MemoryJournal()), make(MemoryJournal())
    paid, refusals = 0, set[str]()
    for round_ in range(4):
        for outbox, amount in ((first, 1), (second, 100)):
            try:
                await outbox.send(f"pay {round_}", TARGET, b"", amount)
            except ChainFault as fault:
                refusals.add(fault.code)
            else:
                paid += amount
    assert await coins(rpc, TARGET) == paid == 401
    assert refusals == {"key_in_use"}
    assert (first.state[0], second.state[0]) == ("key_in_use", "ok")


@pytest.mark.real
async def test_what_was_signed_before_is_still_looked_for(rpc: JsonRpc, control: DevnetControl, make: Make) -> None:
    """A transaction that is in the pool when the key turns out to be in use is mined, recorded, and neither pushed nor bumped again."""
    writes = WriteCounter()
    store = MemoryJournal(writes)
    outbox = make(store, settings=replace(QUICK, bump_after=3600.0))
    await control.hold_blocks()
    task = asyncio.create_task(outbox.send("pay", TARGET, b"", 7))
    await writes.reached(2)
    while (await rpc.request("txpool_status"))["pending"] == "0x0":
        pass
    foreign = foreign_transfer(await nonce(rpc, RENTER.address) + 1, OTHER.address)
    await rpc.request("eth_sendRawTransaction", to_hex(foreign.raw))
    with pytest.raises(ChainFault, match="key_in_use"):
        await outbox.send("other", TARGET, b"", 1)
    await control.mine()
    await task
    entry = await store.get("pay")
    assert entry is not None and entry.block > 0 and len(entry.raw) == 1
    assert await coins(rpc, TARGET) == 7


HOLDER = """
import sys
from pathlib import Path
from fabstir.chain.keys import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.real
def test_a_key_file_has_one_holder_on_this_machine(tmp_path: Path) -> None:
    """Also under another name of the file; free again when the holder is gone, however it went."""
    path, other = tmp_path / "host.key", tmp_path / "link.key"
    path.write_text("0x" + "11" * 32)
    other.symlink_to(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(ChainFault, match="key_in_use") as refused, held(other):
            pass
        assert str(other) in refused.value.detail
        holder.kill()
    with held(other), pytest.raises(ChainFault, match="key_in_use"), held(path):
        pass


def test_a_key_file_that_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    """`key_missing`, and no file appears."""
    with pytest.raises(LocalFault, match="key_missing"), held(tmp_path / "host.key"):
        pass
    assert list(tmp_path.iterdir()) == []
