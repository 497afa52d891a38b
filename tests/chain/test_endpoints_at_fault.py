"""Endpoints that lag, lie about the head, limit, hang or serve another chain: passed over, and named with what they did."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.chain.proxy import FlakyProxy
from tests.chain.scripted_node import ScriptedNode
from tests.chain.support import HOST, Chain, mine_until_done, offers_of

from fabstir.chain import heads
from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.follower import BEHIND_STEPS, LogFollower
from fabstir.chain.heads import LAG, LEAP, HeadSurvey
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import LONGEST_WAIT, RECHECK_CHAIN, JsonRpc
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import Address
from fabstir.ops.clock import SystemClock
from fabstir.ports.chain import NO_KEY
from fabstir.testing.clock import ManualClock
from fabstir.testing.journal import MemoryJournal

HOLDER = Address(b"\x0b" * 20)
Connect = Callable[..., JsonRpc]


class FastClock(ManualClock):
    """Pauses pass at once."""

    async def sleep(self, seconds: float) -> None:
        await self.advance(seconds)


@pytest.fixture
def clock() -> FastClock:
    """Of each test its own."""
    return FastClock()


@pytest.fixture
async def two() -> AsyncIterator[tuple[ScriptedNode, ScriptedNode]]:
    """Two honest nodes of one chain."""
    async with ScriptedNode() as first, ScriptedNode() as second:
        yield first, second


@pytest.fixture
async def connect(clock: FastClock) -> AsyncIterator[Connect]:
    """Clients that are closed at the end."""
    opened: list[JsonRpc] = []

    def connect_to(*nodes: ScriptedNode | str, **options: Any) -> JsonRpc:
        rpc = JsonRpc([node if isinstance(node, str) else node.url for node in nodes], clock, **options)
        opened.append(rpc)
        return rpc

    yield connect_to
    for rpc in opened:
        await rpc.close()


def _states(rpc: JsonRpc) -> list[str]:
    return [state.state for state in rpc.describe()]


def _follower(rpc: JsonRpc, clock: FastClock, start: int) -> LogFollower[str]:
    def decode(log: dict[str, Any]) -> str:
        return f"{int(log['blockNumber'], 16)}/{int(log['logIndex'], 16)}"

    return LogFollower(rpc, clock, (HOLDER,), decode, start=start)


async def _step(follower: LogFollower[str]) -> list[str]:
    return [("-" if log.removed else "") + log.event async for batch in follower.step() for log in batch]


class TestLimits:
    """429 with and without a time."""

    async def test_who_limits_is_not_asked_before_its_time(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """As long as Retry-After says, also where the other one fails; then it is asked again."""
        first, second = two
        first.status, first.headers = 429, {"Retry-After": "60"}
        rpc = connect(first, second)
        await rpc.request("eth_blockNumber")
        assert _states(rpc) == ["rate_limited", "ready"]
        second.status = 503
        with pytest.raises(ChainFault, match="chain_unreachable"):
            await rpc.request("eth_blockNumber")
        assert len(first.calls) == 1
        first.status = 200
        await clock.advance(60)
        assert await rpc.request("eth_blockNumber") == "0x14"
        assert _states(rpc)[0] == "ready"

    async def test_a_short_limit_of_the_only_endpoint_is_waited_out(
        self, two: Any, connect: Connect, clock: FastClock
    ) -> None:
        """Not asked again meanwhile."""
        node, _ = two
        node.status, node.headers = 429, {"Retry-After": "3"}
        rpc = connect(node)
        before = clock.monotonic()
        with pytest.raises(ChainFault, match="chain_unreachable"):
            await rpc.request("eth_blockNumber")
        assert len(node.calls) == 4
        assert clock.monotonic() - before >= 9

    async def test_a_long_limit_is_told_at_once(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """`chain_unreachable`, without another question, however often it is tried."""
        node, _ = two
        node.status, node.headers = 429, {"Retry-After": str(int(LONGEST_WAIT) + 1)}
        rpc = connect(node)
        for _ in range(5):
            with pytest.raises(ChainFault, match="HTTP 429"):
                await rpc.request("eth_blockNumber")
        assert len(node.calls) == 1

    async def test_a_date_is_understood(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """Retry-After may be one; words that are neither are no limit."""
        first, second = two
        for header, state in (("Fri, 15 Jan 2100 08:00:00 GMT", "rate_limited"), ("soon", "resting")):
            first.status, first.headers = 429, {"Retry-After": header}
            rpc = connect(first, second)
            await rpc.request("eth_blockNumber")
            assert _states(rpc) == [state, "ready"]


class TestAnotherChain:
    """An endpoint that serves another chain than the configured one."""

    async def test_after_a_failover_it_is_not_used(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """It was down when its chain was first asked for; its answers never count, not even among those of everybody."""
        first, second = two
        second.chain_id = 5
        rpc = connect(first, second, chain_id=1)
        assert await rpc.request("eth_blockNumber") == "0x14"
        first.status, second.head = 503, 99
        with pytest.raises(ChainFault, match="chain_unreachable") as refused:
            await rpc.request("eth_blockNumber")
        assert "serves chain 5, wanted 1" in refused.value.detail
        first.status = 200
        assert await rpc.everywhere("eth_blockNumber") == ["0x14"]
        assert _states(rpc)[1] == "wrong_chain"
        assert set(second.calls) == {"eth_chainId"}

    async def test_it_is_asked_again_after_a_while(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """Somebody corrects what stands behind the URL."""
        first, second = two
        first.chain_id = 5
        rpc = connect(first, second, chain_id=1)
        await rpc.request("eth_blockNumber")
        first.chain_id = 1
        await clock.advance(RECHECK_CHAIN)
        await rpc.request("eth_blockNumber")
        assert _states(rpc) == ["ready", "ready"] and first.calls[-1] == "eth_blockNumber"

    async def test_nobody_serves_the_chain(self, two: Any, connect: Connect) -> None:
        """`chain_mismatch`, which is not worth another try."""
        for node in two:
            node.chain_id = 5
        with pytest.raises(ChainFault, match="chain_mismatch") as refused:
            await connect(*two, chain_id=1).request("eth_blockNumber")
        assert not refused.value.retryable


class TestSurvey:
    """Comparing heads."""

    async def test_who_lags_is_asked_last(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """And first again when it has caught up."""
        first, second = two
        second.head += LAG + 1
        rpc = connect(first, second)
        await HeadSurvey(rpc, clock).look()
        assert _states(rpc) == ["lagging", "ready"]
        assert "11 blocks behind" in rpc.describe()[0].reason
        assert await rpc.request("eth_blockNumber") == hex(second.head)
        first.head = second.head
        await HeadSurvey(rpc, clock).look()
        assert _states(rpc) == ["ready", "ready"]

    async def test_a_head_without_a_block_below_it_makes_nobody_lag(
        self, two: Any, connect: Connect, clock: FastClock
    ) -> None:
        """The one that names it is `untrue`, the others are as good as before."""
        first, second = two
        first.head, first.real = 1_000, 20
        rpc = connect(first, second)
        await HeadSurvey(rpc, clock).look()
        assert _states(rpc) == ["untrue", "ready"]
        assert await rpc.request("eth_blockNumber") == "0x14"

    async def test_who_hangs_or_fails_holds_up_nobody(
        self, two: Any, connect: Connect, clock: FastClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It rests; the survey ends."""
        monkeypatch.setattr(heads, "PATIENCE_SECONDS", 1.0)
        first, second = two
        first.hangs = True
        rpc = connect(first, second, "http://127.0.0.1:1")
        await HeadSurvey(rpc, clock).look()
        assert _states(rpc) == ["resting", "ready", "resting"]
        assert "no answer" in rpc.describe()[0].reason

    async def test_alone_there_is_nothing_to_compare(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """No question is asked."""
        node, _ = two
        await HeadSurvey(connect(node), clock).run()
        assert node.calls == []


class TestFollowing:
    """The log follower over such endpoints."""

    async def test_a_head_far_ahead_takes_no_log_away(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """The endpoint names block 1,000 and has no logs up to there: it is passed over, and the logs come from the other."""
        liar, honest = two
        liar.head, liar.real = 1_000, 20
        honest.logs = {19: 1, 20: 2}
        rpc = connect(liar, honest)
        follower = _follower(rpc, clock, start=15)
        with pytest.raises(ChainFault, match="unfounded"):
            await _step(follower)
        assert _states(rpc)[0] == "untrue"
        assert await _step(follower) == ["19/0", "20/0", "20/1"]
        honest.head, honest.logs[21] = 21, 1
        assert await _step(follower) == ["21/0"]

    async def test_a_catch_up_over_many_blocks_is_believed(self, two: Any, connect: Connect, clock: FastClock) -> None:
        """Far behind is no reason to distrust."""
        node, _ = two
        node.head, node.logs = 20 + 10 * LEAP, {30: 1, 300: 1}
        assert await _step(_follower(connect(node), clock, start=15)) == ["30/0", "300/0"]

    async def test_a_head_that_goes_back_for_good_is_followed_back(
        self, two: Any, connect: Connect, clock: FastClock
    ) -> None:
        """It named a few blocks that were none. What happens in the true ones is read; nothing is handed out twice."""
        node, _ = two
        node.head, node.logs = 30, {20: 1}
        follower = _follower(connect(node), clock, start=15)
        assert await _step(follower) == ["20/0"]
        node.head, node.logs[22] = 23, 1
        seen = [event for _ in range(BEHIND_STEPS) for event in await _step(follower)]
        assert seen == ["22/0"]
        node.head, node.logs[31] = 32, 1
        assert await _step(follower) == ["31/0"]

    async def test_a_lagging_endpoint_between_others_takes_nothing_back(
        self, two: Any, connect: Connect, clock: FastClock
    ) -> None:
        """A few steps behind are no reorganisation."""
        first, second = two
        first.head, first.logs = 25, {24: 1}
        follower = _follower(connect(first, second), clock, start=15)
        assert await _step(follower) == ["24/0"]
        first.status = 503
        for _ in range(BEHIND_STEPS // 2):
            with contextlib.suppress(ChainFault):
                assert await _step(follower) == []
        first.status = 200
        await clock.advance(10)
        assert await _step(follower) == []


@pytest.mark.real
async def test_who_reads_after_a_write_sees_its_effect(chain: Chain, rpc: JsonRpc) -> None:
    """The endpoint shows the state before the transaction, until it has caught up: a plan is never made from that."""
    async with FlakyProxy(chain.url, 0.0, seed=0) as proxy:
        host = await MarketClient.connect([proxy.url], DEV_KEYS[2], chain.info, MemoryJournal(), SystemClock())
        proxy.behind_at, proxy.catches_up_after = await host.block_number(), 3
        await host.register_host("register", "http://127.0.0.1:1", NO_KEY, offers_of(chain))
        assert [entry.address for entry in await host.hosts()] == [HOST.address]
        assert proxy.shown == 3
        await host.close()


@pytest.mark.real
async def test_the_clients_condition_names_its_endpoints_and_what_waits(chain: Chain, control: DevnetControl) -> None:
    """As health shows it: nothing special, then one transaction that waits for a block."""
    host = await MarketClient.connect(
        [chain.url, "http://127.0.0.1:1"], DEV_KEYS[2], chain.info, MemoryJournal(), SystemClock()
    )
    assert host.condition().sending == "ok"
    assert host.condition().endpoints[0].state == "ready"
    assert host.condition().endpoints[1].name == "1 http://127.0.0.1:1"
    await control.hold_blocks()
    task = asyncio.create_task(host.register_host("register", "http://127.0.0.1:1", NO_KEY, offers_of(chain)))
    while host.condition().waiting == 0:
        await host.block_number()
    await mine_until_done(control, task)
    await task
    assert host.condition().waiting == 0
    await host.close()


async def test_no_state_shows_a_secret(two: Any, connect: Connect) -> None:
    """Paths and credentials of a URL may be somebody's key."""
    node, _ = two
    node.status = 503
    rpc = connect(node.url.replace("http://", "http://user:secret@") + "v3/secret-key")
    with pytest.raises(ChainFault) as refused:
        await rpc.request("eth_blockNumber")
    assert "secret" not in repr(rpc) + repr(rpc.describe()) + str(refused.value)
    assert rpc.describe()[0].name.startswith("0 http://127.0.0.1:")
