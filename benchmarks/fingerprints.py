"""Claim: fingerprints that a host makes by reading its answers once more tell its weights from coarser ones within a few hundred tokens,
at a rate of false accusations of 1 in 50,000 for this question.

Real answers of the tiny chat model, eight at a time; the fingerprints are made as `engine.fingerprints` makes them, by the right weights
and by coarser ones. Tokens: the smallest number at which 99 of 100 windows of whole answers are accused by the question `fingerprint`
alone, with the tolerance that ships. The peer is the question `probability` alone, where the coarser weights also made the claims, in the
same windows. Cost: CPU time of the reading over that of generation, on a model of 32 million random parameters.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import main
from msgspec.structs import replace
from random_model import write_random_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.engines.model_variants import Kind, write_variant

from fabstir.engines.model_file import default_model, file_sha256
from fabstir.engines.reexecution.examine import examine, job
from fabstir.engines.reexecution.prompts import calibration_request
from fabstir.engines.reexecution.reexecutor import Reexecutor, prompt_ids
from fabstir.engines.reexecution.sampling import make_answers
from fabstir.engines.reexecution.tolerances import tolerance_for
from fabstir.ports.engine import ChatMessage, GenerationRequest, TokenRecord
from fabstir.protocol.audit import Answer, AnswerEvidence, Sums, Tolerance, gates, sums
from fabstir.protocol.audit_calibration import draw

MODEL = default_model()
FRESH = 3_000_000
"""Numbers of questions from here on: seeds that nothing else here uses."""
LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)
COSTLY = 256
"""Tokens of the answer whose cost is measured."""
ROUNDS = 9


async def _marked(model: Path, answers: Sequence[Answer]) -> list[Answer]:
    """With fingerprints by these weights, 32 tokens at once as a host reads them."""
    prompts = await prompt_ids(MODEL, [(one.request.messages, one.request.prefix) for one in answers], threads=1)
    made = []
    async with Reexecutor(model, threads=1) as reexecutor:
        for prompt, answer in zip(prompts, answers, strict=True):
            read = await reexecutor.prefill(replace(job(prompt, answer), fingerprints=True, compare=()))
            made.append(replace(answer, fingerprints=read.fingerprints))
    return made


def _accused(total: Sums, tolerance: Tolerance, question: str) -> bool:
    return any(gate.name == question and not gate.passed for gate in gates(total, tolerance))


def _needed(parts: Sequence[Sums], tolerance: Tolerance, question: str, windows: int) -> int:
    """The smallest of LENGTHS at which 99 of 100 windows are accused; 0 where none is."""
    chance = np.random.Generator(np.random.PCG64(3))
    for length in LENGTHS:
        caught = sum(_accused(total, tolerance, question) for total in draw(parts, length, windows, chance))
        if caught >= 0.99 * windows:
            return length
    return 0


async def _cost(folder: Path) -> dict[str, float]:
    """CPU milliseconds of each token of an answer, read with and without fingerprints: medians, in turn."""
    model = folder / "costly"
    write_random_model(model)
    request = GenerationRequest(messages=(ChatMessage("user", "Tell me a story."),), max_tokens=COSTLY)
    [prompt] = await prompt_ids(model, [(request.messages, "")], threads=1)
    records = tuple(TokenRecord(300 + n, -1, ()) for n in range(COSTLY))
    plain = job(prompt, Answer(request=request, records=records, text=""))
    taken: dict[bool, list[float]] = {False: [], True: []}
    async with Reexecutor(model, threads=1) as reexecutor:
        for _ in range(ROUNDS):
            for made, seconds in taken.items():
                read = await reexecutor.prefill(replace(plain, fingerprints=made))
                seconds.append(read.cpu_seconds / COSTLY * 1e3)
    return {"read": float(np.median(taken[False])), "made": float(np.median(taken[True]))}


async def _run(quick: bool) -> dict[str, Any]:
    tolerance, windows = tolerance_for(file_sha256(MODEL)), (200 if quick else 2000)
    requests = [calibration_request(FRESH + number) for number in range(40 if quick else 400)]
    found: dict[str, list[AnswerEvidence]] = {}
    with tempfile.TemporaryDirectory(prefix="fabstir-bench-") as name:
        folder = Path(name)
        answers = await make_answers(MODEL, requests, threads=1)
        models = {"honest": MODEL}
        for kind in (Kind.Q8_0, Kind.Q4_0):
            models[kind.name.lower()] = folder / kind.name
            write_variant(folder / kind.name, kind)
        for rival, model in models.items():
            found[rival] = (await examine(MODEL, await _marked(model, answers), threads=1)).answers
        claims = (await examine(MODEL, await make_answers(models["q8_0"], requests, threads=1), threads=1)).answers
        cost = await _cost(folder)
    parts = {rival: [sums(one, tolerance) for one in evidence] for rival, evidence in found.items()}
    chance = np.random.Generator(np.random.PCG64(4))
    accusations = sum(
        _accused(total, tolerance, "fingerprint") for total in draw(parts["honest"], 256, 10 * windows, chance)
    )
    ours = _needed(parts["q8_0"], tolerance, "fingerprint", windows)
    peer = _needed([sums(one, tolerance) for one in claims], tolerance, "probability", windows)
    marks = {rival: [d for one in evidence for d in one.distances] for rival, evidence in found.items()}
    return {
        "claim": "Tokens until Q8_0 weights behind the fingerprints of an F16 model are found out in 99 of 100 cases",
        "ours": ours,
        "peer": peer,
        "ratio": round(ours / peer, 3) if peer else 0.0,
        "unit": "tokens",
        "n": len(marks["honest"]),
        "tokens": sum(one.tokens for one in parts["honest"]),
        "honest_windows": 10 * windows,
        "honest_accused": accusations,
        "tokens_q4_0": _needed(parts["q4_0"], tolerance, "fingerprint", windows),
        **{f"distance_{rival}": round(float(np.mean(far)), 5) for rival, far in marks.items()},
        "read_ms_token": round(cost["read"], 3),
        "made_ms_token": round(cost["made"], 3),
    }


def measure(quick: bool) -> dict[str, Any]:
    """All of it."""
    began = time.perf_counter()
    found = asyncio.run(_run(quick))
    load = round(os.getloadavg()[0], 2)
    return {**found, "cpus": os.cpu_count(), "load_1m": load, "wall_s": round(time.perf_counter() - began, 1)}


if __name__ == "__main__":
    main(measure, __doc__ or "")
