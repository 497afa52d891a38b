"""Claim: the whole paid path (WebSocket, metering, receipts, vouchers, journal) keeps the engine's throughput. The peer is the
same engine driven directly through the same adapter.

Two models. A random llama of 31 million parameters makes some hundred tokens a second on one core: slow enough to be like a
host's model, so the claim is about it. The tiny chat model makes thousands, a hundred times what a person reads: its figures
(`tiny_*`) are the worst case, where Python's work cannot hide behind the engine's. The engine has one thread; both ways take
turns, medians over rounds. CPU is of 8 sessions and of Python alone: the host's process, the renter's, both (`cpu_ms_per_token`),
and what the adapter costs whoever drives the engine directly.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from answers import Round, cpu_of, first_ms, rate_of
from common import main
from random_model import write_random_model

from fabstir.bootstrap.devnet import devnet
from fabstir.bootstrap.renter import renter_market
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import DEV_KEYS
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places
from fabstir.domain.money import BaseUnits
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.ops import logging
from fabstir.ops.config import LogSection
from fabstir.ops.settings import from_tree
from fabstir.ports.engine import ChatMessage, GenerationEnd, GenerationRequest
from fabstir.protocol.signing import SigningKey
from fabstir.renter.market import Market
from fabstir.renter.session import Session

QUESTION = "Write about bees."
SESSIONS = 8


async def _direct(engine: LlamaEngine, count: int, tokens: int) -> Round:
    """`count` answers at the same time, straight from the adapter."""
    request = GenerationRequest(messages=(ChatMessage("user", QUESTION),), max_tokens=tokens, temperature=0.0)
    found = Round()

    async def one() -> None:
        asked, first = time.perf_counter(), True
        async for item in engine.generate(request):
            if isinstance(item, GenerationEnd):
                found.tokens += item.completion_tokens
            elif first:
                found.first.append(time.perf_counter() - asked)
                first = False

    return await found.made(asyncio.gather(*(one() for _ in range(count))))


async def _paid(sessions: list[Session], tokens: int) -> Round:
    """One answer in each session, all at the same time, through the market."""
    found = Round()

    async def one(session: Session) -> None:
        await session.rebase(())
        asked, first = time.perf_counter(), True
        async for _ in session.prompt(QUESTION, max_tokens=tokens, temperature=0.0):
            if first:
                found.first.append(time.perf_counter() - asked)
                first = False
        found.tokens += session.last.completion_tokens if session.last else 0

    return await found.made(asyncio.gather(*(one(session) for session in sessions)))


async def _measure(model: Path | None, rounds: int, tokens: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="fabstir-bench-") as root:
        engine_section = {"model": str(model), "repository": "benchmark/random"} if model else {}
        config = from_tree({"engine": engine_section})
        async with devnet(config, book=Path(root) / "addresses.json") as net:
            places = Places(Path(root), net.url, net.info)
            renter = places.renter(DEV_KEYS[5])
            await net.fund(SigningKey(DEV_KEYS[5]).address, BaseUnits(10**10))
            await net.fund(SigningKey(DEV_KEYS[1]).address, MINIMUM_STAKE)
            host = HostProcess("a", places.host("a", DEV_KEYS[1], parallel=SESSIONS, engine=engine_section))
            await host.start()
            engine = LlamaEngine(model or default_model(), threads=1, parallel=SESSIONS, top_logprobs=5)
            await engine.start()
            try:
                async with renter_market(renter) as market:
                    return await _rounds(market, engine, host, rounds, tokens)
            finally:
                await engine.stop()
                await host.stop()


async def _rounds(market: Market, engine: LlamaEngine, host: HostProcess, rounds: int, tokens: int) -> Figures:
    for _ in range(100):
        if any(one.offer for one in await market.hosts(refresh=True)):
            break
        await asyncio.sleep(0.1)
    name = (await market.models())[0].name
    sessions = [await market.start_session(name, budget=100_000_000) for _ in range(SESSIONS)]
    for session in sessions:
        await session.connect()
    await _direct(engine, SESSIONS, tokens)
    await _paid(sessions, tokens)
    found, ours = Figures(), os.getpid()
    for _ in range(rounds):
        found.one_direct.append(await _direct(engine, 1, tokens))
        found.one_paid.append(await _paid(sessions[:1], tokens))
        began = cpu_of(ours)
        found.all_direct.append(await _direct(engine, SESSIONS, tokens))
        found.adapter_cpu += cpu_of(ours) - began
        began_host, began = cpu_of(host.pid), cpu_of(ours)
        found.all_paid.append(await _paid(sessions, tokens))
        found.host_cpu += cpu_of(host.pid) - began_host
        found.renter_cpu += cpu_of(ours) - began
    for session in sessions:
        await session.close()
    return found


class Figures:
    """Rounds of both ways, one session and all."""

    def __init__(self) -> None:
        self.one_direct: list[Round] = []
        self.one_paid: list[Round] = []
        self.all_direct: list[Round] = []
        self.all_paid: list[Round] = []
        self.adapter_cpu = 0.0
        """CPU seconds of all rounds with all sessions: of the adapter alone, of the host's process, of the renter's."""
        self.host_cpu = 0.0
        self.renter_cpu = 0.0

    def named(self, prefix: str) -> dict[str, float]:
        """Medians, each with its unit in its name."""
        return {
            f"{prefix}ratio_1_session": round(rate_of(self.one_paid) / rate_of(self.one_direct), 3),
            f"{prefix}ratio_8_sessions": round(rate_of(self.all_paid) / rate_of(self.all_direct), 3),
            f"{prefix}ours_1_session_tokens_per_s": round(rate_of(self.one_paid), 1),
            f"{prefix}peer_1_session_tokens_per_s": round(rate_of(self.one_direct), 1),
            f"{prefix}ours_8_sessions_tokens_per_s": round(rate_of(self.all_paid), 1),
            f"{prefix}peer_8_sessions_tokens_per_s": round(rate_of(self.all_direct), 1),
            f"{prefix}added_ttft_1_session_ms": round(first_ms(self.one_paid) - first_ms(self.one_direct), 2),
            f"{prefix}added_ttft_8_sessions_ms": round(first_ms(self.all_paid) - first_ms(self.all_direct), 2),
            f"{prefix}host_cpu_ms_per_token": _per_token(self.host_cpu, self.all_paid),
            f"{prefix}renter_cpu_ms_per_token": _per_token(self.renter_cpu, self.all_paid),
            f"{prefix}cpu_ms_per_token": _per_token(self.host_cpu + self.renter_cpu, self.all_paid),
            f"{prefix}adapter_cpu_ms_per_token": _per_token(self.adapter_cpu, self.all_direct),
        }


def _per_token(seconds: float, rounds: list[Round]) -> float:
    return round(1000 * seconds / sum(each.tokens for each in rounds), 3)


def measure(quick: bool) -> dict[str, Any]:
    """Medians over rounds that take turns."""
    logging.configure(LogSection(level="error"))
    with tempfile.TemporaryDirectory(prefix="fabstir-model-") as directory:
        model = Path(directory) / "random.gguf"
        parameters = write_random_model(model)
        real = uvloop.run(_measure(model, 2 if quick else 7, 100 if quick else 150))
    tiny = uvloop.run(_measure(None, 5 if quick else 25, 200))
    return {
        "claim": "tokens per second through the whole paid path, 8 sessions, against the engine driven directly",
        "ours": round(rate_of(real.all_paid), 1),
        "peer": round(rate_of(real.all_direct), 1),
        "ratio": round(rate_of(real.all_paid) / rate_of(real.all_direct), 3),
        "unit": "tokens/s",
        "n": len(real.all_paid),
        "model_parameters": parameters,
        **real.named(""),
        **tiny.named("tiny_"),
    }


if __name__ == "__main__":
    main(measure, __doc__ or "")
