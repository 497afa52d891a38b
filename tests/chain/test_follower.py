"""The log follower: each log once, what a reorganisation removes is taken back, and a failure loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any, cast

import pytest
from tests.chain.proxy import FlakyProxy
from tests.chain.support import HOST, Chain, offers_of, rpc_to

from fabstir.chain import bindings
from fabstir.chain.deploy import Operator
from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.follower import DEPTH, SPAN, Followed, LogFollower, Window
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import BaseUnits
from fabstir.ops.clock import SystemClock
from fabstir.ports.chain import NO_KEY
from fabstir.testing.clock import ManualClock
from fabstir.testing.journal import MemoryJournal

HOLDER = Address(bytes.fromhex("0000000000000000000000000000000000000bee"))
Transfers = LogFollower[bindings.Transfer]


def _log(block: int, index: int, *, fork: int = 0) -> Followed[str]:
    name = Hash32(bytes([fork]) * 28 + block.to_bytes(4, "big"))
    return Followed(f"{fork}/{block}/{index}", HOLDER, block, name, index, Hash32(bytes(32)))


class TestWindow:
    """The bookkeeping, without a chain."""

    def test_a_log_is_fresh_once(self) -> None:
        """Read again, it is not handed out again; a log that an endpoint had left out is."""
        window = Window[str](10)
        window.advance([_log(11, 0), _log(12, 1)], 13, Hash32(bytes(32)))
        assert window.unseen([_log(12, 0), _log(11, 0), _log(12, 1)]) == [_log(12, 0)]
        assert window.cursor == 13

    def test_orphans_come_back_in_reverse(self) -> None:
        """Newest block first, last log first, and the place goes back to what is still known."""
        window = Window[str](10)
        window.advance([_log(11, 0), _log(12, 0), _log(12, 1)], 13, Hash32(bytes(32)))
        assert window.newest() == 13
        assert window.removals(13) == []
        window.forget_newest()
        assert [(log.index, log.removed) for log in window.removals(12)] == [(1, True), (0, True)]
        window.forget_newest()
        assert window.cursor == 11
        window.forget_newest()
        assert (window.newest(), window.cursor) == (None, 9)

    def test_memory_is_bounded(self) -> None:
        """Blocks deeper than any reorganisation are forgotten, and then never read again."""
        window = Window[str](0)
        for number in range(1, 1_000):
            window.advance([_log(number, 0)], number, _log(number, 0).block_hash)
        assert len(window.blocks) == DEPTH
        assert window.floor == 999 - DEPTH


class ScriptedEndpoint:
    """One endpoint whose chain a test sets block by block, and may change between two questions."""

    label = "scripted"

    def __init__(self) -> None:
        self.forks: list[int] = []
        """Which fork block n belongs to."""
        self.logs: dict[int, list[int]] = {}
        """Log indexes by block."""

    def preferred(self) -> list[ScriptedEndpoint]:
        """As JsonRpc has it."""
        return [self]

    async def pick(self) -> ScriptedEndpoint:
        """As JsonRpc has it."""
        return self

    async def request(self, method: str, *params: Any) -> Any:
        if method == "eth_getBlockByNumber":
            number = len(self.forks) - 1 if params[0] == "latest" else int(params[0], 16)
            return self._header(number) if number < len(self.forks) else None
        first, last = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
        return [self._log(n, index) for n in range(first, last + 1) for index in self.logs.get(n, [])]

    def _hash(self, number: int) -> str:
        return "0x" + bytes([self.forks[number]]).hex() * 28 + number.to_bytes(4, "big").hex()

    def _header(self, number: int) -> dict[str, str]:
        return {"number": hex(number), "hash": self._hash(number)}

    def _log(self, number: int, index: int) -> dict[str, Any]:
        return {
            "address": "0x" + HOLDER.hex(),
            "blockNumber": hex(number),
            "blockHash": self._hash(number),
            "logIndex": hex(index),
            "transactionHash": "0x" + "00" * 32,
        }


class TestOneEndpoint:
    """What a lagging or reorganising endpoint may answer between two questions of one step."""

    def follower(self, endpoint: ScriptedEndpoint) -> LogFollower[str]:
        def decode(log: dict[str, Any]) -> str:
            return f"{int(log['blockHash'][2:4], 16)}/{int(log['blockNumber'], 16)}/{int(log['logIndex'], 16)}"

        return LogFollower(cast(JsonRpc, endpoint), ManualClock(), (HOLDER,), decode, start=0)

    async def step(self, follower: LogFollower[str]) -> list[str]:
        return [("-" if log.removed else "") + log.event async for batch in follower.step() for log in batch]

    async def test_a_chain_that_changes_under_the_question_is_asked_again(self) -> None:
        """Logs of a block that is not on the chain any more when its header is read are not handed out."""
        endpoint = ScriptedEndpoint()
        endpoint.forks, endpoint.logs = [0, 0, 0, 0], {3: [0]}
        follower = self.follower(endpoint)
        head = await endpoint.request("eth_getBlockByNumber", "latest", False)
        endpoint.forks[3] = 1

        original = endpoint.request

        async def stale_head(method: str, *params: Any) -> Any:
            return head if params[0] == "latest" else await original(method, *params)

        endpoint.request = stale_head  # type: ignore[method-assign]
        assert await self.step(follower) == []
        endpoint.request = original  # type: ignore[method-assign]
        assert await self.step(follower) == ["1/3/0"]

    async def test_logs_that_an_endpoint_left_out_are_found_later(self) -> None:
        """An empty list for a block that it had not indexed yet; the next steps read the last blocks again."""
        endpoint = ScriptedEndpoint()
        endpoint.forks = [0, 0, 0, 0]
        follower = self.follower(endpoint)
        assert await self.step(follower) == []
        endpoint.logs = {2: [0], 3: [1]}
        assert await self.step(follower) == ["0/2/0", "0/3/1"]
        assert await self.step(follower) == []

    async def test_an_endpoint_that_lags_takes_nothing_back(self) -> None:
        """A lower head alone is no reorganisation."""
        endpoint = ScriptedEndpoint()
        endpoint.forks, endpoint.logs = [0, 0, 0, 0], {3: [0]}
        follower = self.follower(endpoint)
        assert await self.step(follower) == ["0/3/0"]
        endpoint.forks = [0, 0]
        assert await self.step(follower) == []
        endpoint.forks, endpoint.logs = [0, 0, 1, 1, 1], {2: [0]}
        assert await self.step(follower) == ["-0/3/0", "1/2/0"]


@pytest.fixture
async def operator(rpc: JsonRpc) -> Operator:
    """Mints, which emits one Transfer each."""
    return Operator(rpc, DEV_KEYS[0])


def _transfers(rpc: JsonRpc, chain: Chain, start: int, span: int = SPAN) -> Transfers:
    codec = bindings.TestUSDC.EVENTS[bindings.Transfer.TOPIC]

    def decode(log: dict[str, Any]) -> bindings.Transfer | None:
        if bytes.fromhex(log["topics"][0][2:]) != codec.topic:
            return None
        transfer: bindings.Transfer = codec.decode(log)
        return transfer if transfer.to == HOLDER else None

    return LogFollower(rpc, SystemClock(), (chain.info.usdc,), decode, start=start, span=span)


class Ledger:
    """Adds what was handed out and takes off what was removed."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[bytes, int]] = Counter()
        self.total = 0
        self.removals = 0

    async def take(self, batch: list[Followed[bindings.Transfer]]) -> None:
        for log in batch:
            sign = -1 if log.removed else 1
            self.seen[log.block_hash, log.index] += sign
            self.total += sign * log.event.value
            self.removals += log.removed
        assert set(self.seen.values()) <= {0, 1}

    async def catch_up(self, follower: Transfers) -> None:
        async for batch in follower.step():
            await self.take(batch)


async def _holds(rpc: JsonRpc, chain: Chain) -> int:
    usdc = bindings.TestUSDC
    call = {"to": "0x" + chain.info.usdc.hex(), "data": "0x" + usdc.encode_balance_of(HOLDER).hex()}
    return usdc.decode_balance_of(bytes.fromhex((await rpc.request("eth_call", call, "latest"))[2:]))


async def _head(rpc: JsonRpc) -> int:
    return quantity(await rpc.request("eth_blockNumber"))


@pytest.mark.real
async def test_a_reorganisation_is_taken_back(
    chain: Chain, rpc: JsonRpc, control: DevnetControl, operator: Operator
) -> None:
    """Logs of replaced blocks come again as removed; what remains equals what the chain says, before and after."""
    ledger, follower = Ledger(), _transfers(rpc, chain, await _head(rpc))
    for amount in (1, 2, 4, 8, 16):
        await operator.mint(chain.info, HOLDER, BaseUnits(amount))
        await ledger.catch_up(follower)
    assert ledger.total == await _holds(rpc, chain) == 31
    await control.reorg(3)
    await ledger.catch_up(follower)
    assert ledger.removals == 3
    assert ledger.total == await _holds(rpc, chain) == 3
    await operator.mint(chain.info, HOLDER, BaseUnits(32))
    await ledger.catch_up(follower)
    assert ledger.total == await _holds(rpc, chain) == 35


@pytest.mark.real
async def test_a_late_follower_reads_ranges(
    chain: Chain, rpc: JsonRpc, control: DevnetControl, operator: Operator
) -> None:
    """Many ranges behind it catches up one by one, and sees each log once."""
    start = await _head(rpc)
    ledger, follower = Ledger(), _transfers(rpc, chain, start, span=7)
    for amount in (1, 2):
        await operator.mint(chain.info, HOLDER, BaseUnits(amount))
        await control.mine(20)
    await ledger.catch_up(follower)
    await ledger.catch_up(follower)
    assert ledger.total == 3
    assert follower.window.cursor == await _head(rpc)


@pytest.mark.real
async def test_a_batch_that_was_not_taken_comes_again(chain: Chain, rpc: JsonRpc, operator: Operator) -> None:
    """The consumer failed, so its place has not moved."""
    ledger, follower = Ledger(), _transfers(rpc, chain, await _head(rpc))
    await operator.mint(chain.info, HOLDER, BaseUnits(1))

    async def fail(_: object) -> None:
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        await follower.run(fail)
    await ledger.catch_up(follower)
    assert ledger.total == 1


@pytest.mark.real
async def test_failing_endpoints_lose_and_double_nothing(
    chain: Chain, rpc: JsonRpc, control: DevnetControl, operator: Operator
) -> None:
    """A fifth of all calls fail, and the chain reorganises in between: the sum is the chain's."""
    async with FlakyProxy(chain.url, 0.2, seed=3) as one, FlakyProxy(chain.url, 0.2, seed=4) as two:
        flaky = JsonRpc([one.url, two.url], SystemClock(), cooldown=0.01)
        ledger, follower = Ledger(), _transfers(flaky, chain, await _head(rpc))
        for number in range(30):
            await operator.mint(chain.info, HOLDER, BaseUnits(1 << number))
            if number % 10 == 9:
                await control.reorg(2)
            with contextlib.suppress(ChainFault):
                await ledger.catch_up(follower)
        while follower.window.cursor < await _head(rpc):
            with contextlib.suppress(ChainFault):
                await ledger.catch_up(follower)
        assert one.fates["pass"] < sum(one.fates.values())
        await flaky.close()
    assert ledger.total == await _holds(rpc, chain)


@pytest.mark.real
async def test_the_markets_events_come_typed(chain: Chain, clock: SystemClock) -> None:
    """The client's own follower wakes at once and gives the structs of the bindings."""
    host = await MarketClient.connect([chain.url], DEV_KEYS[2], chain.info, MemoryJournal(), clock)
    follower = host.follow(await host.block_number() + 1, poll=3600.0)
    events: list[Any] = []
    arrived = asyncio.Event()

    async def take(batch: list[Followed[Any]]) -> None:
        events.extend(log.event for log in batch)
        arrived.set()

    following = asyncio.create_task(follower.run(take))
    await host.register_host("register", "http://127.0.0.1:1", NO_KEY, offers_of(chain))
    follower.wake()
    await arrived.wait()
    offers = (bindings.Offer(chain.model, chain.info.usdc, 7),)
    assert events == [bindings.NodeRegistered(HOST.address, "http://127.0.0.1:1", NO_KEY, offers)]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await host.close()


@pytest.mark.real
async def test_a_range_that_is_too_long_is_halved(
    chain: Chain, control: DevnetControl, operator: Operator, rpc: JsonRpc
) -> None:
    """Providers bound the range of one query; the follower finds the bound by itself."""
    start = await _head(rpc)
    await operator.mint(chain.info, HOLDER, BaseUnits(1))
    await control.mine(30)
    await operator.mint(chain.info, HOLDER, BaseUnits(2))
    async with FlakyProxy(chain.url, 0.0, seed=0, longest_range=5) as proxy:
        bounded = rpc_to(proxy.url)
        ledger = Ledger()
        await ledger.catch_up(_transfers(bounded, chain, start))
        await bounded.close()
    assert ledger.total == 3
