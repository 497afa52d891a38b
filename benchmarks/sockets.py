"""Claim: a host's WebSocket costs little more than the server below it: 1,000 sessions of ten tokens a second, CPU per token against bare
uvicorn and against picows, without and with compression; and 9,500 idle connections, none of which fails.

CPU is of the server's process alone, by its own account, so that other work on the machine does not count; each server is a process, and
they take turns. Connections are made by hand and read nothing but bytes. The ratio is against bare uvicorn without compression (aims: 1.25
without, 1.6 with). Handshakes are 64 at a time. Memory is the growth of the proportional set size. What a whole session costs beyond its
socket (records, receipts, vouchers, journal) is measured by `market_path`.

    python benchmarks/sockets.py [--quick] [--json]
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from common import main

HERE: Final = Path(__file__).parent
AT_ONCE: Final = 64
DEFLATE: Final = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
HELLO: Final = '{{"type":"ping","id":{}}}'
PACED: Final = {
    "ours": ("ours", "", 0),
    "ours_deflate": ("ours", DEFLATE, 0),
    "uvicorn": ("uvicorn", "", 0),
    "uvicorn_deflate": ("uvicorn-deflate", DEFLATE, 0),
    "picows": ("picows", "", 0),
    "ours_alternatives": ("ours", "", 5),
    "ours_alternatives_deflate": ("ours", DEFLATE, 5),
}
"""Label -> server, offer, and how many alternatives each record commits to; a host's default is 5, which are numbers that do not shrink."""


class Server:
    """One of `socket_servers`, in a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.port = 0

    async def said(self, question: bytes = b"") -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if question:
            self._process.stdin.write(question)
            await self._process.stdin.drain()
        line: dict[str, Any] = json.loads(await asyncio.wait_for(self._process.stdout.readline(), 60))
        return line

    def memory(self) -> int:
        """Proportional set size, KiB."""
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text("utf-8")
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


@contextlib.asynccontextmanager
async def server(name: str) -> AsyncIterator[Server]:
    """A server until it is done with."""
    program = HERE / ("socket_host.py" if name in ("ours", "idle") else "socket_peers.py")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), name, stdin=pipe, stdout=pipe)
    one = Server(process)
    try:
        one.port = (await one.said())["port"]
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Client(asyncio.Protocol):
    """One WebSocket: its handshake, and a count of what came after."""

    def __init__(self, port: int, extra: str) -> None:
        self._hello = (
            f"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
        ).encode()
        self._head = b""
        self.open: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.bytes = 0
        self.lost = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """The answer, then frames; a ping of the server is answered."""
        if self.open.done():
            self.bytes += len(data)
            if data[0] == 0x89:
                self.transport.write(frame(data[2 : 2 + (data[1] & 0x7F)], 0x8A))
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self.open.set_result(self._head.startswith(b"HTTP/1.1 101"))

    def connection_lost(self, exc: Exception | None) -> None:
        """It should not be."""
        self.lost = True
        if not self.open.done():
            self.open.set_result(False)


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """A short masked frame; a mask of zeros is one, too."""
    return bytes((first, 0x80 | len(payload))) + bytes(4) + payload


async def connect(port: int, count: int, extra: str) -> tuple[list[Client], list[float]]:
    """`count` connections, and the seconds that each handshake took."""
    loop, gate, clients, times = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE), [], []

    async def one() -> None:
        async with gate:
            began = time.perf_counter()
            client = Client(port, extra)
            try:
                await loop.create_connection(lambda: client, "127.0.0.1", port)
                await asyncio.wait_for(client.open, 30)
            except (OSError, TimeoutError):
                client.lost = True
            times.append(time.perf_counter() - began)
            clients.append(client)

    await asyncio.gather(*(one() for _ in range(count)))
    return clients, times


def close(clients: list[Client]) -> None:
    """All of them."""
    for client in clients:
        if hasattr(client, "transport"):
            client.transport.abort()


async def idle(count: int, extra: str, seconds: float) -> dict[str, float]:
    """So many connections that say nothing, for a moment longer than a ping where that is 11 seconds."""
    async with server("idle") as one:
        before = one.memory()
        clients, times = await connect(one.port, count, extra)
        await asyncio.sleep(seconds)
        failed = sum(client.lost or not client.open.done() or not client.open.result() for client in clients)
        grown = one.memory() - before
        close(clients)
    times.sort()
    return {
        "connections": count,
        "failures": failed,
        "handshake_p50_ms": round(1e3 * times[len(times) // 2], 2),
        "handshake_p99_ms": round(1e3 * times[int(len(times) * 0.99)], 2),
        "kib_per_connection": round(grown / count, 1),
    }


async def streamed(
    one: Server, extra: str, alternatives: int, sessions: int, seconds: float
) -> tuple[float, float, int]:
    """CPU microseconds and bytes on the wire for each token, and how many tokens."""
    clients, _ = await connect(one.port, sessions, extra)
    for client in clients:
        client.transport.write(frame(HELLO.format(alternatives).encode()))
    await asyncio.sleep(1.0)
    before, bytes_before = await one.said(b"?\n"), sum(client.bytes for client in clients)
    await asyncio.sleep(seconds)
    after, bytes_after = await one.said(b"?\n"), sum(client.bytes for client in clients)
    lost = sum(client.lost for client in clients)
    close(clients)
    if lost:
        raise RuntimeError(f"{lost} of {sessions} connections were lost")
    chunks = after["chunks"] - before["chunks"]
    await asyncio.sleep(0.5)  # for the next one to have the machine
    return 1e6 * (after["cpu_s"] - before["cpu_s"]) / chunks, (bytes_after - bytes_before) / chunks, chunks


async def rounds(number: int, sessions: int, seconds: float) -> tuple[dict[str, float], dict[str, float], int]:
    """Each server in its turn: medians of CPU and of bytes for each token, and how many tokens."""
    cpu: dict[str, list[float]] = {label: [] for label in PACED}
    wire: dict[str, list[float]] = {label: [] for label in PACED}
    tokens = 0
    async with contextlib.AsyncExitStack() as stack:
        names = sorted({name for name, _, _ in PACED.values()})
        running = dict(
            zip(names, await asyncio.gather(*(stack.enter_async_context(server(name)) for name in names)), strict=True)
        )
        for _ in range(number):
            for label, (name, extra, alternatives) in PACED.items():
                cost, size, sent = await streamed(running[name], extra, alternatives, sessions, seconds)
                cpu[label].append(cost)
                wire[label].append(size)
                tokens += sent
    return (
        {label: statistics.median(values) for label, values in cpu.items()},
        {label: statistics.median(values) for label, values in wire.items()},
        tokens,
    )


async def compare(quick: bool) -> dict[str, Any]:
    """Everything, in turns."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sessions = 300 if quick else 1_000
    count = 500 if quick else min(9_500, hard - 500)
    costs, sizes, tokens = await rounds(1 if quick else 3, sessions, 1.5 if quick else 8.0)
    plain, packed = await idle(count, "", 1.0 if quick else 11.0), await idle(count, DEFLATE, 1.0 if quick else 11.0)
    return {
        "claim": "CPU of the server for each token of 1,000 sessions of ten tokens a second, against bare uvicorn (aim 1.25)",
        "ours": round(costs["ours"], 2),
        "peer": round(costs["uvicorn"], 2),
        "ratio": round(costs["ours"] / costs["uvicorn"], 3),
        "unit": "us CPU per token",
        "n": tokens,
        "ratio_with_compression": round(costs["ours_deflate"] / costs["uvicorn"], 3),
        "ratio_to_picows": round(costs["ours"] / costs["picows"], 3),
        **{f"{label}_us_per_token": round(cost, 2) for label, cost in costs.items()},
        **{f"{label}_bytes_per_token": round(size, 1) for label, size in sizes.items()},
        "bytes_saved": round(1 - sizes["ours_deflate"] / sizes["ours"], 3),
        "bytes_saved_with_alternatives": round(1 - sizes["ours_alternatives_deflate"] / sizes["ours_alternatives"], 3),
        "sessions": sessions,
        **{f"idle_{name}": value for name, value in plain.items()},
        **{f"idle_deflate_{name}": value for name, value in packed.items()},
    }


if __name__ == "__main__":
    main(lambda quick: uvloop.run(compare(quick)), (__doc__ or "").partition("\n")[0])
