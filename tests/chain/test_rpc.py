"""Failover: what is the endpoint's fault goes to the next one, what is the call's fault comes back at once."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from fabstir.chain.faults import translate
from fabstir.chain.rpc import JsonRpc, RpcError
from fabstir.domain.errors import ChainFault, LocalFault
from fabstir.testing.clock import ManualClock

Answer = dict[str, Any] | int | str
Serve = Callable[..., Awaitable["Node"]]


class Node:
    """An endpoint that says what it is told to: a JSON-RPC body, an HTTP status, or raw text."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.calls: list[str] = []
        self.url = ""

    async def serve(self, request: web.Request) -> web.Response:
        self.calls.append(json.loads(await request.read())["method"])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return web.Response(status=answer)
        if isinstance(answer, str):
            return web.Response(text=answer)
        return web.json_response({"jsonrpc": "2.0", "id": 1, **answer})


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts endpoints in this process."""
    runners: list[web.AppRunner] = []

    async def start(*answers: Answer) -> Node:
        node = Node(*answers)
        application = web.Application()
        application.router.add_post("/", node.serve)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        node.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        return node

    yield start
    for runner in runners:
        await runner.cleanup()


class FastClock(ManualClock):
    """Pauses between rounds pass at once."""

    async def sleep(self, seconds: float) -> None:
        await self.advance(seconds)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., JsonRpc]]:
    """Clients that are closed at the end."""
    opened: list[JsonRpc] = []

    def connect_to(*nodes: Node | str, clock: ManualClock | None = None) -> JsonRpc:
        rpc = JsonRpc([n if isinstance(n, str) else n.url for n in nodes], clock or FastClock(), cooldown=5.0)
        opened.append(rpc)
        return rpc

    yield connect_to
    for rpc in opened:
        await rpc.close()


OK: Answer = {"result": "0x1"}
NOBODY = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "broken",
    [
        500,
        503,
        429,
        "not json",
        "[]",
        {"neither": 1},
        {"error": {"code": -32603, "message": "internal error"}},
        {"error": {"code": -32005, "message": "limit exceeded"}},
        {"error": {"code": 429, "message": "slow down"}},
    ],
    ids=str,
)
async def test_an_endpoint_at_fault_is_passed_over(serve: Serve, connect: Any, broken: Answer) -> None:
    """Whatever its fault looks like, the next one answers, and goes on answering while the first one rests."""
    first, second = await serve(broken), await serve(OK)
    rpc = connect(first, second)
    assert [await rpc.request("eth_blockNumber") for _ in range(3)] == ["0x1"] * 3
    assert (len(first.calls), len(second.calls)) == (1, 3)


async def test_a_dead_first_endpoint_is_passed_over(serve: Serve, connect: Any) -> None:
    """Nobody listens at the first address."""
    second = await serve(OK)
    assert await connect(NOBODY, second).request("eth_blockNumber") == "0x1"


async def test_an_endpoint_is_preferred_again_after_its_rest(serve: Serve, connect: Any) -> None:
    """The order of the configuration is the order of preference."""
    clock = FastClock()
    first, second = await serve(503, OK), await serve(OK)
    rpc = connect(first, second, clock=clock)
    await rpc.request("a")
    await rpc.request("b")
    await clock.advance(6.0)
    await rpc.request("c")
    assert (first.calls, second.calls) == (["a", "c"], ["a", "b"])


async def test_a_lone_endpoint_gets_another_chance(serve: Serve, connect: Any) -> None:
    """A restart of the local node is survived."""
    node = await serve(503, 503, OK)
    assert await connect(node).request("eth_blockNumber") == "0x1"


@pytest.mark.parametrize(
    ("fault", "code", "detail"),
    [
        ({"code": 3, "message": "execution reverted", "data": "0xdeadbeef"}, "chain_reverted", "0xdeadbeef"),
        ({"code": 3, "message": "execution reverted", "data": {"data": "0xdeadbeef"}}, "chain_reverted", "0xdeadbeef"),
        ({"code": -32603, "message": "execution reverted: no"}, "chain_reverted", "execution reverted: no"),
        ({"code": -32000, "message": "insufficient funds for gas"}, "funds_insufficient", "insufficient funds for gas"),
        ({"code": -32601, "message": "no such method"}, "chain_failed", "no such method (-32601)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_fault_of_the_call_is_final(
    serve: Serve, connect: Any, fault: dict[str, Any], code: str, detail: str
) -> None:
    """No other endpoint is asked, and the fault has a code of ours."""
    first, second = await serve({"error": fault}), await serve(OK)
    with pytest.raises(RpcError) as raised:
        await connect(first, second).request("eth_call")
    translated = translate(raised.value)
    assert isinstance(translated, ChainFault)
    assert (translated.code, len(first.calls), len(second.calls)) == (code, 1, 0)
    assert translated.detail.endswith(detail)


async def test_nobody_left_is_named_with_each_reason(serve: Serve, connect: Any) -> None:
    """`chain_unreachable` lists what every endpoint said, without the path, which may hold somebody's key."""
    node = await serve(503)
    rpc = connect(NOBODY + "/v3/secret-key", node)
    with pytest.raises(ChainFault) as refused:
        await rpc.request("eth_blockNumber")
    assert refused.value.code == "chain_unreachable"
    assert "127.0.0.1:1:" in refused.value.detail
    assert "HTTP 503" in refused.value.detail
    assert "secret" not in str(refused.value) + repr(rpc)


async def test_everywhere_asks_all_and_drops_the_silent(serve: Serve, connect: Any) -> None:
    """For the question whether anybody knows a transaction."""
    nodes = [await serve(answer) for answer in ({"result": None}, 500, {"result": "0x2"})]
    assert await connect(*nodes, NOBODY).everywhere("eth_getTransactionReceipt") == [None, "0x2"]


async def test_an_empty_list_is_a_configuration_fault() -> None:
    """Before anything is asked."""
    with pytest.raises(LocalFault, match="rpc_urls"):
        JsonRpc([], ManualClock())


async def test_a_silent_endpoint_does_not_hold_the_call(serve: Serve, connect: Any) -> None:
    """One that accepts the connection and says nothing is given up after the timeout."""
    second = await serve(OK)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        rpc = JsonRpc([f"http://127.0.0.1:{silent.getsockname()[1]}", second.url], FastClock(), timeout=0.05)
        assert await rpc.request("eth_blockNumber") == "0x1"
        await rpc.close()
