"""Answers made on purpose: an engine asked many questions, eight at a time as hosts do, for a calibration or to try a
cheat."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from fabstir.engines.llama import LlamaEngine
from fabstir.engines.reexecution.examine import job
from fabstir.engines.reexecution.reexecutor import Reexecutor, prompt_ids
from fabstir.ports.engine import Engine, GenerationRequest, TokenBatch
from fabstir.protocol.audit import Answer

PARALLEL: Final = 8
"""Answers that are made together: batching is the largest honest cause of differences."""
CONTEXT: Final = 2048


async def make_answers(
    model: Path, requests: Sequence[GenerationRequest], *, threads: int | None = None, gpu_layers: int = 0
) -> list[Answer]:
    """One for each request, in order; without those that have no token. Raises as the engine."""
    engine = LlamaEngine(model, context_size=CONTEXT, parallel=PARALLEL, threads=threads, gpu_layers=gpu_layers)
    await engine.start()
    try:
        places = asyncio.Semaphore(PARALLEL)
        made = await asyncio.gather(*(_answer(engine, request, places) for request in requests))
    finally:
        await engine.stop()
    return [answer for answer in made if answer.records]


async def with_fingerprints(model: Path, answers: Sequence[Answer], *, threads: int | None = None) -> list[Answer]:
    """The same with fingerprints as a host makes them that keeps what it thought while it generated: token by token."""
    prompts = await prompt_ids(model, [(one.request.messages, one.request.prefix) for one in answers], threads=threads)
    made = []
    async with Reexecutor(model, threads=threads) as reexecutor:
        for prompt, answer in zip(prompts, answers, strict=True):
            read = await reexecutor.prefill(replace(job(prompt, answer), step=1, fingerprints=True, compare=()))
            made.append(replace(answer, fingerprints=read.fingerprints))
    return made


async def _answer(engine: Engine, request: GenerationRequest, places: asyncio.Semaphore) -> Answer:
    async with places:
        batches = [item async for item in engine.generate(request) if isinstance(item, TokenBatch)]
    records = tuple(record for batch in batches for record in batch.records)
    return Answer(request=request, records=records, text="".join(batch.text for batch in batches))
