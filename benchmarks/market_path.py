"""Claim: the whole paid path (WebSocket, metering, receipts, vouchers, journal) keeps the engine's throughput. The peer is the same engine driven
directly through the same adapter.

Both drive the same model with one thread on the same machine, in turn, several rounds. The tiny chat model makes some 2,000 tokens a second on one CPU
core, a hundred times what a person reads: CPU time for each token is the figure that carries over to other models, the ratio is the worst case.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import main
from fabstir.bootstrap.devnet import devnet
from fabstir.bootstrap.renter import renter_market
from fabstir.chain.devnet import DEV_KEYS
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.ops import logging
from fabstir.ops.config import Config, LogSection
from fabstir.ports.engine import ChatMessage, GenerationEnd, GenerationRequest
from fabstir.protocol.signing import SigningKey
from fabstir.renter.session import Session

QUESTION = "Write about bees."
TOKENS = 200
SESSIONS = 8


class Round:
    """What one round of answers came to."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.tokens = 0
        self.seconds = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second, all sessions together."""
        return self.tokens / self.seconds


async def _direct(engine: LlamaEngine, count: int) -> Round:
    """`count` answers at the same time, straight from the adapter."""
    request = GenerationRequest(messages=(ChatMessage("user", QUESTION),), max_tokens=TOKENS, temperature=0.0)
    found, began = Round(), time.perf_counter()

    async def one() -> None:
        asked, first = time.perf_counter(), True
        async for item in engine.generate(request):
            if isinstance(item, GenerationEnd):
                found.tokens += item.completion_tokens
            elif first:
                found.first.append(time.perf_counter() - asked)
                first = False

    await asyncio.gather(*(one() for _ in range(count)))
    found.seconds = time.perf_counter() - began
    return found


async def _paid(sessions: list[Session]) -> Round:
    """One answer in each session, all at the same time, through the market."""
    found, began = Round(), time.perf_counter()

    async def one(session: Session) -> None:
        await session.rebase(())
        asked, first = time.perf_counter(), True
        async for _ in session.prompt(QUESTION, max_tokens=TOKENS, temperature=0.0):
            if first:
                found.first.append(time.perf_counter() - asked)
                first = False
        found.tokens += session.last.completion_tokens if session.last else 0

    await asyncio.gather(*(one(session) for session in sessions))
    found.seconds = time.perf_counter() - began
    return found


def _python_cpu(host: int) -> float:
    """CPU seconds so far of the host's own process (without engine and prover) and of ours."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in (host, psutil.Process().pid))


async def _measure(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fabstir-bench-") as root:
        async with devnet(Config(), book=Path(root) / "addresses.json") as net:
            places = Places(Path(root), net.url, net.info)
            renter = places.renter(DEV_KEYS[5])
            await net.fund(SigningKey(DEV_KEYS[5]).address)
            host = HostProcess("a", places.host("a", DEV_KEYS[1], parallel=SESSIONS))
            await host.start()
            engine = LlamaEngine(default_model(), threads=1, parallel=SESSIONS, top_logprobs=5)
            await engine.start()
            try:
                async with renter_market(renter) as market:
                    return await _rounds(market, engine, host, rounds)
            finally:
                await engine.stop()
                await host.stop()


async def _rounds(market: Any, engine: LlamaEngine, host: HostProcess, rounds: int) -> dict[str, Any]:
    while not [one for one in await market.hosts(refresh=True) if one.offer]:
        await asyncio.sleep(0.1)
    sessions = [await market.start_session("tiny-chat", budget=10_000_000) for _ in range(SESSIONS)]
    for session in sessions:
        await session.connect()
    await _direct(engine, SESSIONS)
    await _paid(sessions)
    one_direct, one_paid, all_direct, all_paid, cpu = [], [], [], [], []
    for _ in range(rounds):
        one_direct.append(await _direct(engine, 1))
        one_paid.append(await _paid(sessions[:1]))
        all_direct.append(await _direct(engine, SESSIONS))
        before = _python_cpu(host.pid)
        all_paid.append(await _paid(sessions))
        cpu.append((_python_cpu(host.pid) - before) / all_paid[-1].tokens)
    for session in sessions:
        await session.close()
    return _result(one_direct, one_paid, all_direct, all_paid, cpu)


def _result(
    one_direct: list[Round], one_paid: list[Round], all_direct: list[Round], all_paid: list[Round], cpu: list[float]
) -> dict[str, Any]:
    def rate(rounds: list[Round]) -> float:
        return statistics.median(each.rate for each in rounds)

    def first(rounds: list[Round]) -> float:
        return 1000 * statistics.median(value for each in rounds for value in each.first)

    return {
        "claim": "tokens per second through the whole paid path, 8 sessions, against the engine driven directly",
        "ours": round(rate(all_paid), 1),
        "peer": round(rate(all_direct), 1),
        "ratio": round(rate(all_paid) / rate(all_direct), 3),
        "unit": "tokens/s",
        "n": len(all_paid),
        "ratio_1_session": round(rate(one_paid) / rate(one_direct), 3),
        "ours_1_session_tokens_per_s": round(rate(one_paid), 1),
        "peer_1_session_tokens_per_s": round(rate(one_direct), 1),
        "added_ttft_1_session_ms": round(first(one_paid) - first(one_direct), 2),
        "added_ttft_8_sessions_ms": round(first(all_paid) - first(all_direct), 2),
        "cpu_ms_per_token_host_and_renter": round(1000 * statistics.median(cpu), 3),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Medians over rounds that take turns."""
    logging.configure(LogSection(level="error"))
    import uvloop

    return uvloop.run(_measure(5 if quick else 25))


if __name__ == "__main__":
    main(measure, __doc__ or "")
