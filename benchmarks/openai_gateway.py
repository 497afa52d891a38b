"""Claim: chat completions through the whole market (gateway, encrypted session over a WebSocket, host, metering, receipts, vouchers,
journal, llama.cpp's child) are as fast as those of llama.cpp's own server with the same model.

Both answer `POST /v1/chat/completions` as a stream to the same clients, at 1, 8 and 32 at a time, in turns; medians over rounds. The
peer is asked over a UNIX socket, the gateway over TCP. Model: a random llama of 31 million parameters (`random_model`), one thread;
some hundred tokens a second of one answer, as on a host's GPU. Gateway and host are processes of their own, as they are run; their
CPU for each token is told, and that of both engines. Where cores are short or others use them, `ratio` says how they are shared; then
`engine_ratio` (the engines' CPU for each token, the peer's by ours) is what is left where the engine has a core or a GPU of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import uvloop
from answers import Round, cpu_of, first_ms, rate_of
from common import main
from random_model import write_random_model

from fabstir.bootstrap.devnet import devnet
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import DEV_KEYS
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places
from fabstir.domain.money import BaseUnits
from fabstir.engines.child import ChildProcess
from fabstir.engines.llama_worker import KEY_VARIABLE, WorkerSettings
from fabstir.engines.server_session import ServerSession
from fabstir.ops import logging
from fabstir.ops.config import LogSection
from fabstir.ops.settings import from_tree
from fabstir.protocol.signing import SigningKey

CLIENTS = (1, 8, 32)
SLOTS = max(CLIENTS)
CONTEXT = 512
PEER_KEY = "bench"
PROCESSES = ("gateway", "host", "engine", "peer")
RENTER = 5
"""Index of the development key that pays."""
_usage = msgspec.json.Decoder(dict[str, Any])


class Server:
    """One of the two that are asked."""

    def __init__(self, session: aiohttp.ClientSession, base: str, model: str) -> None:
        self._session = session
        self._url = f"{base}/v1/chat/completions"
        self._model = model

    async def round(self, count: int, tokens: int) -> Round:
        """`count` answers of `tokens` tokens at the same time."""
        found = Round()
        return await found.made(asyncio.gather(*(self._ask(found, client, tokens) for client in range(count))))

    async def _ask(self, found: Round, client: int, tokens: int) -> None:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"Write about bees, chapter {client}."}],
            "max_tokens": tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        asked, first, last = time.perf_counter(), True, b""
        async with self._session.post(self._url, json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {(await answer.text())[:200]}")
            async for data in answer.content.iter_any():
                last = (last + data)[-4096:]
                if first and b'"content":"' in last.replace(b'"content":""', b""):
                    found.first.append(time.perf_counter() - asked)
                    first = False
        event = next(one for one in reversed(last.split(b"\n\n")) if b'"usage":{' in one)
        found.tokens += _usage.decode(event.removeprefix(b"data: "))["usage"]["completion_tokens"]


class Figures:
    """Rounds of both, for each number of clients; CPU seconds of the two Python processes at most clients."""

    def __init__(self) -> None:
        self.ours: dict[int, list[Round]] = {count: [] for count in CLIENTS}
        self.peer: dict[int, list[Round]] = {count: [] for count in CLIENTS}
        self.cpu: dict[tuple[str, int], float] = {(name, count): 0.0 for name in PROCESSES for count in CLIENTS}


@asynccontextmanager
async def _peer(model: Path, directory: Path) -> AsyncIterator[Server]:
    """llama.cpp's own server, with the same options as the host's child."""
    settings = WorkerSettings(
        parent=os.getpid(), model=str(model), socket=str(directory / "peer.sock"),
        context_size=CONTEXT, parallel=SLOTS, threads=1, gpu_layers=0,
    )  # fmt: skip
    command = [sys.executable, "-m", "fabstir.engines.llama_worker", msgspec.json.encode(settings).decode()]
    server = ServerSession("http://engine", PEER_KEY, settings.socket)
    child = ChildProcess(command, {**os.environ, KEY_VARIABLE: PEER_KEY}, server.answers, load_seconds=60)
    await child.start()
    headers, timeout = {"authorization": f"Bearer {PEER_KEY}"}, aiohttp.ClientTimeout(total=300)
    connector = aiohttp.UnixConnector(settings.socket, limit=SLOTS)
    try:
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            yield Server(session, "http://engine", "random")
    finally:
        await child.stop()
        await server.close()


@asynccontextmanager
async def _gateway(places: Places, directory: Path) -> AsyncIterator[tuple[Server, int]]:
    """`fabstir gateway`, and its process id."""
    renter = places.renter(DEV_KEYS[RENTER])
    tree = {
        "chain": msgspec.to_builtins(renter.chain),
        "renter": {
            "data_dir": str(renter.renter.data_dir), "key_file": str(renter.renter.key_file),
            "budget": 9 * 10**9, "gateway_port": 0, "gateway_parallel": SLOTS,
        },
    }  # fmt: skip
    file = directory / "renter.toml"
    file.write_text("".join(_section(name, values) for name, values in tree.items()))
    command = (sys.executable, "-m", "fabstir", "gateway", "--config", str(file), "--json")
    with (directory / "gateway.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    try:
        base = msgspec.json.decode(await process.stdout.readline())["base_url"].removesuffix("/v1")
        connector, timeout = aiohttp.TCPConnector(limit=SLOTS), aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Server(session, base, await _model_of(session, base)), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _model_of(session: aiohttp.ClientSession, base: str) -> str:
    """The one model of the market, once its host has registered."""
    for _ in range(300):
        async with session.get(f"{base}/v1/models") as answer:
            models = (await answer.json()).get("data", [])
        if models:
            return str(models[0]["id"])
        await asyncio.sleep(0.1)
    raise RuntimeError("no host has registered")


def _section(name: str, values: dict[str, Any]) -> str:
    """What JSON writes for texts, numbers and lists is TOML."""
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items() if value is not None]
    return "\n".join([f"[{name}]", *lines, ""])


def _engine_of(process: int) -> int:
    """The engine that `process` supervises."""
    children = psutil.Process(process).children()
    return next(child.pid for child in children if "random.gguf" in child.cmdline()[-1])


async def _round(server: Server, count: int, tokens: int, found: Figures, pids: dict[str, int]) -> Round:
    """One round, with what it cost each of these processes."""
    began = {name: cpu_of(pid) for name, pid in pids.items()}
    answered = await server.round(count, tokens)
    for name, pid in pids.items():
        found.cpu[name, count] += cpu_of(pid) - began[name]
    return answered


async def _rounds(ours: Server, peer: Server, pids: dict[str, int], rounds: int, tokens: int) -> Figures:
    found, peers = Figures(), {"peer": pids.pop("peer")}
    for count in CLIENTS[::-1]:  # the most first: every session stands afterwards
        await ours.round(count, 8)
        await peer.round(count, 8)
    for _ in range(rounds):
        for count in CLIENTS:
            found.ours[count].append(await _round(ours, count, tokens, found, pids))
            found.peer[count].append(await _round(peer, count, tokens, found, peers))
    return found


async def _measure(model: Path, rounds: int, tokens: int) -> Figures:
    engine = {"model": str(model), "repository": "benchmark/random", "context_size": CONTEXT}
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fabstir-bench-")))
        net = await stack.enter_async_context(devnet(from_tree({"engine": engine}), book=root / "addresses.json"))
        places = Places(root, net.url, net.info)
        await net.fund(SigningKey(DEV_KEYS[RENTER]).address, BaseUnits(10**10))
        await net.fund(SigningKey(DEV_KEYS[1]).address, MINIMUM_STAKE)
        os.environ["FABSTIR_HOST_SETTLE_INTERVAL_S"] = "30"  # as hosts have it; the demo looks each second
        # all clients are one renter, who may have half of these places by default; the peer gives all of them
        os.environ["FABSTIR_HOST_RENTER_MAX_RUNNING"] = str(SLOTS)
        host = HostProcess("a", places.host("a", DEV_KEYS[1], parallel=SLOTS, engine=engine))
        stack.push_async_callback(host.stop)
        await host.start()
        peer = await stack.enter_async_context(_peer(model, root))
        ours, gateway = await stack.enter_async_context(_gateway(places, root))
        pids = {"gateway": gateway, "host": host.pid, "engine": _engine_of(host.pid), "peer": _engine_of(os.getpid())}
        return await _rounds(ours, peer, pids, rounds, tokens)


def _ratio(ours: list[Round], peer: list[Round]) -> float:
    """Of rounds that followed each other."""
    return round(statistics.median(a.rate / b.rate for a, b in zip(ours, peer, strict=True)), 3)


def _per_token(seconds: float, rounds: list[Round]) -> float:
    return round(1e6 * seconds / sum(each.tokens for each in rounds), 1)


def measure(quick: bool) -> dict[str, Any]:
    """Medians over rounds that take turns."""
    logging.configure(LogSection(level="error"))
    with tempfile.TemporaryDirectory(prefix="fabstir-model-") as directory:
        model = Path(directory) / "random.gguf"
        parameters = write_random_model(model)
        found = uvloop.run(_measure(model, 2 if quick else 9, 32 if quick else 96))
    figures: dict[str, Any] = {}
    for count in CLIENTS:
        ours, peer = found.ours[count], found.peer[count]
        engine, theirs = found.cpu["engine", count], found.cpu["peer", count]
        figures |= {
            f"ratio_{count}_clients": _ratio(ours, peer),
            f"engine_ratio_{count}_clients": round(_per_token(theirs, peer) / _per_token(engine, ours), 3),
            f"ours_{count}_clients_tokens_per_s": round(rate_of(ours), 1),
            f"peer_{count}_clients_tokens_per_s": round(rate_of(peer), 1),
            f"added_ttft_{count}_clients_ms": round(first_ms(ours) - first_ms(peer), 1),
            f"gateway_cpu_{count}_clients_us_per_token": _per_token(found.cpu["gateway", count], ours),
            f"host_cpu_{count}_clients_us_per_token": _per_token(found.cpu["host", count], ours),
            f"engine_cpu_{count}_clients_us_per_token": _per_token(engine, ours),
        }
    return {
        "claim": "tokens per second of streamed chat completions through the gateway, 8 clients, against llama.cpp's own server",
        "ours": figures["ours_8_clients_tokens_per_s"],
        "peer": figures["peer_8_clients_tokens_per_s"],
        "ratio": figures["ratio_8_clients"],
        "unit": "tokens/s",
        "n": len(found.ours[8]),
        "model_parameters": parameters,
        **figures,
    }


if __name__ == "__main__":
    main(measure, __doc__ or "")
