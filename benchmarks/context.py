"""What a context costs: planning it for a conversation of 1,000 turns, keeping it in memory, and the first token of the tenth turn.

    python benchmarks/context.py [--json] [--quick]

- `ours` is the 99th percentile of everything that a host decides for a prompt in a session of 1,000 turns: plan, what the engine is given,
  and the hash that binds both; counted before, once each. `peer` is what a host that keeps no counts does first: have the engine count
  every message of the conversation again, in this run, on the same machine, in one request.
- Memory is that of a session's core with a conversation of 20 turns, beyond its text, at work and at rest (`tracemalloc`); sockets and
  tasks are not in it.
- The first token is measured on llama.cpp with a random model, one session in its slot: turn 1 and turn 10 have questions of the same
  length, and turn 10 has nine turns before it, of which it computes nothing but attends to all. That part is the smaller the larger the
  model is: in CPU, turn 10 cost 1.6 times turn 1 with 31 M parameters and 1.3 times with 242 M, for as many tokens. Medians; the load of
  other programs shows in those of the clock.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from common import main
from random_model import write_random_model

from fabstir.domain.ids import Hash32
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.ports.engine import ChatMessage, GenerationEnd, GenerationRequest
from fabstir.protocol.context.brought import ContextLimits
from fabstir.protocol.context.history import History, Weight
from fabstir.protocol.context.plan import ContextRequest
from fabstir.protocol.context.planner import Frame
from fabstir.protocol.context.preparing import Preparation, bound_request
from fabstir.protocol.context.resting import PackedHistory
from fabstir.protocol.messages import Prompt

TURNS, LATE = 1_000, 10
WORDS = [
    "the",
    "red",
    "boat",
    "went",
    "down",
    "the",
    "river",
    "and",
    "the",
    "fox",
    "told",
    "a",
    "story",
    "about",
    "a",
    "house",
    "on",
    "the",
    "hill",
    "that",
    "nobody",
    "had",
    "seen",
]
SMALL = {"dim": 512, "layers": 10, "ff": 1536}
LARGE = {"dim": 1280, "layers": 14, "heads": 20, "ff": 3456}
SALT = Hash32(b"s" * 32)


def said(number: int, words: int) -> str:
    """Text that differs from message to message."""
    return f"{number} " + " ".join(WORDS[(number * 7 + at) % len(WORDS)] for at in range(words))


def talk(turns: int, words: int = 30) -> tuple[ChatMessage, ...]:
    return tuple(
        ChatMessage(role, said(2 * turn + at, words))
        for turn in range(turns)
        for at, role in enumerate(("user", "assistant"))
    )


def planning(rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU for one prompt. Not of the wall's clock, on which others of a shared machine have their part."""
    history = History.of(talk(TURNS)).counted([Weight(40)] * (2 * TURNS))
    found: dict[str, list[float]] = {"truncate": [], "retrieve": []}
    for strategy, times in found.items():
        for index in range(rounds):
            prompt = Prompt(
                session_id="bench",
                message_index=index,
                content=said(index, 30),
                context=ContextRequest(strategy=strategy, wanted=tuple(range(0, 640, 10))),  # type: ignore[arg-type]
            )
            began = time.thread_time()
            preparation = Preparation(index, prompt, history, ContextLimits())
            prepared = preparation.plan((Weight(40),) * len(preparation.texts), Frame(4, 7), 8192)
            bound_request(SALT, prepared.seen, prompt, prepared.plan)
            times.append((time.thread_time() - began) * 1e3)
    return {
        name: {"p50": statistics.median(times), "p99": sorted(times)[int(len(times) * 0.99)]}
        for name, times in found.items()
    }


async def recounting(rounds: int) -> float:
    """Milliseconds of the median: the engine counts every message again."""
    engine = LlamaEngine(default_model(), parallel=1, threads=1)
    await engine.start()
    texts = tuple(message.content for message in talk(TURNS))
    times = []
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            await engine.weigh(texts)
            times.append((time.perf_counter() - began) * 1e3)
    finally:
        await engine.stop()
    return statistics.median(times)


def memory(sessions: int) -> dict[str, float]:
    """KB for each session beyond the bytes of its text, at work and at rest."""
    text = sum(len(message.content) for message in talk(20))

    def taken(make: Any) -> float:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept = [make(number) for number in range(sessions)]
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(kept) == sessions
        return (after - before) / sessions / 1024 - text / 1024

    def at_work(number: int) -> History:
        context = tuple(ChatMessage(message.role, f"{number} {message.content}") for message in talk(20))
        return History.of(context).counted([Weight(40)] * 40)

    return {"at_work": taken(at_work), "at_rest": taken(lambda number: PackedHistory.of(at_work(number)))}


async def first_tokens(conversations: int, folder: Path, size: dict[str, int]) -> dict[str, Any]:
    """Seconds to the first token, and tokens that were computed, of turn 1 and turn 10."""
    model = folder / "random.gguf"
    parameters = await asyncio.to_thread(partial(write_random_model, model, **size))
    engine = LlamaEngine(model, context_size=2048, parallel=2, threads=1)
    await engine.start()
    times: dict[int, list[float]] = {1: [], LATE: []}
    computed: dict[int, list[int]] = {1: [], LATE: []}
    spent: dict[int, float] = {1: 0.0, LATE: 0.0}
    server = psutil.Process(engine.child.pid)
    try:
        for number in range(conversations):
            messages: tuple[ChatMessage, ...] = ()
            for turn in range(1, LATE + 1):
                messages = (*messages, ChatMessage("user", said(1000 * number + turn, 40)))
                request = GenerationRequest(messages=messages, max_tokens=8, temperature=0.0, cache=f"c{number}")
                began, first, text, new, cpu = time.perf_counter(), None, "", 0, _cpu(server)
                async for item in engine.generate(request):
                    if first is None:
                        first, cpu = time.perf_counter() - began, _cpu(server) - cpu
                    if isinstance(item, GenerationEnd):
                        new = item.prompt_tokens - item.cached_tokens
                    else:
                        text += item.text
                if turn in times and first is not None:
                    times[turn].append(first)
                    computed[turn].append(new)
                    spent[turn] += cpu
                messages = (*messages, ChatMessage("assistant", text or "yes"))
    finally:
        await engine.stop()
    return {
        "parameters": parameters,
        "cpu": {turn: each / conversations for turn, each in spent.items()},
        "seconds": {turn: statistics.median(each) for turn, each in times.items()},
        "computed": {turn: statistics.median(each) for turn, each in computed.items()},
    }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measured(quick: bool) -> dict[str, Any]:
    rounds, conversations = (300, 3) if quick else (2_000, 4)
    plans, again = planning(rounds), await recounting(3 if quick else 9)
    kept = memory(100 if quick else 500)
    with tempfile.TemporaryDirectory() as folder:
        tokens = await first_tokens(conversations, Path(folder), SMALL if quick else LARGE)
    late, early = tokens["seconds"][LATE], tokens["seconds"][1]
    return {
        "claim": "Planning the context of a conversation of 1,000 turns (p99), against having the engine count all of it again",
        "ours": round(plans["truncate"]["p99"], 3),
        "peer": round(again, 1),
        "ratio": round(plans["truncate"]["p99"] / again, 5),
        "unit": "ms CPU per prompt",
        "n": rounds,
        "plan_p50_ms": round(plans["truncate"]["p50"], 3),
        "plan_retrieve_p50_ms": round(plans["retrieve"]["p50"], 3),
        "plan_retrieve_p99_ms": round(plans["retrieve"]["p99"], 3),
        "memory_at_work_kb": round(kept["at_work"], 2),
        "memory_at_rest_kb": round(kept["at_rest"], 2),
        "first_token_turn_1_ms": round(early * 1e3, 1),
        "first_token_turn_10_ms": round(late * 1e3, 1),
        "first_token_ratio": round(late / early, 2),
        "first_token_turn_1_cpu_ms": round(tokens["cpu"][1] * 1e3, 1),
        "first_token_turn_10_cpu_ms": round(tokens["cpu"][LATE] * 1e3, 1),
        "first_token_cpu_ratio": round(tokens["cpu"][LATE] / tokens["cpu"][1], 2),
        "computed_turn_1_tokens": tokens["computed"][1],
        "computed_turn_10_tokens": tokens["computed"][LATE],
        "conversations": conversations,
        "model_parameters_m": round(tokens["parameters"] / 1e6),
    }


def measure(quick: bool) -> dict[str, Any]:
    return asyncio.run(measured(quick))


if __name__ == "__main__":
    main(measure, (__doc__ or "").partition("\n")[0])
