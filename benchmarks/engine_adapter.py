"""Claim: turning llama.cpp's stream into records costs little CPU. The peer reads the same server's bytes and only counts them.

Both run in this process against one server, in turns; the figures are this process's CPU time (the server has its own).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from common import main

from fabstir.engines.child import ChildProcess
from fabstir.engines.llama_client import LlamaClient
from fabstir.engines.llama_controls import SAMPLERS, TOP_K
from fabstir.engines.llama_worker import KEY_VARIABLE, WorkerSettings
from fabstir.engines.model_file import default_model
from fabstir.engines.server_session import ServerSession
from fabstir.ports.engine import ChatMessage, GenerationRequest, TokenBatch

TOKENS = 1000
SESSIONS = 8
TOP = 4
MESSAGES = (ChatMessage("user", "Tell me a story."),)
REQUEST = GenerationRequest(messages=MESSAGES, max_tokens=TOKENS, temperature=0.8, ignore_eos=True)


async def _adapter(client: LlamaClient) -> int:
    """Records of one answer."""
    count = 0
    async for item in client.generate(REQUEST):
        count += len(item.records) if isinstance(item, TokenBatch) else 0
    return count


async def _raw(server: ServerSession, prompt: str) -> int:
    """Events of one answer, unread."""
    body = {
        "prompt": prompt, "n_predict": TOKENS, "temperature": 0.8, "ignore_eos": True, "n_probs": TOP, "stream": True,
        "samplers": SAMPLERS, "top_k": TOP_K,
    }  # fmt: skip
    count = 0
    async with server.post("/completion", body) as response:
        async for data in response.content.iter_any():
            count += data.count(b'"tokens_predicted"')
    return count


async def _cpu_us(answer: Callable[[], Awaitable[int]], sessions: int) -> float:
    """CPU microseconds of this process for each token."""
    began = time.process_time()
    counts = await asyncio.gather(*(answer() for _ in range(sessions)))
    return (time.process_time() - began) / sum(counts) * 1e6


async def _measure(rounds: int) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {"ours_1": [], "peer_1": [], "ours_8": [], "peer_8": []}
    with tempfile.TemporaryDirectory(prefix="fabstir-bench-") as directory:
        settings = WorkerSettings(
            parent=os.getpid(), model=str(default_model()), socket=str(Path(directory) / "http.sock"),
            context_size=2048, parallel=SESSIONS, threads=1, gpu_layers=0,
        )  # fmt: skip
        command = [sys.executable, "-m", "fabstir.engines.llama_worker", msgspec.json.encode(settings).decode()]
        server = ServerSession("http://engine", "bench", settings.socket)
        child = ChildProcess(command, {**os.environ, KEY_VARIABLE: "bench"}, server.answers, load_seconds=60)
        await child.start()
        try:
            client = LlamaClient(server, parallel=SESSIONS, top_logprobs=TOP)
            await client.handshake()
            prompt = await client.template(MESSAGES)
            for _ in range(rounds):
                for sessions in (1, SESSIONS):
                    figures[f"ours_{sessions}"].append(await _cpu_us(lambda: _adapter(client), sessions))
                    figures[f"peer_{sessions}"].append(await _cpu_us(lambda: _raw(server, prompt), sessions))
        finally:
            await child.stop()
            await server.close()
    return figures


def measure(quick: bool) -> dict[str, Any]:
    """Medians over rounds that take turns."""
    figures = uvloop.run(_measure(3 if quick else 11))
    medians = {name: round(statistics.median(values), 1) for name, values in figures.items()}
    return {
        "claim": "CPU for each streamed token: records, log-probabilities and text from llama.cpp's stream, against reading its bytes",
        "ours": medians["ours_8"],
        "peer": medians["peer_8"],
        "ratio": round(medians["ours_8"] / medians["peer_8"], 2),
        "unit": "us CPU/token, 8 sessions",
        "n": len(figures["ours_8"]),
        "ours_1_session_us": medians["ours_1"],
        "peer_1_session_us": medians["peer_1"],
    }


if __name__ == "__main__":
    main(measure, __doc__ or "")
